/** Round to nearest: scale and zero point from the group's range (DESIGN.md, Definitions). */
import { loadRowUnchecked, reportBadWeight } from "./convert";
import { encodeRow } from "./encode";
import { LARGEST_WEIGHT, largestCode, roundClamp } from "./number";
import { finishRow } from "./row";
import { storeScales, storeZeroPoints } from "./storage";
import { Tile } from "./tile";

/** Smallest and largest of a group's weights and zero, as the last `groupRange` found them. */
export let rangeLow: f32 = 0;
export let rangeHigh: f32 = 0;

/**
 * Sets rangeLow = min(w, 0), rangeHigh = max(w, 0), neither of them −0. Compares bits: those of floats order, as signed
 * integers, non-negative floats after all negative ones, and as unsigned integers negative floats after all others, by
 * magnitude. So NaN and Inf come out as an end of the range too.
 */
export function groupRange(weights: usize, n: i32): void {
  let low: u32 = 0;
  let high: i32 = 0;
  const end = weights + (n << 2);
  if (ASC_FEATURE_SIMD) {
    const lastBlock = weights + ((n & -16) << 2);
    if (weights < lastBlock) {
      let low0 = i32x4.splat(0);
      let low1 = low0;
      let high0 = low0;
      let high1 = low0;
      do {
        const a = v128.load(weights);
        const b = v128.load(weights, 16);
        const c = v128.load(weights, 32);
        const d = v128.load(weights, 48);
        low0 = i32x4.max_u(i32x4.max_u(low0, a), c);
        low1 = i32x4.max_u(i32x4.max_u(low1, b), d);
        high0 = i32x4.max_s(i32x4.max_s(high0, a), c);
        high1 = i32x4.max_s(i32x4.max_s(high1, b), d);
        weights += 64;
      } while (weights < lastBlock);
      low0 = i32x4.max_u(low0, low1);
      high0 = i32x4.max_s(high0, high1);
      low0 = i32x4.max_u(low0, i32x4.shuffle(low0, low0, 2, 3, 0, 1));
      high0 = i32x4.max_s(high0, i32x4.shuffle(high0, high0, 2, 3, 0, 1));
      low0 = i32x4.max_u(low0, i32x4.shuffle(low0, low0, 1, 0, 3, 2));
      high0 = i32x4.max_s(high0, i32x4.shuffle(high0, high0, 1, 0, 3, 2));
      low = i32x4.extract_lane(low0, 0);
      high = i32x4.extract_lane(high0, 0);
    }
  }
  for (; weights < end; weights += 4) {
    const bits = load<u32>(weights);
    low = select<u32>(bits, low, bits > low);
    high = select<i32>(bits, high, <i32>bits > high);
  }
  // A low without the sign bit is of a group without negative weights; adding 0 takes the sign off −0.
  rangeLow = select<f32>(reinterpret<f32>(low), 0, <i32>low < 0) + 0;
  rangeHigh = reinterpret<f32>(high);
}

/** The first element of largest magnitude, given the group's range. */
function firstLargest(weights: usize, n: i32, low: f32, high: f32): f32 {
  if (high > -low) return high;
  if (-low > high) return low;
  for (let i = 0; i < n; ++i) {
    const w = load<f32>(weights + (i << 2));
    if (abs(w) == high) return w;
  }
  return 0;
}

/**
 * Proposes `tile.scales` and `tile.zeroPoints` (rounded) of every group of the row in `tile.weights`. False, with the
 * rest undone, where a weight is not finite or beyond LARGEST_WEIGHT.
 */
export function proposeRange(tile: Tile): bool {
  const largest = largestCode(tile.bits);
  const half = <f32>(1 << (tile.bits - 1));
  const groupSize = tile.groupSize;
  let first = 0;
  for (let g = 0; g < tile.groupsPerRow; ++g) {
    const weights = tile.weights + (first << 2);
    const n = min<i32>(groupSize, tile.cols - first);
    groupRange(weights, n);
    if (!(rangeHigh <= LARGEST_WEIGHT && rangeLow >= -LARGEST_WEIGHT)) return false;
    let scale: f32;
    if (tile.symmetric) {
      scale =
        tile.scaleBits != 0
          ? max<f32>(rangeHigh, -rangeLow) / (half - 1)
          : (0 - firstLargest(weights, n, rangeLow, rangeHigh)) / half;
    } else {
      scale = (rangeHigh - rangeLow) / largest;
      const zeroPoint: f32 = scale == 0 ? 0 : roundClamp((0 - rangeLow) / scale, 0, largest);
      store<f32>(tile.zeroPoints + (g << 2), zeroPoint);
    }
    store<f32>(tile.scales + (g << 2), scale);
    first += groupSize;
  }
  return true;
}

/** Quantizes `rowCount` rows of the slab; −1, or the row (of the slab) whose weight `badColumn` cannot be. */
export function quantizeRowsRtn(tile: Tile, rowCount: i32): i32 {
  for (let row = 0; row < rowCount; ++row) {
    loadRowUnchecked(tile, row);
    if (!proposeRange(tile)) {
      reportBadWeight(tile);
      return row;
    }
    storeScales(tile);
    storeZeroPoints(tile);
    encodeRow(tile);
    finishRow(tile);
  }
  return -1;
}
