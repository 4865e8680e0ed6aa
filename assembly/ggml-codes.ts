/**
 * What the block formats of ggml have in common: 16 codes become float32 by one scale, and in some formats one
 * offset. Products and sums are single float32 operations in the order of ggml's dequantize_row_* (ggml-quants.c),
 * which gguf-py follows, so the results are theirs to the bit.
 */
import { f16ToF32 } from "./convert";

/** The float16 at `at`. */
// @ts-ignore: decorator
@inline
export function loadF16(at: usize): f32 {
  return f16ToF32(load<u16>(at));
}

/** Whether the float16 at `at` is Inf or NaN. */
// @ts-ignore: decorator
@inline
export function isNonFiniteF16(at: usize): bool {
  return (load<u16>(at) & 0x7c00) == 0x7c00;
}

/**
 * Makes every NaN of `n` float32 the same one. Only scales that are Inf or NaN give any, and which one that is
 * depends on the machine.
 */
export function settleNaNs(at: usize, n: i32): void {
  for (const end = at + (n << 2); at < end; at += 4) {
    if ((load<u32>(at) & 0x7fffffff) > 0x7f800000) store<u32>(at, 0x7fc00000);
  }
}

// @ts-ignore: decorator
@inline
function lowAsFloats(words: v128): v128 {
  return f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(words));
}

// @ts-ignore: decorator
@inline
function highAsFloats(words: v128): v128 {
  return f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(words));
}

/** SIMD build: 16 signed codes, one a byte, times four equal lanes of `scale`. */
// @ts-ignore: decorator
@inline
export function storeScaled16(codes: v128, scale: v128, dst: usize): void {
  const low = i16x8.extend_low_i8x16_s(codes);
  const high = i16x8.extend_high_i8x16_s(codes);
  v128.store(dst, f32x4.mul(lowAsFloats(low), scale));
  v128.store(dst, f32x4.mul(highAsFloats(low), scale), 16);
  v128.store(dst, f32x4.mul(lowAsFloats(high), scale), 32);
  v128.store(dst, f32x4.mul(highAsFloats(high), scale), 48);
}

/** SIMD build: `storeScaled16`, then plus `offset`. */
// @ts-ignore: decorator
@inline
export function storeShifted16(codes: v128, scale: v128, offset: v128, dst: usize): void {
  const low = i16x8.extend_low_i8x16_s(codes);
  const high = i16x8.extend_high_i8x16_s(codes);
  v128.store(dst, f32x4.add(f32x4.mul(lowAsFloats(low), scale), offset));
  v128.store(dst, f32x4.add(f32x4.mul(highAsFloats(low), scale), offset), 16);
  v128.store(dst, f32x4.add(f32x4.mul(lowAsFloats(high), scale), offset), 32);
  v128.store(dst, f32x4.add(f32x4.mul(highAsFloats(high), scale), offset), 48);
}

/** SIMD build: the low four bits of 16 bytes. */
// @ts-ignore: decorator
@inline
export function lowNibbles(bytes: v128): v128 {
  return v128.and(bytes, i8x16.splat(15));
}

/** SIMD build: the high four bits of 16 bytes. */
// @ts-ignore: decorator
@inline
export function highNibbles(bytes: v128): v128 {
  return i8x16.shr_u(bytes, 4);
}
