/**
 * Codes of weights, always chosen against the stored scales and zero points, and what a reader makes of them.
 *
 * Hot loops of the kernels test at their end: only then does V8 keep splats and constants in registers over
 * the loop.
 */
import { ROUND_MAGIC, clamp, largestCode } from "./number";
import { Tile } from "./tile";

/**
 * q = clamp(round(w/s + z), 0, L) and ŵ = (q − z)·s for `n` elements, at least one; s = 0 gives q =
 * clamp(round(z), 0, L). Each step is one float32 operation. May write up to 15 elements past the end of
 * `codes` and `rebuilt`, so groups of a row are encoded in order.
 */
export function encodeGroup(
  weights: usize,
  codes: usize,
  rebuilt: usize,
  n: i32,
  s: f32,
  z: f32,
  largest: f32,
): void {
  // w/Inf is 0: one loop serves s = 0 too.
  const divisor: f32 = s == 0 ? Infinity : s;
  if (ASC_FEATURE_SIMD) {
    const ss = f32x4.splat(s);
    const dd = f32x4.splat(divisor);
    const zz = f32x4.splat(z);
    const ll = f32x4.splat(largest);
    const byte = i32x4.splat(255);
    const end = codes + n;
    do {
      const a = roundedCode(v128.load(weights), dd, zz, ll);
      const b = roundedCode(v128.load(weights, 16), dd, zz, ll);
      const c = roundedCode(v128.load(weights, 32), dd, zz, ll);
      const d = roundedCode(v128.load(weights, 48), dd, zz, ll);
      v128.store(rebuilt, rebuiltFromRounded(a, zz, ss));
      v128.store(rebuilt, rebuiltFromRounded(b, zz, ss), 16);
      v128.store(rebuilt, rebuiltFromRounded(c, zz, ss), 32);
      v128.store(rebuilt, rebuiltFromRounded(d, zz, ss), 48);
      const low = i16x8.narrow_i32x4_u(v128.and(a, byte), v128.and(b, byte));
      const high = i16x8.narrow_i32x4_u(v128.and(c, byte), v128.and(d, byte));
      v128.store(codes, i8x16.narrow_i16x8_u(low, high));
      codes += 16;
      weights += 64;
      rebuilt += 64;
    } while (codes < end);
  } else {
    for (let i = 0; i < n; ++i) {
      const t = clamp(load<f32>(weights + (i << 2)) / divisor + z, 0, largest) + ROUND_MAGIC;
      store<u8>(codes + i, <u8>reinterpret<u32>(t));
      store<f32>(rebuilt + (i << 2), (t - ROUND_MAGIC - z) * s);
    }
  }
}

/** clamp(w/s + z, 0, L) + ROUND_MAGIC: the code stands in the low byte. */
// @ts-ignore: decorator
@inline
function roundedCode(w: v128, s: v128, z: v128, largest: v128): v128 {
  const x = f32x4.add(f32x4.div(w, s), z);
  // pmax(a, b) is a < b ? b : a, pmin(a, b) is b < a ? b : a: the same choices as `clamp`.
  return f32x4.add(f32x4.pmin(largest, f32x4.pmax(f32x4.splat(0), x)), f32x4.splat(ROUND_MAGIC));
}

// @ts-ignore: decorator
@inline
function rebuiltFromRounded(t: v128, z: v128, s: v128): v128 {
  return f32x4.mul(f32x4.sub(f32x4.sub(t, f32x4.splat(ROUND_MAGIC)), z), s);
}

/** `encodeGroup` over the row with the stored `tile.scales` and `tile.zeroPoints`. */
export function encodeRow(tile: Tile): void {
  const largest = largestCode(tile.bits);
  const groupSize = tile.groupSize;
  let first = 0;
  for (let g = 0; g < tile.groupsPerRow; ++g) {
    encodeGroup(
      tile.weights + (first << 2),
      tile.codes + first,
      tile.rebuilt + (first << 2),
      min<i32>(groupSize, tile.cols - first),
      load<f32>(tile.scales + (g << 2)),
      load<f32>(tile.zeroPoints + (g << 2)),
      largest,
    );
    first += groupSize;
  }
}

/** Four codes, one a byte, as float32. */
// @ts-ignore: decorator
@inline
function loadCodes4(codes: usize): v128 {
  return f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_u(i16x8.extend_low_i8x16_u(v128.load32_zero(codes))));
}

/**
 * ŵ = (q − z)·s for `n` elements, each step one float32 operation. May write up to 3 elements past the end of
 * `rebuilt`.
 */
export function rebuildGroup(codes: usize, rebuilt: usize, n: i32, s: f32, z: f32): void {
  if (ASC_FEATURE_SIMD) {
    const ss = f32x4.splat(s);
    const zz = f32x4.splat(z);
    const end = codes + n;
    do {
      v128.store(rebuilt, f32x4.mul(f32x4.sub(loadCodes4(codes), zz), ss));
      codes += 4;
      rebuilt += 16;
    } while (codes < end);
  } else {
    for (let i = 0; i < n; ++i) store<f32>(rebuilt + (i << 2), (<f32>load<u8>(codes + i) - z) * s);
  }
}

/** ŵ of the row's codes with the stored scales and zero points as they now are. */
export function rebuildFromCodes(tile: Tile): void {
  const groupSize = tile.groupSize;
  let first = 0;
  for (let g = 0; g < tile.groupsPerRow; ++g) {
    rebuildGroup(
      tile.codes + first,
      tile.rebuilt + (first << 2),
      min<i32>(groupSize, tile.cols - first),
      load<f32>(tile.scales + (g << 2)),
      load<f32>(tile.zeroPoints + (g << 2)),
    );
    first += groupSize;
  }
}
