/**
 * Search of ggml's K formats. Each group of a block first gets the scale (and offset) it would like; the block's
 * float16 scales follow from the largest. Then every group tries the pairs of codes around its own as they would be
 * stored, and the block's scales are fitted to all its codes by least squares, in turns. The best block seen is
 * stored. Layouts: ggml-super-blocks.ts.
 */
import {
  CANDIDATES,
  encodeGroup,
  errorOf,
  findEnds,
  fitGroup,
  fittedQ,
  fittedQQ,
  fittedV,
  fittedW,
  fittedWQ,
  highEnd,
  lowEnd,
  measureCandidates,
  setCandidate,
} from "./ggml-candidates";
import { packBits256, packNibbles256, packPairs256, packScalesOfQ3, packScalesOfQ4, packSixes256 } from "./ggml-pack";
import { roundScale, storeF16 } from "./ggml-scale";
import { SUPER_BLOCK_ELEMENTS } from "./ggml-super-blocks";
import { clamp, roundClamp } from "./number";

/** Rounds of trying codes; the block's scales are refitted between them. */
const ROUNDS: i32 = 4;
const LEAST_DETERMINANT: f64 = 1e-6;
/** Most groups of a block. */
const GROUPS: i32 = 16;

const CODES = memory.data(SUPER_BLOCK_ELEMENTS, 16);
/** Stored scales and minima of the best block, a byte each. */
const SCALES = memory.data(GROUPS, 16);
const MINIMA = memory.data(GROUPS, 16);

/** f32[GROUPS] each: what groups would like, then their codes. */
const wantedScales = memory.data(4 * GROUPS, 16);
const wantedOffsets = memory.data(4 * GROUPS, 16);
const scaleCodes = memory.data(4 * GROUPS, 16);
const minimumCodes = memory.data(4 * GROUPS, 16);
const bestScaleCodes = memory.data(4 * GROUPS, 16);
const bestMinimumCodes = memory.data(4 * GROUPS, 16);

/** Candidates' own numbers: f32 each. */
const triedScales = memory.data(4 * CANDIDATES, 16);
const triedOffsets = memory.data(4 * CANDIDATES, 16);

let weights: usize = 0;
let importances: usize = 0;
let groupSize: i32 = 0;
let groups: i32 = 0;
let lowest: f32 = 0;
let largest: f32 = 0;

/** The best candidate of the group at hand. */
let chosenScale: f32 = 0;
let chosenOffset: f32 = 0;
let chosenError: f32 = 0;

/** The best block so far. */
let bestD: f32 = 0;
let bestMinimumUnit: f32 = 0;
let bestError: f64 = 0;

// @ts-ignore: decorator
@inline
function at(array: usize, k: i32): usize {
  return array + (<usize>k << 2);
}

// @ts-ignore: decorator
@inline
function weightsOf(g: i32): usize {
  return weights + (<usize>(g * groupSize) << 2);
}

// @ts-ignore: decorator
@inline
function importancesOf(g: i32): usize {
  return importances + (<usize>(g * groupSize) << 2);
}

/** Candidate `index` under numbers (`scale`, `offset`), which stand for themselves times the units. */
// @ts-ignore: decorator
@inline
function propose(index: i32, scale: f32, offset: f32, scaleUnit: f32, offsetUnit: f32): void {
  store<f32>(at(triedScales, index), scale);
  store<f32>(at(triedOffsets, index), offset);
  setCandidate(index, scaleUnit * scale, offsetUnit * offset);
}

/** Measures the eight candidates on group `g` and keeps what is better than the best; its number, or −1. */
function takeBest(g: i32): i32 {
  measureCandidates(weightsOf(g), importancesOf(g), groupSize, lowest, largest);
  let found = -1;
  for (let k = 0; k < CANDIDATES; ++k) {
    if (errorOf(k) < chosenError) {
      chosenError = errorOf(k);
      found = k;
    }
  }
  if (found >= 0) {
    chosenScale = load<f32>(at(triedScales, found));
    chosenOffset = load<f32>(at(triedOffsets, found));
  }
  return found;
}

function setBlock(blockWeights: usize, blockImportances: usize, size: i32, low: f32, high: f32): void {
  weights = blockWeights;
  importances = blockImportances;
  groupSize = size;
  groups = SUPER_BLOCK_ELEMENTS / size;
  lowest = low;
  largest = high;
  bestError = Infinity;
  bestD = 0;
  bestMinimumUnit = 0;
}

function keepBlock(error: f64, d: f32, minimumUnit: f32): void {
  if (!(error < bestError)) return;
  bestError = error;
  bestD = d;
  bestMinimumUnit = minimumUnit;
  memory.copy(bestScaleCodes, scaleCodes, 4 * GROUPS);
  memory.copy(bestMinimumCodes, minimumCodes, 4 * GROUPS);
}

