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
    } else {
      const blocks = wholeBlocks(n, bits);
      if (blocks != 0) packBlocks(src, dst, blocks, bits);
      src += blocks;
      dst += (blocks * bits) >> 3;
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

/** Bytes of a vector, and codes that one turn of `packBlocks` and `unpackBlocks` takes. */
const VECTOR: i32 = 16;

/**
 * How many of `n` codes of any width can go sixteen at a time: a turn writes, or reads, a whole vector for the 2·bits
 * bytes that are its own, which must not pass the end of the row.
 */
function wholeBlocks(n: i32, bits: i32): i32 {
  const spare = packedBytes(n, bits) - VECTOR;
  return spare < 0 ? 0 : min<i32>(n & -VECTOR, (spare / (2 * bits) + 1) * VECTOR);
}

/** What `swizzle` joins the first `bits` bytes of both 64-bit lanes by; what follows them is of no account. */
// @ts-ignore: decorator
@inline
function joinedLanes(bits: i32): v128 {
  const index = i8x16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const isUpper = i8x16.ge_u(index, i8x16.splat(<i8>bits));
  return i8x16.add(index, v128.and(isUpper, i8x16.splat(<i8>(8 - bits))));
}

/** What `swizzle` parts them by again: `bits` bytes to each 64-bit lane, the rest of it zeros. */
// @ts-ignore: decorator
@inline
function partedLanes(bits: i32): v128 {
  const index = i8x16(0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7);
  const width = i8x16.splat(<i8>bits);
  // An index of 255 gives zero.
  return v128.or(i8x16.add(index, v128.and(i64x2(0, -1), width)), i8x16.ge_u(index, width));
}

/**
 * `n` codes of any width below 8, a count of `wholeBlocks`, not 0: pairs of them joined to 16-bit lanes, pairs of
 * those to 32-bit lanes, and those to 64-bit lanes of eight codes.
 */
function packBlocks(src: usize, dst: usize, n: i32, bits: i32): void {
  const order = joinedLanes(bits);
  const gap8 = 8 - bits, gap16 = 16 - 2 * bits, gap32 = 32 - 4 * bits;
  const low8 = i16x8.splat(255), low16 = i32x4.splat(0xffff), low32 = i64x2.splat(0xffffffff);
  const step = 2 * bits;
  const end = src + n;
  do {
    let v = v128.load(src);
    v = v128.or(v128.and(v, low8), i16x8.shr_u(v128.andnot(v, low8), gap8));
    v = v128.or(v128.and(v, low16), i32x4.shr_u(v128.andnot(v, low16), gap16));
    v = v128.or(v128.and(v, low32), i64x2.shr_u(v128.andnot(v, low32), gap32));
    v128.store(dst, i8x16.swizzle(v, order));
    src += VECTOR;
    dst += step;
  } while (src < end);
}

/** The way back: `n` codes of `bits` bits of `bits` bits at `src` to one a byte at `dst`. */
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
    } else {
      const blocks = wholeBlocks(n, bits);
      if (blocks != 0) unpackBlocks(src, dst, blocks, bits);
      src += (blocks * bits) >> 3;
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

/** `n` codes of any width below 8, a count of `wholeBlocks`, not 0: the steps of `packBlocks` backwards. */
function unpackBlocks(src: usize, dst: usize, n: i32, bits: i32): void {
  const order = partedLanes(bits);
  const gap8 = 8 - bits, gap16 = 16 - 2 * bits, gap32 = 32 - 4 * bits;
  const low32 = i64x2.splat((1 << (4 * bits)) - 1);
  const low16 = i32x4.splat((1 << (2 * bits)) - 1);
  const low8 = i16x8.splat((<i16>1 << <i16>bits) - 1);
  const step = 2 * bits;
  const end = dst + n;
  do {
    let v = i8x16.swizzle(v128.load(src), order);
    v = v128.or(v128.and(v, low32), i64x2.shl(v128.andnot(v, low32), gap32));
    v = v128.or(v128.and(v, low16), i32x4.shl(v128.andnot(v, low16), gap16));
    v = v128.or(v128.and(v, low8), i16x8.shl(v128.andnot(v, low8), gap8));
    v128.store(dst, v);
    src += step;
    dst += VECTOR;
  } while (dst < end);
}

/** Bytes of `n` packed codes. */
// @ts-ignore: decorator
@inline
export function packedBytes(n: i32, bits: i32): i32 {
  return (n * bits + 7) >> 3;
}
