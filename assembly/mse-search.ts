/**
 * Search of the stored scales and zero points of least weighted squared error, one unit at a time: a
 * super-group, or a group where scales are float32. The unit's own rtn solution stands in the tile before;
 * only a better one replaces it.
 */
import { errorsOfScales, errorsOfZeroPoints, moments, sumOf } from "./mse-errors";
import {
  at,
  highs,
  importancesOf,
  loadUnit,
  lows,
  paddedSize,
  scaleCodes,
  scales,
  unitFactor,
  weightsOf,
  zeroPointSteps,
} from "./mse-unit";
import { clamp, largestCode, roundClamp } from "./number";
import { zeroPointStep } from "./storage";
import { Tile } from "./tile";

/**
 * What is better than rtn must be better by this much of its error, 2^−12: above what float32 sums of up to
 * 1024 squares, and w·(1/s) for w/s beside the middle between two codes, can be off by, so that nothing is
 * ever worse.
 */
const LEAST_IMPROVEMENT: f64 = 0.000244140625;

/** Spacing of float32 zero points, in codes, that the first sweep tries: four phases of a code. */
const FREE_STEP: f32 = 0.25;
/**
 * Rounds of sweeps over coded scales; the super scale is refitted between them, free zero points get finer.
 */
const ROUNDS: i32 = 2;
/** Least-squares fits of a float32 scale and its offset. */
const REFITS: i32 = 3;
/** A fit of scale and offset is only made where the codes differ by more than rounding. */
const LEAST_DETERMINANT: f64 = 1e-6;

let largest: f32 = 0;
/** What a step of a zero point is worth in codes, and the range of steps. */
let step: f32 = 1;
let leastStep: f32 = 0;
let mostStep: f32 = 0;

/** Moments of group k under scale `s` and zero point `z`; their Σ v·(w − ŵ)². */
function fitGroup(k: i32, n: i32, s: f32, z: f32): f32 {
  moments(weightsOf(k), importancesOf(k), n, s, s == 0 ? 0 : 1 / s, z, largest);
  return sumOf(0);
}

/** What an error must be below: the unit's error as rtn has it stored, less the least improvement. */
function errorToBeat(tile: Tile, first: i32, end: i32): f64 {
  let error: f64 = 0;
  for (let g = first; g < end; ++g) {
    const s = load<f32>(at(tile.scales, g)) * unitFactor;
    error += <f64>fitGroup(g - first, paddedSize(tile, g), s, load<f32>(at(tile.zeroPoints, g)));
  }
  return error * (1 - LEAST_IMPROVEMENT);
}

/** The best candidate of a sweep and its error; earlier ones win ties. */
let best: f32 = 0;
let bestError: f32 = 0;

// @ts-ignore: decorator
@inline
function keepBetter(error: f32, candidate: f32): void {
  if (error < bestError) {
    bestError = error;
    best = candidate;
  }
}

/** Takes the best of scales s·f0 … s·f3 where it is better than `bestError`. */
function tryFactors(k: i32, n: i32, s: f32, z: f32, f0: f32, f1: f32, f2: f32, f3: f32): void {
  const s0 = s * f0, s1 = s * f1, s2 = s * f2, s3 = s * f3;
  errorsOfScales(weightsOf(k), importancesOf(k), n, z, largest, 1 / s0, 1 / s1, 1 / s2, 1 / s3);
  keepBetter(sumOf(0) * (s0 * s0), s0);
  keepBetter(sumOf(1) * (s1 * s1), s1);
  keepBetter(sumOf(2) * (s2 * s2), s2);
  keepBetter(sumOf(3) * (s3 * s3), s3);
}

/** Proposes scale (range shrunk about zero) and zero point of group k. */
function startGroup(tile: Tile, k: i32, group: i32, n: i32): void {
  let s0: f32;
  let z: f32;
  if (tile.symmetric) {
    const low = load<f32>(at(lows, k)), high = load<f32>(at(highs, k));
    const half = <f32>(1 << (tile.bits - 1));
    // With float32 scales rtn's proposal is what the tile holds: the sign of the scale follows the largest
    // weight.
    s0 = tile.scaleBits != 0
      ? (high > 0 - low ? high : 0 - low) / (half - 1)
      : load<f32>(at(tile.scales, group)) * unitFactor;
    z = half;
  } else {
    s0 = (load<f32>(at(highs, k)) - load<f32>(at(lows, k))) / largest;
    z = s0 == 0 ? 0 : (0 - load<f32>(at(lows, k))) / s0;
  }
  best = s0;
  bestError = Infinity;
  if (s0 != 0) {
    tryFactors(k, n, s0, z, 1, 0.9, 0.8, 0.7);
    // Two bits, and the lopsided codes of a symmetric group, want a much smaller range than the weights have.
    if (tile.bits <= 2 || tile.symmetric) tryFactors(k, n, s0, z, 0.6, 0.5, 0.4, 0.3);
  }
  store<f32>(at(scales, k), best);
  if (tile.symmetric) store<f32>(at(zeroPointSteps, k), z);
  else store<f32>(at(zeroPointSteps, k), stepOf(tile, z));
}

