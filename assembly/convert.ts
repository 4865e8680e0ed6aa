/** Rows of any source type to float32, exactly, and float32 to the types of an export. */
import { multiplyByScales } from "./equalize";
import { Q4_0, convertBlockRow } from "./ggml-row";
import { LARGEST_WEIGHT, LARGEST_WEIGHT_BITS } from "./number";
import { Tile } from "./tile";

export const F64: i32 = 0;
export const F32: i32 = 1;
export const F16: i32 = 2;
export const BF16: i32 = 3;
export const F8_E4M3: i32 = 4;
export const F8_E5M2: i32 = 5;

/** Bytes of an element of the type. */
// @ts-ignore: decorator
@inline
export function elementBytes(dtype: i32): i32 {
  return dtype == F64 ? 8 : dtype == F32 ? 4 : dtype <= BF16 ? 2 : 1;
}

/** One float16, Inf and NaN included; every float16 is a float32. */
// @ts-ignore: decorator
@inline
export function f16ToF32(h: u32): f32 {
  const magnitude = h & 0x7fff;
  const sign = (h & 0x8000) << 16;
  if (magnitude >= 0x7c00) return reinterpret<f32>(sign | 0x7f800000 | (magnitude << 13));
  if (magnitude < 0x400) {
    // Denormal: the mantissa as an integer times 2^-24.
    return reinterpret<f32>(sign | reinterpret<u32>(<f32>magnitude * 5.9604644775390625e-8));
  }
  return reinterpret<f32>(sign | ((magnitude << 13) + (112 << 23)));
}

/** float32 of every F8_E4M3 code, then of every F8_E5M2 code. */
const F8_TABLES = memory.data(2 * 256 * 4);

/** Fills the tables; runs when an instance starts. */
function fillF8Tables(): void {
  for (let b: u32 = 0; b < 256; ++b) {
    // OCP 8-bit floating point, "E4M3": bias 7, no Inf, S.1111.111 is NaN.
    const sign = (b & 0x80) << 24;
    const magnitude = b & 0x7f;
    let bits: u32;
    if (magnitude == 0x7f) bits = 0x7fc00000;
    else if (magnitude < 8) bits = reinterpret<u32>(<f32>magnitude * 0.001953125);
    else bits = (magnitude << 20) + (120 << 23);
    store<u32>(F8_TABLES + (b << 2), sign | bits);
    // "E5M2" is the upper byte of a float16.
    store<f32>(F8_TABLES + (b << 2), f16ToF32(b << 8), 1024);
  }
}
fillF8Tables();

/** Four float16 in the upper halves of 32-bit lanes, neither Inf nor NaN; good for denormals too. */
// @ts-ignore: decorator
@inline
function anyF16x4(h: v128): v128 {
  const shifted = i32x4.shr_s(h, 3);
  const magnitude = v128.and(shifted, i32x4.splat(0x0fffe000));
  const isDenormal = i32x4.lt_s(magnitude, i32x4.splat(1 << 23));
  // Denormals: as if the exponent were 1 and the mantissa had its hidden bit, which is then taken off again.
  const biased = i32x4.sub(i32x4.add(magnitude, i32x4.splat(112 << 23)), i32x4.shl(isDenormal, 23));
  const value = f32x4.sub(biased, v128.and(isDenormal, i32x4.splat(113 << 23)));
  return v128.or(value, v128.and(shifted, i32x4.splat(0x80000000)));
}

/**
 * Four float16 in the upper halves of 32-bit lanes, no denormals among them: shift into place, times 2^112.
 */
// @ts-ignore: decorator
@inline
function normalF16x4(h: v128): v128 {
  return f32x4.mul(
    v128.and(i32x4.shr_s(h, 3), i32x4.splat(0x8fffffff)),
    f32x4.splat(5192296858534827628530496329220096.0),
  );
}

/** The lower four of eight 16-bit lanes as the upper halves of 32-bit lanes. */
// @ts-ignore: decorator
@inline
function upperHalvesOfLow(v: v128): v128 {
  return i16x8.shuffle(i16x8.splat(0), v, 0, 8, 1, 9, 2, 10, 3, 11);
}

/** The upper four. */
// @ts-ignore: decorator
@inline
function upperHalvesOfHigh(v: v128): v128 {
  return i16x8.shuffle(i16x8.splat(0), v, 4, 12, 5, 13, 6, 14, 7, 15);
}

