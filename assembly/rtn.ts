/** Round to nearest: scale and zero point from the group's range (DESIGN.md, Definitions). */
import { loadRowUnchecked, reportBadWeight } from "./convert";
import { encodeRow } from "./encode";
import { LARGEST_WEIGHT, ROUND_MAGIC, largestCode, roundClamp } from "./number";
import { finishRow } from "./row";
import { storeScales, storeZeroPoints } from "./storage";
import { Tile } from "./tile";

/** Smallest and largest of a group's weights and zero, as the last `groupRange` found them. */
export let rangeLow: f32 = 0;
export let rangeHigh: f32 = 0;

/**
 * Sets rangeLow = min(w, 0), rangeHigh = max(w, 0), neither of them −0. Compares bits: those of floats order,
 * as signed integers, non-negative floats after all negative ones, and as unsigned integers negative floats
 * after all others, by magnitude. So NaN and Inf come out as an end of the range too.
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
 * s = (hi − lo)/L and z = clamp(round(−lo/s), 0, L), 0 where s is, from hi in `scales` and lo in
 * `zeroPoints`.
 */
function proposeFromRanges(scales: usize, zeroPoints: usize, groups: i32, largest: f32): void {
  let g = 0;
  if (ASC_FEATURE_SIMD) {
    const zero = f32x4.splat(0);
    const levels = f32x4.splat(largest);
    const magic = f32x4.splat(ROUND_MAGIC);
    for (; g <= groups - 4; g += 4) {
      const low = v128.load(zeroPoints + (g << 2));
      const scale = f32x4.div(f32x4.sub(v128.load(scales + (g << 2)), low), levels);
      const x = f32x4.div(f32x4.sub(zero, low), scale);
      const zeroPoint = f32x4.sub(f32x4.add(f32x4.pmin(levels, f32x4.pmax(zero, x)), magic), magic);
      v128.store(scales + (g << 2), scale);
      v128.store(zeroPoints + (g << 2), v128.and(zeroPoint, f32x4.ne(scale, zero)));
    }
  }
  for (; g < groups; ++g) {
    const low = load<f32>(zeroPoints + (g << 2));
    const scale = (load<f32>(scales + (g << 2)) - low) / largest;
    store<f32>(scales + (g << 2), scale);
    store<f32>(zeroPoints + (g << 2), scale == 0 ? 0 : roundClamp((0 - low) / scale, 0, largest));
  }
}

/**
 * Proposes `tile.scales` and `tile.zeroPoints` (rounded) of every group of the row in `tile.weights`. False,
 * with the rest undone, where a weight is not finite or beyond LARGEST_WEIGHT.
 */
export function proposeRange(tile: Tile): bool {
  const half = <f32>(1 << (tile.bits - 1));
  const groups = tile.groupsPerRow;
  const groupSize = tile.groupSize;
  const scales = tile.scales;
  const zeroPoints = tile.zeroPoints;
  const symmetric = tile.symmetric;
  let first = 0;
  for (let g = 0; g < groups; ++g) {
    const weights = tile.weights + (first << 2);
    const n = min<i32>(groupSize, tile.cols - first);
    groupRange(weights, n);
    const low = rangeLow;
    const high = rangeHigh;
    if (!(high <= LARGEST_WEIGHT && low >= -LARGEST_WEIGHT)) return false;
    if (!symmetric) {
      store<f32>(scales + (g << 2), high);
      store<f32>(zeroPoints + (g << 2), low);
    } else if (tile.scaleBits != 0) {
      store<f32>(scales + (g << 2), max<f32>(high, -low) / (half - 1));
    } else {
      // A quotient that underflows may be −0; adding 0 takes the sign off.
      store<f32>(scales + (g << 2), (0 - firstLargest(weights, n, low, high)) / half + 0);
    }
    first += groupSize;
  }
  if (!symmetric) proposeFromRanges(scales, zeroPoints, groups, largestCode(tile.bits));
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