/** Zero point in steps: a code where zero points are coded. */
// @ts-ignore: decorator
@inline
function stepOf(tile: Tile, z: f32): f32 {
  return tile.zeroPointBits != 0 ? roundClamp(z / step, leastStep, mostStep) : z / step;
}

/** Codes and steps as sweeps start: their ranges and worth; a symmetric zero point is its own one step. */
function resetSteps(tile: Tile): void {
  largest = largestCode(tile.bits);
  if (tile.symmetric) {
    step = 1;
  } else if (tile.zeroPointBits != 0) {
    step = zeroPointStep(tile);
    leastStep = 0;
    mostStep = largestCode(tile.zeroPointBits);
  } else {
    step = FREE_STEP;
    leastStep = (0 - largest) / step;
    mostStep = 2 * largest / step;
  }
}

/**
 * The zero point of group k one or two steps up or down of least error under scale `s`; its error is left in
 * `bestError`. The error waves as the codes' phase moves, so neighbours are tried, not computed.
 */
function sweepZeroPoint(tile: Tile, k: i32, n: i32, s: f32): void {
  const d = load<f32>(at(zeroPointSteps, k));
  if (tile.symmetric) {
    bestError = fitGroup(k, n, s, d);
    return;
  }
  const d1 = clamp(d - 1, leastStep, mostStep), d2 = clamp(d + 1, leastStep, mostStep);
  const d3 = clamp(d - 2, leastStep, mostStep), d4 = clamp(d + 2, leastStep, mostStep);
  const inv: f32 = s == 0 ? 0 : 1 / s;
  errorsOfZeroPoints(
    weightsOf(k), importancesOf(k), n, inv, largest, d * step, d1 * step, d2 * step, d3 * step, d4 * step,
  );
  const square = s * s;
  best = d;
  bestError = sumOf(0) * square;
  keepBetter(sumOf(1) * square, d1);
  keepBetter(sumOf(2) * square, d2);
  keepBetter(sumOf(3) * square, d3);
  keepBetter(sumOf(4) * square, d4);
  store<f32>(at(zeroPointSteps, k), best);
}

/** The scale code of group k one or two up or down where one errs less than `bestError`. */
function sweepScaleCode(k: i32, n: i32, superScale: f32, most: f32): void {
  const c = load<f32>(at(scaleCodes, k));
  const c1 = clamp(c - 1, 1, most), c2 = clamp(c + 1, 1, most);
  const c3 = clamp(c - 2, 1, most), c4 = clamp(c + 2, 1, most);
  const z = load<f32>(at(zeroPointSteps, k)) * step;
  const s1 = superScale * c1, s2 = superScale * c2, s3 = superScale * c3, s4 = superScale * c4;
  errorsOfScales(weightsOf(k), importancesOf(k), n, z, largest, 1 / s1, 1 / s2, 1 / s3, 1 / s4);
  best = c;
  keepBetter(sumOf(0) * (s1 * s1), c1);
  keepBetter(sumOf(1) * (s2 * s2), c2);
  keepBetter(sumOf(2) * (s3 * s3), c3);
  keepBetter(sumOf(3) * (s4 * s4), c4);
  store<f32>(at(scaleCodes, k), best);
}

/**
 * The super-group's error with its present codes, and the scale that fits them better, as `refittedScale`.
 */
let refittedScale: f32 = 0;
function fitSuper(tile: Tile, first: i32, end: i32, superScale: f32): f64 {
  let error: f64 = 0;
  let xr: f64 = 0;
  let xx: f64 = 0;
  for (let g = first; g < end; ++g) {
    const k = g - first;
    const c = load<f32>(at(scaleCodes, k));
    error += <f64>fitGroup(k, paddedSize(tile, g), superScale * c, load<f32>(at(zeroPointSteps, k)) * step);
    const c2 = <f64>c * <f64>c;
    xr += c2 * <f64>sumOf(1);
    xx += c2 * <f64>sumOf(2);
  }
  refittedScale = xx > 0 ? <f32>(<f64>superScale * (1 + xr / xx)) : superScale;
  if (!(refittedScale > 0)) refittedScale = superScale;
  return error;
}

/** Stores the present scale code and zero point of the unit's groups in the tile. */
function storeSuper(tile: Tile, superIndex: i32, first: i32, end: i32, superScale: f32): void {
  // Division by a power of two: exact.
  const stored = superScale / unitFactor;
  store<f32>(at(tile.superScales, superIndex), stored);
  for (let g = first; g < end; ++g) {
    const c = load<f32>(at(scaleCodes, g - first));
    store<u8>(tile.scaleCodes + g, <u8>c);
    store<f32>(at(tile.scales, g), stored * c);
    storeZeroPoint(tile, g, load<f32>(at(zeroPointSteps, g - first)));
  }
}

