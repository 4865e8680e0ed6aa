/**
 * Scale, or scale and offset, of one group of weights for codes lowest … largest: candidates around those of the range
 * are measured as they would be stored, then the least-squares fit to the best one's codes and its neighbours.
 */
import {
  CANDIDATES,
  errorOf,
  fitGroup,
  fittedQ,
  fittedQQ,
  fittedV,
  fittedW,
  fittedWQ,
  measureCandidates,
  setCandidate,
} from "./ggml-candidates";
import { roundF16, roundScale } from "./ggml-scale";

/** Fits of scale and offset, each followed by a look around. */
const REFITS: i32 = 8;
/** Scale and offset are only fitted together where the codes differ by more than rounding. */
const LEAST_DETERMINANT: f64 = 1e-6;
/** What neighbouring candidates cut off more at one end, in codes. */
const CUT: f32 = 0.25;
/** Scales smaller than this share of the range's hold nothing but the smallest weights. */
const LEAST_SHARE: f32 = 0.05;

let weights: usize = 0;
let importances: usize = 0;
let count: i32 = 0;
let lowest: f32 = 0;
let largest: f32 = 0;
/** Whether scale and offset are stored by themselves, as float16; else they become multiples of a block's own. */
let areF16: bool = false;

/** The best candidate so far; earlier ones win ties. */
export let bestScale: f32 = 0;
export let bestOffset: f32 = 0;
let bestError: f32 = 0;

const triedScales = memory.data(32, 16);
const triedOffsets = memory.data(32, 16);

/** What is to be coded: `n` weights, a multiple of four, with codes `from` … `to`. */
export function setGroup(w: usize, v: usize, n: i32, from: f32, to: f32, storesF16: bool): void {
  weights = w;
  importances = v;
  count = n;
  lowest = from;
  largest = to;
  areF16 = storesF16;
}

// @ts-ignore: decorator
@inline
function propose(index: i32, scale: f32, offset: f32): void {
  const s = areF16 ? roundScale(scale) : scale;
  const o = areF16 ? roundF16(offset) : offset;
  store<f32>(triedScales + (<usize>index << 2), s);
  store<f32>(triedOffsets + (<usize>index << 2), o);
  setCandidate(index, s, o);
}

/** Measures the eight proposals and keeps what is better than the best; its number, or −1. */
function takeBest(): i32 {
  measureCandidates(weights, importances, count, lowest, largest);
  let found = -1;
  for (let k = 0; k < CANDIDATES; ++k) {
    if (errorOf(k) < bestError) {
      bestError = errorOf(k);
      found = k;
    }
  }
  if (found >= 0) {
    bestScale = load<f32>(triedScales + (<usize>found << 2));
    bestOffset = load<f32>(triedOffsets + (<usize>found << 2));
  }
  return found;
}

/** Least and largest weight of the group. */
let least: f32 = 0;
let most: f32 = 0;

function findRange(): void {
  let low = load<f32>(weights), high = low;
  for (let i = 1; i < count; ++i) {
    const w = load<f32>(weights + (<usize>i << 2));
    low = w < low ? w : low;
    high = w > high ? w : high;
  }
  least = low;
  most = high;
}

/** Eight scales `first`, `first + step` … times `unit`; whether the first is the best of all. */
// @ts-ignore: decorator
@inline
function sweepScales(unit: f32, first: f32, step: f32): bool {
  for (let k = 0; k < CANDIDATES; ++k) propose(k, unit * (first + step * <f32>k), 0);
  return takeBest() == 0;
}

