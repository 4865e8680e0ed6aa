/**
 * float32 to the types of an export: rounded to nearest even, beyond the largest number to Inf, NaN stays
 * NaN.
 */
import { F16, F32 } from "./convert";

/** One float32 to float16. */
// @ts-ignore: decorator
@inline
export function f32ToF16(x: f32): u32 {
  const bits = reinterpret<u32>(x);
  const magnitude = bits & 0x7fffffff;
  const sign = (bits >> 16) & 0x8000;
  if (magnitude > 0x7f800000) return sign | 0x7e00 | ((magnitude >> 13) & 0x1ff);
  // From 65520 on, half a step above the largest number.
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // A denormal is a multiple of 2^-24, and that is the last bit of float32 numbers from 0.5 to 1.
    return sign | (reinterpret<u32>(reinterpret<f32>(magnitude) + 0.5) - 0x3f000000);
  }
  // Half a step less one, and one more where the last bit that stays is odd; the exponent's bias changes by
  // 112.
  return sign | ((magnitude - (112 << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13);
}

/** One float32 to bfloat16. */
// @ts-ignore: decorator
@inline
function f32ToBf16(x: f32): u32 {
  const bits = reinterpret<u32>(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >> 16) | 0x40;
  return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

/** Four float32, none NaN, to bfloat16 in the low halves of 32-bit lanes. */
// @ts-ignore: decorator
@inline
function bf16x4(x: v128): v128 {
  const odd = v128.and(i32x4.shr_u(x, 16), i32x4.splat(1));
  return i32x4.shr_u(i32x4.add(i32x4.add(x, i32x4.splat(0x7fff)), odd), 16);
}

/** Four float32, each of magnitude below 65520, to float16 in the low halves of 32-bit lanes. */
// @ts-ignore: decorator
@inline
function f16x4(x: v128): v128 {
  const magnitude = v128.and(x, i32x4.splat(0x7fffffff));
  const sign = i32x4.shr_u(v128.and(x, i32x4.splat(0x80000000)), 16);
  const denormal = i32x4.sub(f32x4.add(magnitude, f32x4.splat(0.5)), i32x4.splat(0x3f000000));
  const odd = v128.and(i32x4.shr_u(magnitude, 13), i32x4.splat(1));
  const normal = i32x4.shr_u(i32x4.add(i32x4.add(magnitude, i32x4.splat(0xfff - (112 << 23))), odd), 13);
  const isDenormal = i32x4.lt_s(magnitude, i32x4.splat(0x38800000));
  return v128.or(sign, v128.bitselect(denormal, normal, isDenormal));
}

/** Eight float32 at `src` to `dst`; false, with nothing written, where one needs the scalar way. */
// @ts-ignore: decorator
@inline
function narrow8(src: usize, dst: usize, dtype: i32): bool {
  const a = v128.load(src);
  const b = v128.load(src, 16);
  const largest = i32x4.max_u(i32x4.shl(a, 1), i32x4.shl(b, 1));
  const limit: u32 = dtype == F16 ? (0x477ff000 << 1) - 1 : 0x7f800000 << 1;
  if (!i32x4.all_true(i32x4.ge_u(i32x4.splat(limit), largest))) return false;
  v128.store(
    dst,
    dtype == F16 ? i16x8.narrow_i32x4_u(f16x4(a), f16x4(b)) : i16x8.narrow_i32x4_u(bf16x4(a), bf16x4(b)),
  );
  return true;
}

/** `n` float32 at `src` to `dst` as F32, F16 or BF16. */
export function narrowRow(src: usize, dst: usize, n: i32, dtype: i32): void {
  if (dtype == F32) {
    memory.copy(dst, src, <usize>n << 2);
    return;
  }
  const end = dst + (n << 1);
  while (dst < end) {
    if (ASC_FEATURE_SIMD) {
      if (dst + 16 <= end && narrow8(src, dst, dtype)) {
        src += 32;
        dst += 16;
        continue;
      }
    }
    const x = load<f32>(src);
    store<u16>(dst, <u16>(dtype == F16 ? f32ToF16(x) : f32ToBf16(x)));
    src += 4;
    dst += 2;
  }
}
