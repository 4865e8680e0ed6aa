/**
 * ggml's K formats: 256 elements a block, in groups of 16 or 32 whose scales (and minima) are small integers times
 * one float16 of the block. Layouts: ggml-common.h (block_q2_K … block_q6_K).
 */
import {
  highNibbles,
  isNonFiniteF16,
  loadF16,
  lowNibbles,
  settleNaNs,
  storeScaled16,
  storeShifted16,
} from "./ggml-codes";

/** Elements of a block (QK_K). */
export const SUPER_BLOCK_ELEMENTS: i32 = 256;

export const Q2_K_BYTES: i32 = 84;
export const Q3_K_BYTES: i32 = 110;
export const Q4_K_BYTES: i32 = 144;
export const Q5_K_BYTES: i32 = 176;
export const Q6_K_BYTES: i32 = 210;

/**
 * `d·(s & 15) · q − dmin·(s >> 4)`: 16 scale bytes, one for 16 elements; 64 bytes of codes; f16 d, f16 dmin. Two
 * bits of 32 bytes hold 32 elements, the next two bits of the same bytes the 32 after them.
 */
export function q2kToFloats(block: usize, dst: usize, count: i32): void {
  for (const end = block + count * Q2_K_BYTES; block < end; block += Q2_K_BYTES) {
    const d = loadF16(block + 80);
    const dmin = loadF16(block + 82);
    let scales = block;
    for (let half = 0; half < 2; ++half) {
      const codes = block + 16 + (half << 5);
      for (let shift = 0; shift < 8; shift += 2, scales += 2, dst += 128) {
        const first = <i32>load<u8>(scales);
        const second = <i32>load<u8>(scales, 1);
        const scale0 = d * <f32>(first & 15);
        const scale1 = d * <f32>(second & 15);
        const offset0 = -(dmin * <f32>(first >> 4));
        const offset1 = -(dmin * <f32>(second >> 4));
        if (ASC_FEATURE_SIMD) {
          const two = i8x16.splat(3);
          const low = v128.and(i8x16.shr_u(v128.load(codes), shift), two);
          const high = v128.and(i8x16.shr_u(v128.load(codes, 16), shift), two);
          storeShifted16(low, f32x4.splat(scale0), f32x4.splat(offset0), dst);
          storeShifted16(high, f32x4.splat(scale1), f32x4.splat(offset1), dst + 64);
        } else {
          for (let j = 0; j < 16; ++j) {
            const low = (<i32>load<u8>(codes + j) >> shift) & 3;
            const high = (<i32>load<u8>(codes + j, 16) >> shift) & 3;
            store<f32>(dst + (j << 2), scale0 * <f32>low + offset0);
            store<f32>(dst + (j << 2), scale1 * <f32>high + offset1, 64);
          }
        }
      }
    }
    if (isNonFiniteF16(block + 80) || isNonFiniteF16(block + 82)) {
      settleNaNs(dst - 4 * SUPER_BLOCK_ELEMENTS, SUPER_BLOCK_ELEMENTS);
    }
  }
}

/** Six-bit scale `g` of a Q3_K block, from its 12 bytes: low nibbles in the first eight, two bits in the last four. */
// @ts-ignore: decorator
@inline
function scaleOfQ3(packed: usize, g: i32): i32 {
  const low = (<i32>load<u8>(packed + (g & 7)) >> ((g >> 3) << 2)) & 15;
  const high = (<i32>load<u8>(packed + (g & 3), 8) >> ((g >> 2) << 1)) & 3;
  return (low | (high << 4)) - 32;
}

/**
 * `d·s · (q − 4·(bit is 0))`: 32 bytes of third bits, of which bit i is that of elements 32·i …; 64 bytes of codes
 * as in Q2_K; 12 bytes of scales, one for 16 elements; f16 d.
 */
