/**
 * Half-Quadratic Quantization (Mobius Labs, reference hqq/core/optimize.py; DESIGN.md, Definitions): the
 * scales of the range stay, the zero points move so that few weights err much and many not at all, an Lp norm
 * with p = 0.7.
 *
 * Everything is in units of the group's stored scale: u = w/s, q = clamp(round(u + z), 0, L), r = u + z − q.
 * With e = shrink(r) the step z ← mean(q − (u − e)) is z ← z − mean(r − e), and r − e = sign(r)·min(|r|,
 * |r|^(p−1)/β). Means and errors are weighted by the importance of columns where there is one. (While a group is
 * worked on, `tile.residualScales`, which only r2q stores, holds the sums of its importances.)
 */
import { loadRow } from "./convert";
import { encodeRow } from "./encode";
import { addLanes, alignUp, clamp, largestCode } from "./number";
import { finishRow } from "./row";
import { groupRange, proposeRange, rangeLow } from "./rtn";
import { storeScales, storeZeroPoints } from "./storage";
import { Tile } from "./tile";

/** Steps of the reference; the zero points of its start are one more candidate. */
const ITERATIONS: i32 = 20;
const FIRST_BETA: f32 = 10;
/** κ: β grows by it at every step. */
const BETA_GROWTH: f32 = 1.01;

/**
 * Floats of `u` that are iterated on before the next are loaded: they stay in the first-level cache, and the
 * groups among them are independent, so that a processor overlaps the end of one with the start of the next.
 * MAX_GROUP_SIZE (src/tensor/layout.ts) must fit.
 */
const BLOCK_FLOATS: i32 = 2048;
/** Groups take a multiple of this many floats of `u`. */
const PADDING: i32 = 8;

/**
 * x^(−0.3) as (((N3·x + N2)·x + N1)·x + N0)/(((x + D2)·x + D1)·x + D0): off by less than 9e-6 for 0.14 ≤ x ≤
 * 2. Only a weight clipped by more than 1.5 codes has a larger residual; at 4 it is 0.3 % off, at 8 2 %, a
 * thousandth of a code. Below 0.14 it falls short, but stays above 1.8, and min(x, x^(−0.3)/β) is x: β is at
 * most 12.1.
 */
const N0: f32 = 0.17933431267738342, N1: f32 = 2.385571002960205, N2: f32 = 3.2606184482574463;
const N3: f32 = 0.36989322304725647;
const D0: f32 = 0.04527799412608147, D1: f32 = 1.425452470779419, D2: f32 = 3.724663496017456;

/** One step for one residual: min(|r|, |r|^(−0.3)/β) with the sign of r; n are the N over β. */
// @ts-ignore: decorator
@inline
function pull(r: f32, n0: f32, n1: f32, n2: f32, n3: f32): f32 {
  const x = abs(r);
  const t = (((n3 * x + n2) * x + n1) * x + n0) / (((x + D2) * x + D1) * x + D0);
  return copysign<f32>(select<f32>(t, x, t < x), r);
}

/** The same for four. */
// @ts-ignore: decorator
@inline
function pull4(r: v128, x: v128, n0: v128, n1: v128, n2: v128, n3: v128): v128 {
  const numerator = f32x4.add(f32x4.mul(f32x4.add(f32x4.mul(f32x4.add(f32x4.mul(n3, x), n2), x), n1), x), n0);
  const denominator = f32x4.add(
    f32x4.mul(f32x4.add(f32x4.mul(f32x4.add(x, f32x4.splat(D2)), x), f32x4.splat(D1)), x),
    f32x4.splat(D0),
  );
  const size = f32x4.pmin(x, f32x4.div(numerator, denominator));
  return v128.or(size, v128.and(r, i32x4.splat(0x80000000)));
}

/** t − clamp(round(t), 0, largest). */
// @ts-ignore: decorator
@inline
function residual(t: f32, largest: f32): f32 {
  return t - nearest(clamp(t, 0, largest));
}

// @ts-ignore: decorator
@inline
function residual4(t: v128, largest: v128): v128 {
  return f32x4.sub(t, f32x4.nearest(f32x4.pmin(largest, f32x4.pmax(f32x4.splat(0), t))));
}

/** Sums of |r| and of the pulls over one group, as the last `iterateGroup` found them. */
let absoluteSum: f32 = 0;
let pullSum: f32 = 0;

/**
 * Residuals of `n` floats at `u` (a multiple of PADDING; what is padded holds −z, whose residual is 0) under
 * zero point `z`.
 */
