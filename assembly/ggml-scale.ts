/** Scales and offsets as ggml's blocks store them: float16. */
import { f16ToF32 } from "./convert";
import { f32ToF16 } from "./narrow";

/** Largest finite float16: what a block's scale or offset can be at most. */
export const LARGEST_F16: f32 = 65504;
/** Least positive float16, 2^−24. */
const LEAST_F16: f32 = 5.9604644775390625e-8;

/** Nearest float16 of finite `x`, at most LARGEST_F16 in magnitude. */
// @ts-ignore: decorator
@inline
export function roundF16(x: f32): f32 {
  const low = x < -LARGEST_F16 ? -LARGEST_F16 : x;
  return f16ToF32(f32ToF16(low > LARGEST_F16 ? LARGEST_F16 : low));
}

/** As `roundF16`, but never 0 where `x` is not: codes may still say something of so small weights. */
// @ts-ignore: decorator
@inline
export function roundScale(x: f32): f32 {
  const rounded = roundF16(x);
  return rounded != 0 || x == 0 ? rounded : x < 0 ? -LEAST_F16 : LEAST_F16;
}

// @ts-ignore: decorator
@inline
export function storeF16(at: usize, x: f32): void {
  store<u16>(at, <u16>f32ToF16(x));
}