export function q3kToFloats(block: usize, dst: usize, count: i32): void {
  for (const end = block + count * Q3_K_BYTES; block < end; block += Q3_K_BYTES) {
    const d = loadF16(block + 108);
    for (let i = 0; i < 8; ++i, dst += 128) {
      const codes = block + 32 + ((i >> 2) << 5);
      const shift = (i & 3) << 1;
      const scale0 = d * <f32>scaleOfQ3(block + 96, i << 1);
      const scale1 = d * <f32>scaleOfQ3(block + 96, (i << 1) + 1);
      if (ASC_FEATURE_SIMD) {
        const two = i8x16.splat(3);
        const four = i8x16.splat(4);
        const bit = i8x16.splat(<i8>(<i32>1 << i));
        const low = v128.and(i8x16.shr_u(v128.load(codes), shift), two);
        const high = v128.and(i8x16.shr_u(v128.load(codes, 16), shift), two);
        const lowOff = v128.andnot(four, i8x16.eq(v128.and(v128.load(block), bit), bit));
        const highOff = v128.andnot(four, i8x16.eq(v128.and(v128.load(block, 16), bit), bit));
        storeScaled16(i8x16.sub(low, lowOff), f32x4.splat(scale0), dst);
        storeScaled16(i8x16.sub(high, highOff), f32x4.splat(scale1), dst + 64);
      } else {
        for (let j = 0; j < 16; ++j) {
          const low = (<i32>load<u8>(codes + j) >> shift) & 3;
          const high = (<i32>load<u8>(codes + j, 16) >> shift) & 3;
          const lowBit = (<i32>load<u8>(block + j) >> i) & 1;
          const highBit = (<i32>load<u8>(block + j, 16) >> i) & 1;
          store<f32>(dst + (j << 2), scale0 * <f32>(low - ((lowBit ^ 1) << 2)));
          store<f32>(dst + (j << 2), scale1 * <f32>(high - ((highBit ^ 1) << 2)), 64);
        }
      }
    }
    if (isNonFiniteF16(block + 108)) settleNaNs(dst - 4 * SUPER_BLOCK_ELEMENTS, SUPER_BLOCK_ELEMENTS);
  }
}

/** Six-bit scale of 32 elements of a Q4_K or Q5_K block from its 12 bytes; the minimum's code for `at` + 4. */
// @ts-ignore: decorator
@inline
function scaleOfQ4(packed: usize, g: i32): i32 {
  return g < 4
    ? <i32>load<u8>(packed + g) & 63
    : (<i32>load<u8>(packed + g, 4) & 15) | ((<i32>load<u8>(packed + g - 4) >> 6) << 4);
}

// @ts-ignore: decorator
@inline
function minimumOfQ4(packed: usize, g: i32): i32 {
  return g < 4
    ? <i32>load<u8>(packed + g, 4) & 63
    : (<i32>load<u8>(packed + g, 4) >> 4) | ((<i32>load<u8>(packed + g) >> 6) << 4);
}

/**
 * `d·s · q − dmin·m`: f16 d, f16 dmin, 12 bytes of scales and minima, one of each for 32 elements; 128 bytes of
 * codes, the low halves of 32 bytes 32 elements, the high halves the 32 after them.
 */
export function q4kToFloats(block: usize, dst: usize, count: i32): void {
  for (const end = block + count * Q4_K_BYTES; block < end; block += Q4_K_BYTES) {
    const d = loadF16(block);
    const dmin = loadF16(block + 2);
    for (let g = 0; g < 8; g += 2, dst += 256) {
      const codes = block + 16 + (g << 4);
      const scale0 = d * <f32>scaleOfQ4(block + 4, g);
      const scale1 = d * <f32>scaleOfQ4(block + 4, g + 1);
      const offset0 = -(dmin * <f32>minimumOfQ4(block + 4, g));
      const offset1 = -(dmin * <f32>minimumOfQ4(block + 4, g + 1));
      if (ASC_FEATURE_SIMD) {
        const low = v128.load(codes);
        const high = v128.load(codes, 16);
        storeShifted16(lowNibbles(low), f32x4.splat(scale0), f32x4.splat(offset0), dst);
        storeShifted16(lowNibbles(high), f32x4.splat(scale0), f32x4.splat(offset0), dst + 64);
        storeShifted16(highNibbles(low), f32x4.splat(scale1), f32x4.splat(offset1), dst + 128);
        storeShifted16(highNibbles(high), f32x4.splat(scale1), f32x4.splat(offset1), dst + 192);
      } else {
        for (let j = 0; j < 32; ++j) {
          const byte = <i32>load<u8>(codes + j);
          store<f32>(dst + (j << 2), scale0 * <f32>(byte & 15) + offset0);
          store<f32>(dst + (j << 2), scale1 * <f32>(byte >> 4) + offset1, 128);
        }
      }
    }
    if (isNonFiniteF16(block) || isNonFiniteF16(block + 2)) {
      settleNaNs(dst - 4 * SUPER_BLOCK_ELEMENTS, SUPER_BLOCK_ELEMENTS);
    }
  }
}

/** SIMD build: 16 in each byte of which bit `i` is set. */
// @ts-ignore: decorator
@inline
function fifthBits(bytes: v128, i: i32): v128 {
  return i8x16.shl(v128.and(i8x16.shr_u(bytes, i), i8x16.splat(1)), 4);
}