// @ts-ignore: decorator
@inline
function iterateGroup(u: usize, n: i32, z: f32, largest: f32, invBeta: f32): void {
  const n0 = N0 * invBeta, n1 = N1 * invBeta, n2 = N2 * invBeta, n3 = N3 * invBeta;
  const end = u + (<usize>n << 2);
  if (ASC_FEATURE_SIMD) {
    const zs = f32x4.splat(z), ls = f32x4.splat(largest);
    const s0 = f32x4.splat(n0), s1 = f32x4.splat(n1), s2 = f32x4.splat(n2), s3 = f32x4.splat(n3);
    let sizes = f32x4.splat(0), pulls = f32x4.splat(0);
    // Two vectors a turn, and do-while: only out of such a loop does V8 take splats and constants.
    do {
      const ra = residual4(f32x4.add(v128.load(u), zs), ls);
      const rb = residual4(f32x4.add(v128.load(u, 16), zs), ls);
      const xa = f32x4.abs(ra), xb = f32x4.abs(rb);
      sizes = f32x4.add(f32x4.add(sizes, xa), xb);
      pulls = f32x4.add(pulls, pull4(ra, xa, s0, s1, s2, s3));
      pulls = f32x4.add(pulls, pull4(rb, xb, s0, s1, s2, s3));
      u += 32;
    } while (u < end);
    absoluteSum = addLanes(sizes);
    pullSum = addLanes(pulls);
  } else {
    let a0: f32 = 0, a1: f32 = 0, a2: f32 = 0, a3: f32 = 0;
    let p0: f32 = 0, p1: f32 = 0, p2: f32 = 0, p3: f32 = 0;
    for (; u < end; u += 16) {
      const r0 = residual(load<f32>(u) + z, largest), r1 = residual(load<f32>(u, 4) + z, largest);
      const r2 = residual(load<f32>(u, 8) + z, largest), r3 = residual(load<f32>(u, 12) + z, largest);
      a0 += abs(r0); a1 += abs(r1); a2 += abs(r2); a3 += abs(r3);
      p0 += pull(r0, n0, n1, n2, n3); p1 += pull(r1, n0, n1, n2, n3);
      p2 += pull(r2, n0, n1, n2, n3); p3 += pull(r3, n0, n1, n2, n3);
    }
    absoluteSum = a0 + a1 + a2 + a3;
    pullSum = p0 + p1 + p2 + p3;
  }
}

/** `iterateGroup` with both sums weighted by the importances at `h`; what they are of the padding does not matter. */
// @ts-ignore: decorator
@inline
function iterateWeighted(u: usize, h: usize, n: i32, z: f32, largest: f32, invBeta: f32): void {
  const n0 = N0 * invBeta, n1 = N1 * invBeta, n2 = N2 * invBeta, n3 = N3 * invBeta;
  const end = u + (<usize>n << 2);
  if (ASC_FEATURE_SIMD) {
    const zs = f32x4.splat(z), ls = f32x4.splat(largest);
    const s0 = f32x4.splat(n0), s1 = f32x4.splat(n1), s2 = f32x4.splat(n2), s3 = f32x4.splat(n3);
    let sizes = f32x4.splat(0), pulls = f32x4.splat(0);
    do {
      const r = residual4(f32x4.add(v128.load(u), zs), ls);
      const x = f32x4.abs(r), importance = v128.load(h);
      sizes = f32x4.add(sizes, f32x4.mul(importance, x));
      pulls = f32x4.add(pulls, f32x4.mul(importance, pull4(r, x, s0, s1, s2, s3)));
      u += 16;
      h += 16;
    } while (u < end);
    absoluteSum = addLanes(sizes);
    pullSum = addLanes(pulls);
  } else {
    let a0: f32 = 0, a1: f32 = 0, a2: f32 = 0, a3: f32 = 0;
    let p0: f32 = 0, p1: f32 = 0, p2: f32 = 0, p3: f32 = 0;
    for (; u < end; u += 16, h += 16) {
      const r0 = residual(load<f32>(u) + z, largest), r1 = residual(load<f32>(u, 4) + z, largest);
      const r2 = residual(load<f32>(u, 8) + z, largest), r3 = residual(load<f32>(u, 12) + z, largest);
      const h0 = load<f32>(h), h1 = load<f32>(h, 4), h2 = load<f32>(h, 8), h3 = load<f32>(h, 12);
      a0 += h0 * abs(r0); a1 += h1 * abs(r1); a2 += h2 * abs(r2); a3 += h3 * abs(r3);
      p0 += h0 * pull(r0, n0, n1, n2, n3); p1 += h1 * pull(r1, n0, n1, n2, n3);
      p2 += h2 * pull(r2, n0, n1, n2, n3); p3 += h3 * pull(r3, n0, n1, n2, n3);
    }
    absoluteSum = a0 + a1 + a2 + a3;
    pullSum = p0 + p1 + p2 + p3;
  }
}

