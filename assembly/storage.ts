/**
 * Storage of scales and zero points: a step of its own between a method's proposal and the choice of codes.
 * Proposed values stand in `tile.scales`, `tile.zeroPoints`, `tile.residualScales`; these functions replace
 * them by what a reader decodes and leave the codes beside them.
 */
import { ROUND_MAGIC, clamp, largestCode } from "./number";
import { Tile } from "./tile";

/** The group after the last of super-group `superIndex`. */
// @ts-ignore: decorator
@inline
export function endOfSuper(tile: Tile, superIndex: i32): i32 {
  return min<i32>((superIndex + 1) * tile.groupsPerSuper, tile.groupsPerRow);
}

/** S = max(s)/(2^sb − 1) over groups first … end−1 of `tile.scales`; 0 where every proposed scale is. */
export function proposeSuperScale(tile: Tile, first: i32, end: i32): f32 {
  let largest: f32 = 0;
  for (let g = first; g < end; ++g) {
    const s = load<f32>(tile.scales + (g << 2));
    largest = select<f32>(s, largest, s > largest);
  }
  return largest / largestCode(tile.scaleBits);
}

/**
 * Codes `n` float32 at `values` in units of `unit`: code = clamp(round(value/unit), lowest, largest), one a
 * byte at `codes`, and the value becomes unit·code. `unit` 0 (every scale of a super-group is 0) gives
 * `lowest` and 0.
 */
export function codeValues(values: usize, codes: usize, n: i32, unit: f32, lowest: f32, largest: f32): void {
  // Any value over Inf is 0, which is clamped to the lowest code.
  const divisor: f32 = unit == 0 ? Infinity : unit;
  let i = 0;
  if (ASC_FEATURE_SIMD) {
    for (; i <= n - 4; i += 4) {
      const at = values + (i << 2);
      const x = f32x4.div(v128.load(at), f32x4.splat(divisor));
      const clamped = f32x4.pmin(f32x4.splat(largest), f32x4.pmax(f32x4.splat(lowest), x));
      const rounded = f32x4.add(clamped, f32x4.splat(ROUND_MAGIC));
      v128.store(at, f32x4.mul(f32x4.splat(unit), f32x4.sub(rounded, f32x4.splat(ROUND_MAGIC))));
      const words = v128.and(rounded, i32x4.splat(255));
      const halves = i16x8.narrow_i32x4_u(words, words);
      v128.store32_lane(codes + i, i8x16.narrow_i16x8_u(halves, halves), 0);
    }
  }
  for (; i < n; ++i) {
    const at = values + (i << 2);
    const rounded = clamp(load<f32>(at) / divisor, lowest, largest) + ROUND_MAGIC;
    store<u8>(codes + i, <u8>reinterpret<u32>(rounded));
    store<f32>(at, unit * (rounded - ROUND_MAGIC));
  }
}

/**
 * The plain storage of a row's scales: S from the largest scale of each super-group, nearest codes from 1.
 */
export function storeScales(tile: Tile): void {
  if (tile.scaleBits == 0) return;
  const largest = largestCode(tile.scaleBits);
  for (let i = 0; i < tile.supersPerRow; ++i) {
    const first = i * tile.groupsPerSuper;
    const end = endOfSuper(tile, i);
    const superScale = proposeSuperScale(tile, first, end);
    store<f32>(tile.superScales + (i << 2), superScale);
    codeValues(tile.scales + (first << 2), tile.scaleCodes + first, end - first, superScale, 1, largest);
  }
}

/** f32((2^bits − 1)/(2^zb − 1)): what one step of a zero-point code is worth. */
// @ts-ignore: decorator
@inline
export function zeroPointStep(tile: Tile): f32 {
  return largestCode(tile.bits) / largestCode(tile.zeroPointBits);
}

/** 2^(bits − 1), the zero point of every group of a symmetric row. */
export function fillSymmetricZeroPoints(tile: Tile): void {
  const middle = <f32>(1 << (tile.bits - 1));
  for (let g = 0; g < tile.groupsPerRow; ++g) store<f32>(tile.zeroPoints + (g << 2), middle);
}

/** Proposed zero points to stored ones: nearest codes, or float32 as they are, or the symmetric constant. */
export function storeZeroPoints(tile: Tile): void {
  if (tile.symmetric) {
    fillSymmetricZeroPoints(tile);
  } else if (tile.zeroPointBits != 0) {
    const largest = largestCode(tile.zeroPointBits);
    codeValues(tile.zeroPoints, tile.zeroPointCodes, tile.groupsPerRow, zeroPointStep(tile), 0, largest);
  }
}
