/**
 * Residual refinement: two bits as two one-bit passes, ŵ = α₁·b₁ + α₂·b₂ with b₁ = sign(w), b₂ = sign(w −
 * α₁·b₁), sign(0) = +1 and α₁ ≥ α₂ ≥ 0 (after arXiv 2511.21736).
 *
 * With such α the four levels are ±(α₁ + α₂) and ±(α₁ − α₂), and α₁ lies half-way between the two magnitudes.
 * So a step of weighted least squares for fixed signs sets outer = mean of |w| where |w| ≥ α₁, inner = mean
 * of the rest, α₁ = (outer + inner)/2 and α₂ = (outer − inner)/2, which keeps α₁ ≥ α₂ ≥ 0 by itself;
 * re-coding compares with the new α₁.
 */
import { loadRow } from "./convert";
import { addLanes, largestCode } from "./number";
import { finishRow } from "./row";
import { codeValues, endOfSuper, proposeSuperScale } from "./storage";
import { Tile } from "./tile";

/** Most refinement steps of a group; the codes of nearly every group settle within a dozen. */
const MAX_STEPS: i32 = 32;

/** Σ h and Σ h·|w| over the elements of a group that `sumAbove` was last asked for. */
let weightAbove: f32 = 0;
let sumAboveThreshold: f32 = 0;

/**
 * Sets both sums, over elements with |w| ≥ threshold. Element j goes to lane j mod 4, lanes are added as
 * ((0 + 1) + 2) + 3.
 */
function sumAbove(weights: usize, importance: usize, n: i32, threshold: f32): void {
  if (ASC_FEATURE_SIMD) {
    const thresholds = f32x4.splat(threshold);
    const lastVector = weights + ((n & -4) << 2);
    let h = f32x4.splat(1);
    let weight = f32x4.splat(0);
    let sum = weight;
    // Groups are of 16 elements or more, but the last of a row may have fewer than four.
    if (weights < lastVector) {
      do {
        if (importance != 0) {
          h = v128.load(importance);
          importance += 16;
        }
        const magnitude = f32x4.abs(v128.load(weights));
        const isAbove = f32x4.ge(magnitude, thresholds);
        weight = f32x4.add(weight, v128.and(h, isAbove));
        sum = f32x4.add(sum, v128.and(f32x4.mul(h, magnitude), isAbove));
        weights += 16;
      } while (weights < lastVector);
    }
    if (n & 3) {
      if (importance != 0) h = v128.load(importance);
      const magnitude = f32x4.abs(v128.load(weights));
      const isThere = i32x4.gt_s(i32x4.splat(n & 3), i32x4(0, 1, 2, 3));
      const isAbove = v128.and(f32x4.ge(magnitude, thresholds), isThere);
      weight = f32x4.add(weight, v128.and(h, isAbove));
      sum = f32x4.add(sum, v128.and(f32x4.mul(h, magnitude), isAbove));
    }
    weightAbove = addLanes(weight);
    sumAboveThreshold = addLanes(sum);
  } else {
    weightAbove = 0;
    sumAboveThreshold = 0;
    for (let lane = 0; lane < 4; ++lane) {
      let weight: f32 = 0;
      let sum: f32 = 0;
      for (let i = lane; i < n; i += 4) {
        const h: f32 = importance != 0 ? load<f32>(importance + (i << 2)) : 1;
        const magnitude = abs(load<f32>(weights + (i << 2)));
        if (magnitude >= threshold) {
          weight += h;
          sum += h * magnitude;
        }
      }
      weightAbove += weight;
      sumAboveThreshold += sum;
    }
  }
}

/** Proposes `tile.scales` (α₁) and `tile.residualScales` (α₂) of every group. */
function proposeResidual(tile: Tile): void {
  const groupSize = tile.groupSize;
  let first = 0;
  for (let g = 0; g < tile.groupsPerRow; ++g) {
    const weights = tile.weights + (first << 2);
    const importance: usize = tile.importance == 0 ? 0 : tile.importance + <usize>(first << 2);
    const n = min<i32>(groupSize, tile.cols - first);
    sumAbove(weights, importance, n, 0);
    const totalWeight = weightAbove;
    const totalSum = sumAboveThreshold;
    // Without any importance nothing is asked of the group, and its mean magnitude is undefined.
    let alpha1: f32 = totalWeight > 0 ? totalSum / totalWeight : 0;
    let alpha2: f32 = 0;
    for (let step = 0; step < MAX_STEPS; ++step) {
      sumAbove(weights, importance, n, alpha1);
      const innerWeight = totalWeight - weightAbove;
      if (!(weightAbove > 0 && innerWeight > 0)) break;
      const outer = sumAboveThreshold / weightAbove;
      const inner = max<f32>(totalSum - sumAboveThreshold, 0) / innerWeight;
      const refined = (outer + inner) * 0.5;
      alpha2 = max<f32>(outer - inner, 0) * 0.5;
      if (refined == alpha1) break;
      alpha1 = refined;
    }
    store<f32>(tile.scales + (g << 2), alpha1);
    store<f32>(tile.residualScales + (g << 2), min<f32>(alpha2, alpha1));
    first += groupSize;
  }
}

/**
 * Codes both scales of every group against the super scale of the first; a code may be 0, so zeros stay
 * zeros.
 */