/** Proposes a range whose outermost codes are `low` + a and `high` − b steps of the whole range; offsets ≤ 0. */
// @ts-ignore: decorator
@inline
function proposeEnds(index: i32, low: f32, high: f32, step: f32, a: f32, b: f32): void {
  const from = min<f32>(low + step * a, 0);
  propose(index, (high - step * b - from) / largest, from, 1, 1);
}

/** What group `g` would like: scale and offset ≤ 0 under codes 0 … largest. */
function wantShifted(g: i32): void {
  findEnds(weightsOf(g), groupSize);
  const low = min<f32>(lowEnd, 0), high = max<f32>(highEnd, low);
  const step = (high - low) / largest;
  chosenError = Infinity;
  proposeEnds(0, low, high, step, 0, 0);
  proposeEnds(1, low, high, step, 0.3, 0.3);
  proposeEnds(2, low, high, step, 0.6, 0.6);
  proposeEnds(3, low, high, step, 0, 0.4);
  proposeEnds(4, low, high, step, 0.4, 0);
  proposeEnds(5, low, high, step, 0.3, 0.8);
  proposeEnds(6, low, high, step, 0.8, 0.3);
  proposeEnds(7, low, high, step, 1, 1);
  takeBest(g);
  fitGroup(weightsOf(g), importancesOf(g), groupSize, chosenScale, chosenOffset, lowest, largest);
  const qq = <f64>fittedQQ, q1 = <f64>fittedQ, v1 = <f64>fittedV, wq = <f64>fittedWQ, w1 = <f64>fittedW;
  const determinant = v1 * qq - q1 * q1;
  if (determinant > LEAST_DETERMINANT * v1 * qq) {
    const offset = (qq * w1 - q1 * wq) / determinant;
    chosenOffset = <f32>min<f64>(offset, 0);
    chosenScale = <f32>(offset < 0 ? (v1 * wq - q1 * w1) / determinant : wq / qq);
  }
  store<f32>(at(wantedScales, g), max<f32>(chosenScale, 0));
  store<f32>(at(wantedOffsets, g), chosenOffset);
}

/** Pair `index`: scale code c + dc on the line through (c, m) that keeps the range's middle, minimum dm beside it. */
// @ts-ignore: decorator
@inline
function proposePair(
  index: i32, c: f32, m: f32, dc: f32, dm: f32, most: f32, slope: f32, d: f32, minimumUnit: f32,
): void {
  const code = clamp(c + dc, 0, most);
  propose(index, code, roundClamp(m + (code - c) * slope + dm, 0, most), d, -minimumUnit);
}

/** Tries pairs of codes of all groups under the block's scales; the block's error. */
function tryPairs(d: f32, minimumUnit: f32, most: f32): f64 {
  const slope: f32 = minimumUnit == 0 ? 0 : largest * 0.5 * d / minimumUnit;
  let error: f64 = 0;
  for (let g = 0; g < groups; ++g) {
    const c = load<f32>(at(scaleCodes, g)), m = load<f32>(at(minimumCodes, g));
    chosenError = Infinity;
    proposePair(0, c, m, 0, 0, most, slope, d, minimumUnit);
    proposePair(1, c, m, 0, 1, most, slope, d, minimumUnit);
    proposePair(2, c, m, 0, -1, most, slope, d, minimumUnit);
    proposePair(3, c, m, 1, 0, most, slope, d, minimumUnit);
    proposePair(4, c, m, -1, 0, most, slope, d, minimumUnit);
    proposePair(5, c, m, 1, 1, most, slope, d, minimumUnit);
    proposePair(6, c, m, -1, -1, most, slope, d, minimumUnit);
    proposePair(7, c, m, 1, -1, most, slope, d, minimumUnit);
    takeBest(g);
    proposePair(0, c, m, -1, 1, most, slope, d, minimumUnit);
    proposePair(1, c, m, 2, 0, most, slope, d, minimumUnit);
    proposePair(2, c, m, -2, 0, most, slope, d, minimumUnit);
    proposePair(3, c, m, 2, 1, most, slope, d, minimumUnit);
    proposePair(4, c, m, -2, -1, most, slope, d, minimumUnit);
    proposePair(5, c, m, 0, 2, most, slope, d, minimumUnit);
    proposePair(6, c, m, 0, -2, most, slope, d, minimumUnit);
    proposePair(7, c, m, 3, 0, most, slope, d, minimumUnit);
    takeBest(g);
    store<f32>(at(scaleCodes, g), chosenScale);
    store<f32>(at(minimumCodes, g), chosenOffset);
    error += <f64>chosenError;
  }
  return error;
}

