/**
 * Storage of scales and zero points: a step of its own between a method's proposal and the choice of codes.
 * Proposed values stand in `tile.scales`, `tile.zeroPoints`, `tile.residualScales`; these functions replace them by
 * what a reader decodes and leave the codes beside them.
 */
import { largestCode, roundClamp } from "./number";
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

/** clamp(round(s/S), lowest, 2^sb − 1); without a super scale (all scales zero) `lowest`. */
// @ts-ignore: decorator
@inline
export function codeScale(scale: f32, superScale: f32, lowest: f32, largest: f32): f32 {
  return superScale == 0 ? lowest : roundClamp(scale / superScale, lowest, largest);
}

/** Codes the scales of one super-group against `superScale` and replaces them by code · superScale. */
export function codeScalesOfSuper(tile: Tile, superIndex: i32, superScale: f32): void {
  const largest = largestCode(tile.scaleBits);
  store<f32>(tile.superScales + (superIndex << 2), superScale);
  for (let g = superIndex * tile.groupsPerSuper; g < endOfSuper(tile, superIndex); ++g) {
    const code = codeScale(load<f32>(tile.scales + (g << 2)), superScale, 1, largest);
    store<u8>(tile.scaleCodes + g, <u8>code);
    store<f32>(tile.scales + (g << 2), superScale * code);
  }
}

/** f32((2^bits − 1)/(2^zb − 1)): what one step of a zero-point code is worth. */
// @ts-ignore: decorator
@inline
export function zeroPointStep(tile: Tile): f32 {
  return largestCode(tile.bits) / largestCode(tile.zeroPointBits);
}

/** Code of a zero point: clamp(round(z/step), 0, 2^zb − 1). */
// @ts-ignore: decorator
@inline
export function codeZeroPoint(zeroPoint: f32, step: f32, largest: f32): f32 {
  return roundClamp(zeroPoint / step, 0, largest);
}

/** Proposed zero points to stored ones: nearest codes, or float32 as they are, or the symmetric constant. */
export function storeZeroPoints(tile: Tile): void {
  const groups = tile.groupsPerRow;
  if (tile.symmetric) {
    const middle = <f32>(1 << (tile.bits - 1));
    for (let g = 0; g < groups; ++g) store<f32>(tile.zeroPoints + (g << 2), middle);
  } else if (tile.zeroPointBits != 0) {
    const step = zeroPointStep(tile);
    const largest = largestCode(tile.zeroPointBits);
    for (let g = 0; g < groups; ++g) {
      const code = codeZeroPoint(load<f32>(tile.zeroPoints + (g << 2)), step, largest);
      store<u8>(tile.zeroPointCodes + g, <u8>code);
      store<f32>(tile.zeroPoints + (g << 2), code * step);
    }
  }
}

/** The plain storage of a row's scales: S from the largest scale of each super-group, nearest codes. */
export function storeScales(tile: Tile): void {
  if (tile.scaleBits == 0) return;
  for (let i = 0; i < tile.supersPerRow; ++i) {
    codeScalesOfSuper(tile, i, proposeSuperScale(tile, i * tile.groupsPerSuper, endOfSuper(tile, i)));
  }
}
