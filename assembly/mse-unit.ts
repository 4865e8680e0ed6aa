/**
 * What mse searches at a time, ready for it: a super-group, or a group where scales are float32. Its weights
 * are scaled by a power of two to magnitudes below 2 and padded to vectors.
 */
import { alignUp } from "./number";
import { groupRange, rangeHigh, rangeLow } from "./rtn";
import { Tile } from "./tile";

/**
 * A unit whose largest weight is smaller than this, 2^−100, keeps its rtn solution: after scaling to about
 * one its scales could not be stored exactly any more.
 */
const LEAST_LARGEST: f32 = 7.888609052210118e-31;

/** 2^−e where 2^e ≤ x < 2^(e+1); 1 where x is below LEAST_LARGEST. */
export function inversePowerOfTwo(x: f32): f32 {
  return x >= LEAST_LARGEST ? reinterpret<f32>((254 - (reinterpret<u32>(x) >> 23)) << 23) : 1;
}

/**
 * The unit's weights times `unitFactor`, and their importances: `stride` floats from one group to the next.
 */
let weights: usize = 0;
let importances: usize = 0;
let stride: i32 = 0;
export let unitFactor: f32 = 1;
/**
 * f32 per group each: range, proposed scale, scale code, zero point in steps; scales in units of the weights.
 */
export let lows: usize = 0;
export let highs: usize = 0;
export let scales: usize = 0;
export let scaleCodes: usize = 0;
export let zeroPointSteps: usize = 0;

/** Lays the arrays of units of up to `groups` groups out in `scratch`. */
export function layOutUnit(tile: Tile, scratch: usize, groups: i32): void {
  stride = alignUp(tile.groupSize, 4);
  weights = scratch;
  importances = weights + (<usize>(groups * stride) << 2);
  lows = importances + (<usize>(groups * stride) << 2);
  highs = lows + (<usize>groups << 2);
  scales = highs + (<usize>groups << 2);
  scaleCodes = scales + (<usize>groups << 2);
  zeroPointSteps = scaleCodes + (<usize>groups << 2);
}

// @ts-ignore: decorator
@inline
export function at(array: usize, k: i32): usize {
  return array + (<usize>k << 2);
}

// @ts-ignore: decorator
@inline
export function weightsOf(k: i32): usize {
  return weights + (<usize>(k * stride) << 2);
}

// @ts-ignore: decorator
@inline
export function importancesOf(k: i32): usize {
  return importances + (<usize>(k * stride) << 2);
}

/** Elements of group `first + k`, rounded up to the padded count. */
// @ts-ignore: decorator
@inline
export function paddedSize(tile: Tile, group: i32): i32 {
  return alignUp(min<i32>(tile.groupSize, tile.cols - group * tile.groupSize), 4);
}

/**
 * Ranges, scaled weights and importances of groups `first` … `end` − 1; false where the unit is not searched.
 */
export function loadUnit(tile: Tile, first: i32, end: i32, rowImportances: usize): bool {
  const groupSize = tile.groupSize;
  let top: f32 = 0;
  for (let g = first; g < end; ++g) {
    const start = g * groupSize;
    groupRange(tile.weights + (<usize>start << 2), min<i32>(groupSize, tile.cols - start));
    store<f32>(at(lows, g - first), rangeLow);
    store<f32>(at(highs, g - first), rangeHigh);
    const size = rangeHigh > 0 - rangeLow ? rangeHigh : 0 - rangeLow;
    top = size > top ? size : top;
  }
  if (!(top >= LEAST_LARGEST)) return false;
  unitFactor = inversePowerOfTwo(top);
  for (let g = first; g < end; ++g) {
    const k = g - first;
    const start = <usize>(g * groupSize) << 2;
    const n = min<i32>(groupSize, tile.cols - g * groupSize);
    const toWeights = weightsOf(k), toImportances = importancesOf(k);
    const factor = unitFactor;
    let i: usize = 0;
    const endOfGroup = <usize>n << 2;
    if (ASC_FEATURE_SIMD) {
      const factors = f32x4.splat(factor);
      for (; i + 16 <= endOfGroup; i += 16) {
        v128.store(toWeights + i, f32x4.mul(v128.load(tile.weights + start + i), factors));
        v128.store(toImportances + i, v128.load(rowImportances + start + i));
      }
    }
    for (; i < endOfGroup; i += 4) {
      store<f32>(toWeights + i, load<f32>(tile.weights + start + i) * factor);
      store<f32>(toImportances + i, load<f32>(rowImportances + start + i));
    }
    for (; i < <usize>alignUp(n, 4) << 2; i += 4) {
      store<f32>(toWeights + i, 0);
      store<f32>(toImportances + i, 0);
    }
    store<f32>(at(lows, k), load<f32>(at(lows, k)) * factor);
    store<f32>(at(highs, k), load<f32>(at(highs, k)) * factor);
  }
  return true;
}
