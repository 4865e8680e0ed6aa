/** Arithmetic that both builds do alike. */

/**
 * 1.5·2^23: added to a float32 of magnitude below 2^22 it rounds it to an integer, half to even, and leaves
 * that integer in the low bits of the mantissa. One addition, the same in both builds.
 */
export const ROUND_MAGIC: f32 = 12582912.0;

/**
 * Largest magnitude of a weight that is quantized, 2^100. Far beyond it hi − lo, a sum over a group or (q −
 * z)·scale could overflow float32, and an Inf would be stored for a finite weight; such a weight is reported
 * instead, like an Inf.
 */
export const LARGEST_WEIGHT: f32 = 1.2676506002282294e30;
/** Its bits: bits of non-negative floats order as the floats do, NaN above all. */
export const LARGEST_WEIGHT_BITS: u32 = 0x71800000;

/** `x` clamped to lo … hi; NaN gives lo. */
// @ts-ignore: decorator
@inline
export function clamp(x: f32, lo: f32, hi: f32): f32 {
  const low = select<f32>(x, lo, x > lo);
  return select<f32>(low, hi, low < hi);
}

/** `x` rounded half to even and clamped to lo … hi (integers, below 2^22). */
// @ts-ignore: decorator
@inline
export function roundClamp(x: f32, lo: f32, hi: f32): f32 {
  return clamp(x, lo, hi) + ROUND_MAGIC - ROUND_MAGIC;
}

/** Largest code of `bits` bits as a float. */
// @ts-ignore: decorator
@inline
export function largestCode(bits: i32): f32 {
  return <f32>((1 << bits) - 1);
}

// @ts-ignore: decorator
@inline
export function alignUp(n: i32, alignment: i32): i32 {
  return (n + alignment - 1) & -alignment;
}

/**
 * Copies a few float32; the instruction for it calls out of the kernels, which takes longer than a short
 * loop.
 */
export function copyFloats(dst: usize, src: usize, n: i32): void {
  for (const end = dst + (n << 2); dst < end; dst += 4, src += 4) store<f32>(dst, load<f32>(src));
}

/** The four lanes added as ((0 + 1) + 2) + 3. */
// @ts-ignore: decorator
@inline
export function addLanes(lanes: v128): f32 {
  return (
    f32x4.extract_lane(lanes, 0) +
    f32x4.extract_lane(lanes, 1) +
    f32x4.extract_lane(lanes, 2) +
    f32x4.extract_lane(lanes, 3)
  );
}
