/** Codes of 1 … 8 bits, packed from bit 0 of byte 0 upwards (FORMAT.md, Codes). */

/** `n` codes, one a byte at `src`, to ceil(n·bits/8) bytes at `dst`; unused bits are zero. */
export function packRow(src: usize, dst: usize, n: i32, bits: i32): void {
  if (bits == 8) {
    memory.copy(dst, src, n);
    return;
  }
  if (ASC_FEATURE_SIMD) {
    if (bits == 4) {
      const blocks = n & -32;
      if (blocks != 0) pack4Blocks(src, dst, blocks);
      src += blocks;
      dst += blocks >> 1;
      n -= blocks;
    } else if (bits == 2) {
      const blocks = n & -64;
      if (blocks != 0) pack2Blocks(src, dst, blocks);
      src += blocks;
      dst += blocks >> 2;
      n -= blocks;
    }
  }
  let buffer: u32 = 0;
  let held = 0;
  for (let i = 0; i < n; ++i) {
    buffer |= <u32>load<u8>(src + i) << held;
    held += bits;
    if (held >= 8) {
      store<u8>(dst++, <u8>buffer);
      buffer >>= 8;
      held -= 8;
    }
  }
  if (held > 0) store<u8>(dst, <u8>buffer);
}

/**
 * Pairs of codes of four bits, one a byte, to one a byte: 16 codes to the low bytes of eight 16-bit lanes.
 */
// @ts-ignore: decorator
@inline
function pairsOf4(codes: v128): v128 {
  return v128.and(v128.or(codes, i16x8.shr_u(codes, 4)), i16x8.splat(255));
}

/** `n` codes, a multiple of 32, not 0. */
function pack4Blocks(src: usize, dst: usize, n: i32): void {
  const end = src + n;
  do {
    v128.store(dst, i8x16.narrow_i16x8_u(pairsOf4(v128.load(src)), pairsOf4(v128.load(src, 16))));
    src += 32;
    dst += 16;
  } while (src < end);
}

/** Four codes of two bits, one a byte, to one byte: 16 codes to the low bytes of four 32-bit lanes. */
// @ts-ignore: decorator
@inline
function foursOf2(codes: v128): v128 {
  const pairs = v128.or(codes, i32x4.shr_u(codes, 6));
  return v128.and(v128.or(pairs, i32x4.shr_u(pairs, 12)), i32x4.splat(255));
}

/** `n` codes, a multiple of 64, not 0. */
function pack2Blocks(src: usize, dst: usize, n: i32): void {
  const end = src + n;
  do {
    const low = i16x8.narrow_i32x4_u(foursOf2(v128.load(src)), foursOf2(v128.load(src, 16)));
    const high = i16x8.narrow_i32x4_u(foursOf2(v128.load(src, 32)), foursOf2(v128.load(src, 48)));
    v128.store(dst, i8x16.narrow_i16x8_u(low, high));
    src += 64;
    dst += 16;
  } while (src < end);
}

/** The way back: `n` codes of `bits` bits at `src` to one a byte at `dst`. */
export function unpackRow(src: usize, dst: usize, n: i32, bits: i32): void {
  if (bits == 8) {
    memory.copy(dst, src, n);
    return;
  }
  if (ASC_FEATURE_SIMD) {
    if (bits == 4) {
      const blocks = n & -32;
      if (blocks != 0) unpack4Blocks(src, dst, blocks);
      src += blocks >> 1;
      dst += blocks;
      n -= blocks;
    } else if (bits == 2) {
      const blocks = n & -64;
      if (blocks != 0) unpack2Blocks(src, dst, blocks);
      src += blocks >> 2;
      dst += blocks;
      n -= blocks;
    }
  }
  const mask: u32 = (1 << bits) - 1;
  let buffer: u32 = 0;
  let held = 0;
  for (let i = 0; i < n; ++i) {
    if (held < bits) {
      buffer |= <u32>load<u8>(src++) << held;
      held += 8;
    }
    store<u8>(dst + i, <u8>(buffer & mask));
    buffer >>= bits;
    held -= bits;
  }
}

/** `n` codes, a multiple of 32, not 0. */
function unpack4Blocks(src: usize, dst: usize, n: i32): void {
  const mask = i8x16.splat(15);
  const end = dst + n;
  do {
    const v = v128.load(src);
    const even = v128.and(v, mask);
    const odd = i8x16.shr_u(v, 4);
    const low = i8x16.shuffle(even, odd, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const high = i8x16.shuffle(even, odd, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    v128.store(dst, low);
    v128.store(dst, high, 16);
    src += 16;
    dst += 32;
  } while (dst < end);
}

/** Four bytes in the low bytes of 32-bit lanes to their sixteen codes of two bits. */
// @ts-ignore: decorator
@inline
function codesOf2(bytes: v128): v128 {
  const pairs = v128.or(bytes, i32x4.shl(bytes, 12));
  return v128.and(v128.or(pairs, i32x4.shl(pairs, 6)), i8x16.splat(3));
}

/** `n` codes, a multiple of 64, not 0. */
function unpack2Blocks(src: usize, dst: usize, n: i32): void {
  const end = dst + n;
  do {
    const v = v128.load(src);
    const low = i16x8.extend_low_i8x16_u(v);
    const high = i16x8.extend_high_i8x16_u(v);
    v128.store(dst, codesOf2(i32x4.extend_low_i16x8_u(low)));
    v128.store(dst, codesOf2(i32x4.extend_high_i16x8_u(low)), 16);
    v128.store(dst, codesOf2(i32x4.extend_low_i16x8_u(high)), 32);
    v128.store(dst, codesOf2(i32x4.extend_high_i16x8_u(high)), 48);
    src += 16;
    dst += 64;
  } while (dst < end);
}

/** Bytes of `n` packed codes. */
// @ts-ignore: decorator
@inline
export function packedBytes(n: i32, bits: i32): i32 {
  return (n * bits + 7) >> 3;
}