/** Eight float16 to eight float32 at `dst`. */
// @ts-ignore: decorator
@inline
function storeAnyF16x8(h: v128, dst: usize): void {
  v128.store(dst, anyF16x4(upperHalvesOfLow(h)));
  v128.store(dst, anyF16x4(upperHalvesOfHigh(h)), 16);
}

// @ts-ignore: decorator
@inline
function storeNormalF16x8(h: v128, dst: usize): void {
  v128.store(dst, normalF16x4(upperHalvesOfLow(h)));
  v128.store(dst, normalF16x4(upperHalvesOfHigh(h)), 16);
}

/**
 * `n` (a multiple of 32, not 0) float16 to float32. True where one was Inf or NaN; the result is then of no
 * use.
 */
function convertF16Blocks(src: usize, dst: usize, n: i32): bool {
  const magnitudeMask = i16x8.splat(0x7fff);
  const firstNormal = i16x8.splat(0x400);
  let largest = i16x8.splat(0);
  const end = src + (n << 1);
  do {
    const a = v128.load(src);
    const b = v128.load(src, 16);
    const c = v128.load(src, 32);
    const d = v128.load(src, 48);
    // Counted from the first normal number: normals are below 0x7800, Inf and NaN from there on, denormals
    // and zero wrap to the top. Multiplying a denormal float32 takes about 150 cycles on x86, so a block that
    // holds one, some percent of usual weights, goes without multiplication.
    const fromNormal = i16x8.max_u(
      i16x8.max_u(
        i16x8.sub(v128.and(a, magnitudeMask), firstNormal),
        i16x8.sub(v128.and(b, magnitudeMask), firstNormal),
      ),
      i16x8.max_u(
        i16x8.sub(v128.and(c, magnitudeMask), firstNormal),
        i16x8.sub(v128.and(d, magnitudeMask), firstNormal),
      ),
    );
    if (v128.any_true(i16x8.sub_sat_u(fromNormal, i16x8.splat(0x77ff)))) {
      const ab = i16x8.max_u(v128.and(a, magnitudeMask), v128.and(b, magnitudeMask));
      const cd = i16x8.max_u(v128.and(c, magnitudeMask), v128.and(d, magnitudeMask));
      largest = i16x8.max_u(largest, i16x8.max_u(ab, cd));
      storeAnyF16x8(a, dst);
      storeAnyF16x8(b, dst + 32);
      storeAnyF16x8(c, dst + 64);
      storeAnyF16x8(d, dst + 96);
    } else {
      storeNormalF16x8(a, dst);
      storeNormalF16x8(b, dst + 32);
      storeNormalF16x8(c, dst + 64);
      storeNormalF16x8(d, dst + 96);
    }
    src += 64;
    dst += 128;
  } while (src < end);
  return v128.any_true(i16x8.sub_sat_u(largest, i16x8.splat(0x7bff)));
}

/** `n` (a multiple of 8, not 0) bfloat16 to float32. */
function convertBf16Blocks(src: usize, dst: usize, n: i32): void {
  const end = src + (n << 1);
  do {
    const v = v128.load(src);
    v128.store(dst, upperHalvesOfLow(v));
    v128.store(dst, upperHalvesOfHigh(v), 16);
    src += 16;
    dst += 32;
  } while (src < end);
}

/** `n` (a multiple of 4) float64 to float32, rounded to nearest even. */
function convertF64Blocks(src: usize, dst: usize, n: i32): void {
  for (const end = src + (n << 3); src < end; src += 32, dst += 16) {
    const low = f32x4.demote_f64x2_zero(v128.load(src));
    const high = f32x4.demote_f64x2_zero(v128.load(src, 16));
    v128.store(dst, i64x2.shuffle(low, high, 0, 2));
  }
}

/**
 * `n` elements at `src` to float32 at `dst`: exact, from F64 rounded to nearest even; Inf and NaN included.
 */