function storeResidual(tile: Tile): void {
  const largest = largestCode(tile.scaleBits);
  for (let i = 0; i < tile.supersPerRow; ++i) {
    const first = i * tile.groupsPerSuper;
    const end = endOfSuper(tile, i);
    const superScale = proposeSuperScale(tile, first, end);
    store<f32>(tile.superScales + (i << 2), superScale);
    const n = end - first;
    const scales = tile.scales + (first << 2);
    const residualScales = tile.residualScales + (first << 2);
    codeValues(scales, tile.scaleCodes + first, n, superScale, 0, largest);
    codeValues(residualScales, tile.residualScaleCodes + first, n, superScale, 0, largest);
  }
}

/**
 * q = 2·[w ≥ 0] + [w ≥ ±α₁], the nearest of the four levels, and ŵ for `n` elements. May write up to 15
 * elements past the end of `codes` and `rebuilt`.
 */
function encodeGroupR2q(
  weights: usize,
  codes: usize,
  rebuilt: usize,
  n: i32,
  alpha1: f32,
  alpha2: f32,
): void {
  if (ASC_FEATURE_SIMD) {
    const a1 = f32x4.splat(alpha1);
    const a2 = f32x4.splat(alpha2);
    const end = codes + n;
    do {
      const a = encodeR2q4(weights, rebuilt, a1, a2);
      const b = encodeR2q4(weights + 16, rebuilt + 16, a1, a2);
      const c = encodeR2q4(weights + 32, rebuilt + 32, a1, a2);
      const d = encodeR2q4(weights + 48, rebuilt + 48, a1, a2);
      v128.store(codes, i8x16.narrow_i16x8_u(i16x8.narrow_i32x4_u(a, b), i16x8.narrow_i32x4_u(c, d)));
      codes += 16;
      weights += 64;
      rebuilt += 64;
    } while (codes < end);
  } else {
    for (let i = 0; i < n; ++i) {
      const w = load<f32>(weights + (i << 2));
      const first = select<f32>(alpha1, -alpha1, w >= 0);
      const second = select<f32>(alpha2, -alpha2, w >= first);
      store<u8>(codes + i, (<i32>(w >= 0) << 1) | <i32>(w >= first));
      store<f32>(rebuilt + (i << 2), first + second);
    }
  }
}

/** Stores ŵ of four weights and returns their codes. */
// @ts-ignore: decorator
@inline
function encodeR2q4(weights: usize, rebuilt: usize, a1: v128, a2: v128): v128 {
  const signBit = i32x4.splat(0x80000000);
  const w = v128.load(weights);
  const b1 = f32x4.ge(w, f32x4.splat(0));
  const first = v128.xor(a1, v128.andnot(signBit, b1));
  const b2 = f32x4.ge(w, first);
  v128.store(rebuilt, f32x4.add(first, v128.xor(a2, v128.andnot(signBit, b2))));
  return v128.or(v128.and(b1, i32x4.splat(2)), v128.and(b2, i32x4.splat(1)));
}

/**
 * ŵ = α₁·(2·(q >> 1) − 1) + α₂·(2·(q & 1) − 1) for `n` elements; multiplying by ±1 is choosing the sign. May
 * write up to 3 elements past the end of `rebuilt`.
 */
function rebuildGroupR2q(codes: usize, rebuilt: usize, n: i32, alpha1: f32, alpha2: f32): void {
  if (ASC_FEATURE_SIMD) {
    const signBit = i32x4.splat(0x80000000);
    const a1 = f32x4.splat(alpha1);
    const a2 = f32x4.splat(alpha2);
    const end = codes + n;
    do {
      const q = i32x4.extend_low_i16x8_u(i16x8.extend_low_i8x16_u(v128.load32_zero(codes)));
      const first = v128.xor(a1, v128.andnot(signBit, i32x4.shl(q, 30)));
      const second = v128.xor(a2, v128.andnot(signBit, i32x4.shl(q, 31)));
      v128.store(rebuilt, f32x4.add(first, second));
      codes += 4;
      rebuilt += 16;
    } while (codes < end);
  } else {
    for (let i = 0; i < n; ++i) {
      const q = <i32>load<u8>(codes + i);
      const first = select<f32>(alpha1, -alpha1, q & 2);
      const second = select<f32>(alpha2, -alpha2, q & 1);
      store<f32>(rebuilt + (i << 2), first + second);
    }
  }
}

/** Codes and ŵ of the row with the stored `tile.scales` and `tile.residualScales`. */
function encodeRowR2q(tile: Tile): void {
  let first = 0;
  for (let g = 0; g < tile.groupsPerRow; ++g) {
    encodeGroupR2q(
      tile.weights + (first << 2),
      tile.codes + first,
      tile.rebuilt + (first << 2),
      min<i32>(tile.groupSize, tile.cols - first),
      load<f32>(tile.scales + (g << 2)),
      load<f32>(tile.residualScales + (g << 2)),
    );
    first += tile.groupSize;
  }
}

/** ŵ of the row's codes with the stored scales as they now are. */
export function rebuildFromCodesR2q(tile: Tile): void {
  let first = 0;
  for (let g = 0; g < tile.groupsPerRow; ++g) {
    rebuildGroupR2q(
      tile.codes + first,
      tile.rebuilt + (first << 2),
      min<i32>(tile.groupSize, tile.cols - first),
      load<f32>(tile.scales + (g << 2)),
      load<f32>(tile.residualScales + (g << 2)),
    );
    first += tile.groupSize;
  }
}

/** Quantizes `rowCount` rows of the slab; −1, or the row (of the slab) whose weight `badColumn` cannot be. */
export function quantizeRowsR2q(tile: Tile, rowCount: i32): i32 {
  for (let row = 0; row < rowCount; ++row) {
    if (!loadRow(tile, row)) return row;
    proposeResidual(tile);
    storeResidual(tile);
    encodeRowR2q(tile);
    finishRow(tile);
  }
  return -1;
}