/** Least-squares d and dmin for the codes that all groups have; as `refittedD` and `refittedMinimumUnit`. */
let refittedD: f32 = 0;
let refittedMinimumUnit: f32 = 0;
function refitShifted(d: f32, minimumUnit: f32): void {
  let cc: f64 = 0, cm: f64 = 0, mm: f64 = 0, wc: f64 = 0, wm: f64 = 0;
  for (let g = 0; g < groups; ++g) {
    const c = load<f32>(at(scaleCodes, g)), m = load<f32>(at(minimumCodes, g));
    fitGroup(weightsOf(g), importancesOf(g), groupSize, d * c, -(minimumUnit * m), lowest, largest);
    cc += <f64>c * <f64>c * <f64>fittedQQ;
    cm += <f64>c * <f64>m * <f64>fittedQ;
    mm += <f64>m * <f64>m * <f64>fittedV;
    wc += <f64>c * <f64>fittedWQ;
    wm += <f64>m * <f64>fittedW;
  }
  refittedD = d;
  refittedMinimumUnit = minimumUnit;
  const determinant = cc * mm - cm * cm;
  if (determinant > LEAST_DETERMINANT * cc * mm) {
    refittedD = roundScale(<f32>((mm * wc - cm * wm) / determinant));
    refittedMinimumUnit = roundScale(<f32>((cm * wc - cc * wm) / determinant));
  } else if (cc > 0 && mm == 0) {
    refittedD = roundScale(<f32>(wc / cc));
  }
}

/** Scales, minima and codes of a block of which both have codes 0 … `most`. */
function searchShifted(most: f32): void {
  let topScale: f32 = 0, topMinimum: f32 = 0;
  for (let g = 0; g < groups; ++g) {
    wantShifted(g);
    topScale = max<f32>(topScale, load<f32>(at(wantedScales, g)));
    topMinimum = max<f32>(topMinimum, -load<f32>(at(wantedOffsets, g)));
  }
  let d = roundScale(topScale / most), minimumUnit = roundScale(topMinimum / most);
  for (let g = 0; g < groups; ++g) {
    const scale = load<f32>(at(wantedScales, g)), offset = load<f32>(at(wantedOffsets, g));
    store<f32>(at(scaleCodes, g), d == 0 ? 0 : roundClamp(scale / d, 0, most));
    store<f32>(at(minimumCodes, g), minimumUnit == 0 ? 0 : roundClamp(-offset / minimumUnit, 0, most));
  }
  for (let round = 0; ; ) {
    keepBlock(tryPairs(d, minimumUnit, most), d, minimumUnit);
    if (++round == ROUNDS) break;
    refitShifted(d, minimumUnit);
    d = refittedD;
    minimumUnit = refittedMinimumUnit;
  }
  for (let g = 0; g < groups; ++g) {
    const c = load<f32>(at(bestScaleCodes, g)), m = load<f32>(at(bestMinimumCodes, g));
    store<u8>(SCALES + g, <u8>c);
    store<u8>(MINIMA + g, <u8>m);
    const offset = -(bestMinimumUnit * m);
    encodeGroup(weightsOf(g), CODES + g * groupSize, groupSize, bestD * c, offset, lowest, largest);
  }
}

/** What group `g` would like: a scale of either sign under codes lowest … largest. */
function wantSymmetric(g: i32): void {
  findEnds(weightsOf(g), groupSize);
  const peak = highEnd > 0 - lowEnd ? highEnd : lowEnd;
  const unit = peak / lowest;
  // A code's share of the range.
  const step: f32 = 0.4 / (0 - lowest);
  chosenError = Infinity;
  for (let k = 0; k < CANDIDATES; ++k) propose(k, unit * (1 + step * <f32>(k - 5)), 0, 1, 0);
  takeBest(g);
  for (let k = 0; k < CANDIDATES; ++k) propose(k, 0 - unit * (1 + step * <f32>(k - 3)), 0, 1, 0);
  takeBest(g);
  fitGroup(weightsOf(g), importancesOf(g), groupSize, chosenScale, 0, lowest, largest);
  if (fittedQQ > 0) chosenScale = fittedWQ / fittedQQ;
  store<f32>(at(wantedScales, g), chosenScale);
}

/** 0, −1, 1, −2, 2 … */
// @ts-ignore: decorator
@inline
function besides(k: i32): f32 {
  const distance = <f32>((k + 1) >> 1);
  return (k & 1) != 0 ? 0 - distance : distance;
}