export function convertRow(src: usize, dst: usize, n: i32, dtype: i32): void {
  let done = 0;
  if (dtype == F32) {
    memory.copy(dst, src, <usize>n << 2);
  } else if (dtype == F64) {
    if (ASC_FEATURE_SIMD) convertF64Blocks(src, dst, (done = n & -4));
    for (let i = done; i < n; ++i) store<f32>(dst + (i << 2), <f32>load<f64>(src + (i << 3)));
  } else if (dtype == F16) {
    if (ASC_FEATURE_SIMD) {
      done = n & -32;
      if (done != 0 && convertF16Blocks(src, dst, done)) done = 0;
    }
    for (let i = done; i < n; ++i) store<f32>(dst + (i << 2), f16ToF32(load<u16>(src + (i << 1))));
  } else if (dtype == BF16) {
    if (ASC_FEATURE_SIMD) {
      done = n & -8;
      if (done != 0) convertBf16Blocks(src, dst, done);
    }
    for (let i = done; i < n; ++i) store<u32>(dst + (i << 2), <u32>load<u16>(src + (i << 1)) << 16);
  } else {
    const table = F8_TABLES + (dtype == F8_E5M2 ? 1024 : 0);
    for (let i = 0; i < n; ++i) {
      store<u32>(dst + (i << 2), load<u32>(table + (<usize>load<u8>(src + i) << 2)));
    }
  }
}

/** Multiplies `n` float32 at `row` by `scale`. */
function scaleRow(row: usize, n: i32, scale: f32): void {
  let i = 0;
  if (ASC_FEATURE_SIMD) {
    const factor = f32x4.splat(scale);
    for (; i <= n - 4; i += 4) {
      const at = row + (i << 2);
      v128.store(at, f32x4.mul(v128.load(at), factor));
    }
  }
  for (; i < n; ++i) store<f32>(row + (i << 2), load<f32>(row + (i << 2)) * scale);
}

/** Whether all of `n` float32 (a multiple of four) are at most LARGEST_WEIGHT in magnitude. */
function allWithinLimit(row: usize, n: i32): bool {
  if (ASC_FEATURE_SIMD) {
    let largest = i32x4.splat(0);
    const end = row + (n << 2);
    do {
      largest = i32x4.max_u(largest, i32x4.shl(v128.load(row), 1));
      row += 16;
    } while (row < end);
    const limit = i32x4.splat(LARGEST_WEIGHT_BITS << 1);
    return i32x4.all_true(i32x4.ge_u(limit, largest));
  } else {
    let largest: u32 = 0;
    for (const end = row + (n << 2); row < end; row += 4) {
      const bits = load<u32>(row) << 1;
      largest = select<u32>(bits, largest, bits > largest);
    }
    return largest <= LARGEST_WEIGHT_BITS << 1;
  }
}

/** Row `row` of the slab to `to`, source scale applied, padded with zeros to a multiple of four. */
export function loadSourceRow(tile: Tile, row: i32, to: usize): void {
  const cols = tile.cols;
  const dtype = tile.sourceDtype;
  if (dtype >= Q4_0) convertBlockRow(tile.source, tile.sourceSkip + row * cols, to, cols, dtype);
  else convertRow(tile.source + <usize>row * <usize>(cols * elementBytes(dtype)), to, cols, dtype);
  if (tile.sourceScaleMode != 0) {
    const index = tile.sourceScaleMode == 2 ? row : 0;
    scaleRow(to, cols, load<f32>(tile.sourceScales + (index << 2)));
  }
  for (let i = cols; i & 3; ++i) store<f32>(to + (i << 2), 0);
}

/** Row `row` of the slab to `tile.weights`, as it is to be quantized: equalized. */
export function loadRowUnchecked(tile: Tile, row: i32): void {
  loadSourceRow(tile, row, tile.originals);
  if (tile.equalizationScales == 0) return;
  multiplyByScales(tile, tile.originals, tile.weights);
  for (let i = tile.cols; i & 3; ++i) store<f32>(tile.weights + (i << 2), 0);
}

/**
 * Sets `badColumn` and `badValue` to the first of the row's weights that is NaN, infinite or, as it is to be
 * quantized, beyond LARGEST_WEIGHT; the value is the source's.
 */
export function reportBadWeight(tile: Tile): void {
  let at = tile.weights;
  while (abs(load<f32>(at)) <= LARGEST_WEIGHT) at += 4;
  tile.badColumn = <i32>((at - tile.weights) >> 2);
  tile.badValue = load<f32>(tile.originals + (at - tile.weights));
}

/** Whether all of the row in `tile.weights` can be quantized; where not, `reportBadWeight` is done. */
export function checkRow(tile: Tile): bool {
  if (allWithinLimit(tile.weights, (tile.cols + 3) & -4)) return true;
  reportBadWeight(tile);
  return false;
}

/** `loadRowUnchecked`, then `checkRow`. */
export function loadRow(tile: Tile, row: i32): bool {
  loadRowUnchecked(tile, row);
  return checkRow(tile);
}