/** Σ h of a group's `n` columns; n where every column counts alike. */
function sumImportance(h: usize, n: i32): f32 {
  if (h == 0) return <f32>n;
  let sum: f32 = 0;
  for (let i = 0; i < n; ++i) sum += load<f32>(h + (<usize>i << 2));
  return sum;
}

/** u = w/s of `n` weights, 0 where s is. */
function divideGroup(weights: usize, u: usize, n: i32, s: f32): void {
  const divisor: f32 = s == 0 ? Infinity : s;
  let i = 0;
  if (ASC_FEATURE_SIMD) {
    const divisors = f32x4.splat(divisor);
    for (; i + 4 <= n; i += 4) v128.store(u + (i << 2), f32x4.div(v128.load(weights + (i << 2)), divisors));
  }
  for (; i < n; ++i) store<f32>(u + (i << 2), load<f32>(weights + (i << 2)) / divisor);
}

/** Importances of the group's columns, or 0. */
// @ts-ignore: decorator
@inline
function groupImportance(tile: Tile, g: i32): usize {
  return tile.importance == 0 ? 0 : tile.importance + (<usize>(g * tile.groupSize) << 2);
}

/**
 * Zero points of groups `first` … `end` − 1 over all steps: history[step][group] and the row's errors[step]
 * += s·Σ h|r|; `stride` floats of `u` per group.
 */
function iterateBlock(
  tile: Tile, first: i32, end: i32, u: usize, stride: i32, history: usize, errors: usize,
): void {
  const groupSize = tile.groupSize;
  const groups = tile.groupsPerRow;
  const largest = largestCode(tile.bits);
  for (let g = first; g < end; ++g) {
    const s = load<f32>(tile.scales + (g << 2));
    const weights = tile.weights + (<usize>(g * groupSize) << 2);
    const n = min<i32>(groupSize, tile.cols - g * groupSize);
    groupRange(weights, n);
    divideGroup(weights, u + (<usize>((g - first) * stride) << 2), n, s);
    store<f32>(tile.residualScales + (g << 2), sumImportance(groupImportance(tile, g), n));
    store<f32>(history + (g << 2), s == 0 ? 0 : (0 - rangeLow) / s);
  }
  let beta = FIRST_BETA;
  for (let step = 0; step <= ITERATIONS; ++step) {
    const invBeta: f32 = 1 / beta;
    const zeroPoints = history + (<usize>(step * groups) << 2);
    let error: f64 = 0;
    for (let g = first; g < end; ++g) {
      const z = load<f32>(zeroPoints + (g << 2));
      const n = min<i32>(groupSize, tile.cols - g * groupSize);
      const at = u + (<usize>((g - first) * stride) << 2);
      const padded = alignUp(n, PADDING);
      for (let i = n; i < padded; ++i) store<f32>(at + (<usize>i << 2), -z);
      if (tile.importance == 0) iterateGroup(at, padded, z, largest, invBeta);
      else iterateWeighted(at, groupImportance(tile, g), padded, z, largest, invBeta);
      error += <f64>load<f32>(tile.scales + (g << 2)) * <f64>absoluteSum;
      if (step == ITERATIONS) continue;
      // Where no column of the group matters at all, nothing pulls its zero point.
      const total = load<f32>(tile.residualScales + (g << 2));
      store<f32>(zeroPoints + (<usize>groups << 2) + (g << 2), total > 0 ? z - pullSum / total : z);
    }
    store<f64>(errors + (step << 3), load<f64>(errors + (step << 3)) + error);
    beta *= BETA_GROWTH;
  }
}

/** Floats of scratch (src/quantize/methods/hqq.ts): errors, then u, then the history. */
export function quantizeRowsHqq(tile: Tile, rowCount: i32): i32 {
  const errors = tile.scratch;
  const u = errors + (<usize>alignUp(ITERATIONS + 1, 2) << 3);
  const history = u + (<usize>BLOCK_FLOATS << 2);
  const stride = alignUp(tile.groupSize, PADDING);
  const groupsPerBlock = BLOCK_FLOATS / stride;
  const groups = tile.groupsPerRow;
  for (let row = 0; row < rowCount; ++row) {
    if (!loadRow(tile, row)) return row;
    proposeRange(tile);
    storeScales(tile);
    memory.fill(errors, 0, (ITERATIONS + 1) << 3);
    for (let first = 0; first < groups; first += groupsPerBlock) {
      iterateBlock(tile, first, min<i32>(first + groupsPerBlock, groups), u, stride, history, errors);
    }
    let best = 0;
    for (let step = 1; step <= ITERATIONS; ++step) {
      if (load<f64>(errors + (step << 3)) < load<f64>(errors + (best << 3))) best = step;
    }
    memory.copy(tile.zeroPoints, history + (<usize>(best * groups) << 2), <usize>groups << 2);
    storeZeroPoints(tile);
    encodeRow(tile);
    finishRow(tile);
  }
  return -1;
}