/** Finds the scale of a group without an offset; of either sign, as there is one code more below zero than above. */
export function searchScale(step: f32): void {
  findRange();
  const peak = most > -least ? most : least;
  // The largest weight is the lowest code, or the same magnitude on the side that has one code less.
  const unit = peak / lowest;
  bestScale = 0;
  bestOffset = 0;
  bestError = Infinity;
  if (sweepScales(unit, 1 - 3 * step, step)) {
    // A few weights stand far out: ever smaller scales, for as long as that helps.
    for (let first: f32 = 1 - 4 * step; first > LEAST_SHARE; first *= 0.7) {
      for (let k = 0; k < CANDIDATES; ++k) propose(k, unit * first * (1 - 0.05 * <f32>k), 0);
      if (takeBest() < 4) break;
    }
  }
  sweepScales(unit, 1 - 2.5 * step, step);
  sweepScales(-unit, 1 - 2 * step, step);
  sweepScales(-unit, 1 - 1.5 * step, step);
  let wide = step / 4;
  for (let round = 0; round < 2; ++round) {
    const s = bestScale;
    fitGroup(weights, importances, count, s, 0, lowest, largest);
    const fitted: f32 = fittedQQ > 0 ? fittedWQ / fittedQQ : s;
    propose(0, fitted, 0);
    propose(1, fitted * (1 + wide / 2), 0);
    for (let k = 1; k <= 3; ++k) {
      propose(2 * k, s * (1 + wide * <f32>k), 0);
      propose(2 * k + 1, s * (1 - wide * <f32>k), 0);
    }
    takeBest();
    wide /= 4;
  }
}

/** Proposes the scale and offset whose outermost codes lie `a` and `b` steps inside of the range. */
// @ts-ignore: decorator
@inline
function proposeEnds(index: i32, size: f32, a: f32, b: f32, isShiftedDown: bool): void {
  let from = least + size * a;
  if (isShiftedDown && from > 0) from = 0;
  const to = most - size * b;
  propose(index, to > from ? (to - from) / largest : 0, from);
}

/**
 * Finds scale and offset of a group with codes from 0.
 * @param isShiftedDown whether offsets are at most 0 and scales at least
 */
export function searchScaleAndOffset(isShiftedDown: bool): void {
  findRange();
  if (isShiftedDown && least > 0) least = 0;
  const size = (most - least) / largest;
  bestScale = 0;
  bestOffset = 0;
  bestError = Infinity;
  // Up to about a code of the range is cut off at either end, in 48 ways.
  for (let first = 0; first < 48; first += CANDIDATES) {
    for (let k = 0; k < CANDIDATES; ++k) {
      const way = first + k;
      proposeEnds(k, size, CUT * <f32>(way % 7 - 1), CUT * <f32>(way / 7 - 1), isShiftedDown);
    }
    takeBest();
  }
  let wide: f32 = 0.25;
  for (let refit = 0; refit < REFITS; ++refit) {
    fitGroup(weights, importances, count, bestScale, bestOffset, lowest, largest);
    const qq = <f64>fittedQQ, q1 = <f64>fittedQ, v1 = <f64>fittedV, wq = <f64>fittedWQ, w1 = <f64>fittedW;
    const determinant = v1 * qq - q1 * q1;
    let s = bestScale, o = bestOffset;
    if (determinant > LEAST_DETERMINANT * v1 * qq) {
      s = <f32>((v1 * wq - q1 * w1) / determinant);
      o = <f32>((qq * w1 - q1 * wq) / determinant);
    }
    if (isShiftedDown && o > 0) {
      o = 0;
      s = fittedQQ > 0 ? fittedWQ / fittedQQ : s;
    }
    if (isShiftedDown && s < 0) s = bestScale;
    const turn = wide / largest;
    proposeShifted(0, s, o, isShiftedDown);
    proposeShifted(1, s, o + s * wide, isShiftedDown);
    proposeShifted(2, s, o - s * wide, isShiftedDown);
    proposeShifted(3, s * (1 - turn), o + s * wide * 0.5, isShiftedDown);
    proposeShifted(4, s * (1 + turn), o - s * wide * 0.5, isShiftedDown);
    if ((refit & 1) != 0) {
      proposeShifted(5, bestScale, bestOffset + s * wide * 0.5, isShiftedDown);
      proposeShifted(6, bestScale, bestOffset - s * wide * 0.5, isShiftedDown);
      proposeShifted(7, s * (1 + turn), o, isShiftedDown);
    } else {
      proposeShifted(5, s * (1 - 2 * turn), o + s * wide, isShiftedDown);
      proposeShifted(6, s * (1 + 2 * turn), o - s * wide, isShiftedDown);
      proposeShifted(7, s * (1 - turn), o, isShiftedDown);
    }
    takeBest();
    wide *= 0.8;
  }
}

// @ts-ignore: decorator
@inline
function proposeShifted(index: i32, scale: f32, offset: f32, isShiftedDown: bool): void {
  propose(index, scale, isShiftedDown && offset > 0 ? 0 : offset);
}