/** As Q4_K, with 32 bytes of fifth bits before the codes, of which bit i is that of elements 32·i …. */
export function q5kToFloats(block: usize, dst: usize, count: i32): void {
  for (const end = block + count * Q5_K_BYTES; block < end; block += Q5_K_BYTES) {
    const d = loadF16(block);
    const dmin = loadF16(block + 2);
    const fifths = block + 16;
    for (let g = 0; g < 8; g += 2, dst += 256) {
      const codes = block + 48 + (g << 4);
      const scale0 = d * <f32>scaleOfQ4(block + 4, g);
      const scale1 = d * <f32>scaleOfQ4(block + 4, g + 1);
      const offset0 = -(dmin * <f32>minimumOfQ4(block + 4, g));
      const offset1 = -(dmin * <f32>minimumOfQ4(block + 4, g + 1));
      if (ASC_FEATURE_SIMD) {
        const low = v128.load(codes);
        const high = v128.load(codes, 16);
        const lowBits = v128.load(fifths);
        const highBits = v128.load(fifths, 16);
        const low0 = v128.or(lowNibbles(low), fifthBits(lowBits, g));
        const high0 = v128.or(lowNibbles(high), fifthBits(highBits, g));
        const low1 = v128.or(highNibbles(low), fifthBits(lowBits, g + 1));
        const high1 = v128.or(highNibbles(high), fifthBits(highBits, g + 1));
        storeShifted16(low0, f32x4.splat(scale0), f32x4.splat(offset0), dst);
        storeShifted16(high0, f32x4.splat(scale0), f32x4.splat(offset0), dst + 64);
        storeShifted16(low1, f32x4.splat(scale1), f32x4.splat(offset1), dst + 128);
        storeShifted16(high1, f32x4.splat(scale1), f32x4.splat(offset1), dst + 192);
      } else {
        for (let j = 0; j < 32; ++j) {
          const byte = <i32>load<u8>(codes + j);
          const bits = <i32>load<u8>(fifths + j) >> g;
          store<f32>(dst + (j << 2), scale0 * <f32>((byte & 15) | ((bits & 1) << 4)) + offset0);
          store<f32>(dst + (j << 2), scale1 * <f32>((byte >> 4) | ((bits & 2) << 3)) + offset1, 128);
        }
      }
    }
    if (isNonFiniteF16(block) || isNonFiniteF16(block + 2)) {
      settleNaNs(dst - 4 * SUPER_BLOCK_ELEMENTS, SUPER_BLOCK_ELEMENTS);
    }
  }
}

/** SIMD build: two bits of each byte, from bit `i` on, as bits four and five. */
// @ts-ignore: decorator
@inline
function upperBits(bytes: v128, i: i32): v128 {
  return i8x16.shl(v128.and(i8x16.shr_u(bytes, i), i8x16.splat(3)), 4);
}

/**
 * `d·s · (q − 32)`: 128 bytes with the low four bits, 64 with the upper two, 16 signed scales, one for 16 elements,
 * f16 d. Of each 128 elements the low halves of 64 bytes are the first 64, the high halves the others; two bits of
 * 32 bytes go with 32 elements.
 */
export function q6kToFloats(block: usize, dst: usize, count: i32): void {
  for (const end = block + count * Q6_K_BYTES; block < end; block += Q6_K_BYTES) {
    const d = loadF16(block + 208);
    for (let i = 0; i < 16; ++i, dst += 64) {
      const half = i >> 3;
      const codes = block + (half << 6) + ((i & 3) << 4);
      const isHigh = (i & 4) != 0;
      const uppers = block + 128 + (half << 5) + ((i & 1) << 4);
      const shift = i & 6;
      const scale = d * <f32>load<i8>(block + i, 192);
      if (ASC_FEATURE_SIMD) {
        const bytes = v128.load(codes);
        const low = isHigh ? highNibbles(bytes) : lowNibbles(bytes);
        const q = v128.or(low, upperBits(v128.load(uppers), shift));
        storeScaled16(i8x16.sub(q, i8x16.splat(32)), f32x4.splat(scale), dst);
      } else {
        for (let j = 0; j < 16; ++j) {
          const byte = <i32>load<u8>(codes + j);
          const upper = (<i32>load<u8>(uppers + j) >> shift) & 3;
          const q = (isHigh ? byte >> 4 : byte & 15) | (upper << 4);
          store<f32>(dst + (j << 2), scale * <f32>(q - 32));
        }
      }
    }
    if (isNonFiniteF16(block + 208)) settleNaNs(dst - 4 * SUPER_BLOCK_ELEMENTS, SUPER_BLOCK_ELEMENTS);
  }
}
