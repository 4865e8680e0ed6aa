/**
 * ggml's formats of 32 elements a block, each block with a float16 scale of its own: blocks to float32.
 * Layouts: ggml-common.h (block_q4_0 … block_q8_0). Element j of a block of 4-bit codes is the low half of byte j,
 * element j + 16 the high half.
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

/** Elements of a block. */
export const BLOCK_ELEMENTS: i32 = 32;

export const Q4_0_BYTES: i32 = 18;
export const Q4_1_BYTES: i32 = 20;
export const Q5_0_BYTES: i32 = 22;
export const Q5_1_BYTES: i32 = 24;
export const Q8_0_BYTES: i32 = 34;

/** `d · (q − 8)`: f16 d, 16 bytes of codes. */
export function q4_0ToFloats(block: usize, dst: usize, count: i32): void {
  for (const end = block + count * Q4_0_BYTES; block < end; block += Q4_0_BYTES, dst += 128) {
    const d = loadF16(block);
    if (ASC_FEATURE_SIMD) {
      const scale = f32x4.splat(d);
      const bytes = v128.load(block, 2);
      const middle = i8x16.splat(8);
      storeScaled16(i8x16.sub(lowNibbles(bytes), middle), scale, dst);
      storeScaled16(i8x16.sub(highNibbles(bytes), middle), scale, dst + 64);
    } else {
      for (let j = 0; j < 16; ++j) {
        const byte = <i32>load<u8>(block + j, 2);
        store<f32>(dst + (j << 2), d * <f32>((byte & 15) - 8));
        store<f32>(dst + (j << 2), d * <f32>((byte >> 4) - 8), 64);
      }
    }
    if (isNonFiniteF16(block)) settleNaNs(dst, BLOCK_ELEMENTS);
  }
}

/** `d · q + m`: f16 d, f16 m, 16 bytes of codes. */
export function q4_1ToFloats(block: usize, dst: usize, count: i32): void {
  for (const end = block + count * Q4_1_BYTES; block < end; block += Q4_1_BYTES, dst += 128) {
    const d = loadF16(block);
    const m = loadF16(block + 2);
    if (ASC_FEATURE_SIMD) {
      const scale = f32x4.splat(d);
      const offset = f32x4.splat(m);
      const bytes = v128.load(block, 4);
      storeShifted16(lowNibbles(bytes), scale, offset, dst);
      storeShifted16(highNibbles(bytes), scale, offset, dst + 64);
    } else {
      for (let j = 0; j < 16; ++j) {
        const byte = <i32>load<u8>(block + j, 4);
        store<f32>(dst + (j << 2), d * <f32>(byte & 15) + m);
        store<f32>(dst + (j << 2), d * <f32>(byte >> 4) + m, 64);
      }
    }
    if (isNonFiniteF16(block) || isNonFiniteF16(block + 2)) settleNaNs(dst, BLOCK_ELEMENTS);
  }
}

/** SIMD build: 16 where bit j of the 16 bits in the first lane of `bits` is set, j being the byte's number. */
// @ts-ignore: decorator
@inline
function fifthBits(bits: v128): v128 {
  const spread = i8x16.shuffle(bits, bits, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
  const masks = i8x16(1, 2, 4, 8, 16, 32, 64, -128, 1, 2, 4, 8, 16, 32, 64, -128);
  return v128.and(i8x16.eq(v128.and(spread, masks), masks), i8x16.splat(16));
}

/** `d · (q − 16)`: f16 d, a word with the fifth bits of the codes, 16 bytes with the lower four. */
export function q5_0ToFloats(block: usize, dst: usize, count: i32): void {
  for (const end = block + count * Q5_0_BYTES; block < end; block += Q5_0_BYTES, dst += 128) {
    const d = loadF16(block);
    if (ASC_FEATURE_SIMD) {
      const scale = f32x4.splat(d);
      const bytes = v128.load(block, 6);
      const middle = i8x16.splat(16);
      const low = v128.or(lowNibbles(bytes), fifthBits(v128.load16_splat(block, 2)));
      const high = v128.or(highNibbles(bytes), fifthBits(v128.load16_splat(block, 4)));
      storeScaled16(i8x16.sub(low, middle), scale, dst);
      storeScaled16(i8x16.sub(high, middle), scale, dst + 64);
    } else {
      const fifths = load<u32>(block, 2);
      for (let j = 0; j < 16; ++j) {
        const byte = <i32>load<u8>(block + j, 6);
        const low = (byte & 15) | (((fifths >> j) & 1) << 4);
        const high = (byte >> 4) | (((fifths >> (j + 16)) & 1) << 4);
        store<f32>(dst + (j << 2), d * <f32>(low - 16));
        store<f32>(dst + (j << 2), d * <f32>(high - 16), 64);
      }
    }
    if (isNonFiniteF16(block)) settleNaNs(dst, BLOCK_ELEMENTS);
  }
}

/** `d · q + m`: f16 d, f16 m, a word with the fifth bits of the codes, 16 bytes with the lower four. */
export function q5_1ToFloats(block: usize, dst: usize, count: i32): void {
  for (const end = block + count * Q5_1_BYTES; block < end; block += Q5_1_BYTES, dst += 128) {
    const d = loadF16(block);
    const m = loadF16(block + 2);
    if (ASC_FEATURE_SIMD) {
      const scale = f32x4.splat(d);
      const offset = f32x4.splat(m);
      const bytes = v128.load(block, 8);
      const low = v128.or(lowNibbles(bytes), fifthBits(v128.load16_splat(block, 4)));
      const high = v128.or(highNibbles(bytes), fifthBits(v128.load16_splat(block, 6)));
      storeShifted16(low, scale, offset, dst);
      storeShifted16(high, scale, offset, dst + 64);
    } else {
      const fifths = load<u32>(block, 4);
      for (let j = 0; j < 16; ++j) {
        const byte = <i32>load<u8>(block + j, 8);
        const low = (byte & 15) | (((fifths >> j) & 1) << 4);
        const high = (byte >> 4) | (((fifths >> (j + 16)) & 1) << 4);
        store<f32>(dst + (j << 2), d * <f32>low + m);
        store<f32>(dst + (j << 2), d * <f32>high + m, 64);
      }
    }
    if (isNonFiniteF16(block) || isNonFiniteF16(block + 2)) settleNaNs(dst, BLOCK_ELEMENTS);
  }
}

/** `q · d`: f16 d, 32 signed bytes. */
export function q8_0ToFloats(block: usize, dst: usize, count: i32): void {
  for (const end = block + count * Q8_0_BYTES; block < end; block += Q8_0_BYTES, dst += 128) {
    const d = loadF16(block);
    if (ASC_FEATURE_SIMD) {
      const scale = f32x4.splat(d);
      storeScaled16(v128.load(block, 2), scale, dst);
      storeScaled16(v128.load(block, 18), scale, dst + 64);
    } else {
      for (let j = 0; j < 32; ++j) store<f32>(dst + (j << 2), <f32>load<i8>(block + j, 2) * d);
    }
    if (isNonFiniteF16(block)) settleNaNs(dst, BLOCK_ELEMENTS);
  }
}