/** Tries scale codes of all groups under the block's scale; the block's error. */
function tryScaleCodes(d: f32, least: f32): f64 {
  const most: f32 = 0 - 1 - least;
  let error: f64 = 0;
  for (let g = 0; g < groups; ++g) {
    const c = load<f32>(at(scaleCodes, g));
    chosenError = Infinity;
    for (let k = 0; k < CANDIDATES; ++k) {
      propose(k, clamp(c + besides(k), least, most), 0, d, 0);
    }
    takeBest(g);
    for (let k = 0; k < CANDIDATES; ++k) {
      propose(k, clamp(0 - c + besides(k), least, most), 0, d, 0);
    }
    takeBest(g);
    store<f32>(at(scaleCodes, g), chosenScale);
    error += <f64>chosenError;
  }
  return error;
}

/** Least-squares d for the codes that all groups have. */
function refitSymmetric(d: f32): f32 {
  let cc: f64 = 0, wc: f64 = 0;
  for (let g = 0; g < groups; ++g) {
    const c = load<f32>(at(scaleCodes, g));
    fitGroup(weightsOf(g), importancesOf(g), groupSize, d * c, 0, lowest, largest);
    cc += <f64>c * <f64>c * <f64>fittedQQ;
    wc += <f64>c * <f64>fittedWQ;
  }
  return cc > 0 ? roundScale(<f32>(wc / cc)) : d;
}

/** Scales and codes of a block with signed scale codes from `least` on, stored less `bias`. */
function searchSymmetric(least: f32, bias: i32): void {
  let top: f32 = 0;
  for (let g = 0; g < groups; ++g) {
    wantSymmetric(g);
    const scale = load<f32>(at(wantedScales, g));
    top = abs(scale) > abs(top) ? scale : top;
  }
  let d = roundScale(top / least);
  memory.fill(minimumCodes, 0, 4 * GROUPS);
  for (let g = 0; g < groups; ++g) {
    const scale = load<f32>(at(wantedScales, g));
    store<f32>(at(scaleCodes, g), d == 0 ? 0 : roundClamp(scale / d, least, -1 - least));
  }
  for (let round = 0; ; ) {
    keepBlock(tryScaleCodes(d, least), d, 0);
    if (++round == ROUNDS) break;
    d = refitSymmetric(d);
  }
  for (let g = 0; g < groups; ++g) {
    const c = load<f32>(at(bestScaleCodes, g));
    store<u8>(SCALES + g, <u8>(<i32>c - bias));
    encodeGroup(weightsOf(g), CODES + g * groupSize, groupSize, bestD * c, 0, lowest, largest);
  }
}

export function quantizeQ2K(blockWeights: usize, blockImportances: usize, block: usize): void {
  setBlock(blockWeights, blockImportances, 16, 0, 3);
  searchShifted(15);
  for (let g = 0; g < GROUPS; ++g) store<u8>(block + g, load<u8>(SCALES + g) | (load<u8>(MINIMA + g) << 4));
  packPairs256(CODES, block + 16);
  storeF16(block + 80, bestD);
  storeF16(block + 82, bestMinimumUnit);
}

export function quantizeQ3K(blockWeights: usize, blockImportances: usize, block: usize): void {
  setBlock(blockWeights, blockImportances, 16, -4, 3);
  searchSymmetric(-32, -32);
  packBits256(CODES, block, 2);
  packPairs256(CODES, block + 32);
  packScalesOfQ3(SCALES, block + 96);
  storeF16(block + 108, bestD);
}

export function quantizeQ4K(blockWeights: usize, blockImportances: usize, block: usize): void {
  setBlock(blockWeights, blockImportances, 32, 0, 15);
  searchShifted(63);
  storeF16(block, bestD);
  storeF16(block + 2, bestMinimumUnit);
  packScalesOfQ4(SCALES, MINIMA, block + 4);
  packNibbles256(CODES, block + 16);
}

export function quantizeQ5K(blockWeights: usize, blockImportances: usize, block: usize): void {
  setBlock(blockWeights, blockImportances, 32, 0, 31);
  searchShifted(63);
  storeF16(block, bestD);
  storeF16(block + 2, bestMinimumUnit);
  packScalesOfQ4(SCALES, MINIMA, block + 4);
  packBits256(CODES, block + 16, 4);
  packNibbles256(CODES, block + 48);
}

export function quantizeQ6K(blockWeights: usize, blockImportances: usize, block: usize): void {
  setBlock(blockWeights, blockImportances, 16, -32, 31);
  searchSymmetric(-128, 0);
  packSixes256(CODES, block);
  memory.copy(block + 192, SCALES, GROUPS);
  storeF16(block + 208, bestD);
}