// @ts-ignore: decorator
@inline
function storeZeroPoint(tile: Tile, group: i32, d: f32): void {
  if (tile.symmetric) return;
  if (tile.zeroPointBits != 0) store<u8>(tile.zeroPointCodes + group, <u8>d);
  store<f32>(at(tile.zeroPoints, group), d * step);
}

/** Searches super-group `superIndex`, groups `first` … `end` − 1, whose scales are coded. */
export function searchSuper(tile: Tile, superIndex: i32, first: i32, end: i32, rowImportances: usize): void {
  if (!loadUnit(tile, first, end, rowImportances)) return;
  resetSteps(tile);
  let least = errorToBeat(tile, first, end);
  const most = largestCode(tile.scaleBits);
  let top: f32 = 0;
  for (let g = first; g < end; ++g) {
    startGroup(tile, g - first, g, paddedSize(tile, g));
    top = best > top ? best : top;
  }
  let superScale = top / most;
  for (let k = 0; k < end - first; ++k) {
    store<f32>(at(scaleCodes, k), roundClamp(load<f32>(at(scales, k)) / superScale, 1, most));
  }
  for (let round = 0; ; ) {
    for (let g = first; g < end; ++g) {
      const k = g - first;
      const n = paddedSize(tile, g);
      sweepZeroPoint(tile, k, n, superScale * load<f32>(at(scaleCodes, k)));
      sweepScaleCode(k, n, superScale, most);
    }
    const error = fitSuper(tile, first, end, superScale);
    if (error < least) {
      least = error;
      storeSuper(tile, superIndex, first, end, superScale);
    }
    if (++round == ROUNDS) break;
    superScale = refittedScale;
    if (!tile.symmetric && tile.zeroPointBits == 0) refineSteps(end - first);
  }
}

/** Steps of free zero points a quarter as long. */
function refineSteps(groups: i32): void {
  step /= 4;
  leastStep *= 4;
  mostStep *= 4;
  for (let k = 0; k < groups; ++k) store<f32>(at(zeroPointSteps, k), load<f32>(at(zeroPointSteps, k)) * 4);
}

/** Searches group `group`, whose scale is float32. */
export function searchGroup(tile: Tile, group: i32, rowImportances: usize): void {
  if (!loadUnit(tile, group, group + 1, rowImportances)) return;
  resetSteps(tile);
  const least = errorToBeat(tile, group, group + 1);
  const n = paddedSize(tile, group);
  startGroup(tile, 0, group, n);
  const started = best;
  sweepZeroPoint(tile, 0, n, started);
  let d = load<f32>(zeroPointSteps);
  let z: f32 = d * step;
  best = started;
  tryFactors(0, n, started, z, 0.97, 1.03, 0.94, 1.06);
  let s = best;
  let bestZ: f32 = 0;
  let bestD: f32 = 0;
  for (let refit = 0; ; ++refit) {
    const error = fitGroup(0, n, s, z);
    if (refit > 0 && !(error < bestError)) break;
    bestError = error;
    best = s;
    bestZ = z;
    bestD = d;
    if (refit == REFITS) break;
    const xr = <f64>sumOf(1), xx = <f64>sumOf(2), r1 = <f64>sumOf(3), x1 = <f64>sumOf(4), v1 = <f64>sumOf(5);
    let scaleChange: f64 = xx > 0 ? xr / xx : 0;
    let offset: f64 = 0;
    if (!tile.symmetric) {
      const determinant = v1 * xx - x1 * x1;
      if (determinant > LEAST_DETERMINANT * v1 * xx) {
        scaleChange = (v1 * xr - x1 * r1) / determinant;
        offset = (xx * r1 - x1 * xr) / determinant;
      }
    }
    const factor = 1 + scaleChange;
    if (!(factor > 0)) break;
    s = <f32>(<f64>s * factor);
    if (tile.symmetric) continue;
    const fitted = <f64>z - offset / factor;
    if (tile.zeroPointBits != 0) {
      d = roundClamp(<f32>fitted / step, leastStep, mostStep);
      z = d * step;
    } else {
      z = clamp(<f32>fitted, 0 - largest, 2 * largest);
    }
  }
  if (!(<f64>bestError < least)) return;
  store<f32>(at(tile.scales, group), best / unitFactor);
  if (tile.symmetric) return;
  store<f32>(at(tile.zeroPoints, group), bestZ);
  if (tile.zeroPointBits != 0) store<u8>(tile.zeroPointCodes + group, <u8>bestD);
}
