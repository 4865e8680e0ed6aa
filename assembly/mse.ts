/**
 * Least weighted squared error (DESIGN.md, Definitions): rtn first, then every unit of storage searched for
 * something better (mse-search.ts), and, where asked, each row's scales multiplied until the row is as long
 * along itself as it was.
 */
import { loadRow } from "./convert";
import { encodeRow } from "./encode";
import { searchGroup, searchSuper } from "./mse-search";
import { inversePowerOfTwo, layOutUnit } from "./mse-unit";
import { alignUp } from "./number";
import { finishRow } from "./row";
import { proposeRange } from "./rtn";
import { endOfSuper, storeScales, storeZeroPoints } from "./storage";
import { Tile } from "./tile";

/**
 * Codes are chosen again after each multiplication, against the scales as stored, which undoes a part of it:
 * the second leaves 0.5 % of the gain missing at 2 bits where one leaves 1 %, 0.02 % at 4.
 */
const GAIN_ROUNDS: i32 = 2;
/** A row whose rebuilt values need more than doubling is not the row any more. */
const LARGEST_GAIN: f64 = 2;

/** The largest magnitude among `n` floats. */
function largestMagnitude(values: usize, n: i32): f32 {
  const end = values + (<usize>n << 2);
  let top: f32 = 0;
  if (ASC_FEATURE_SIMD) {
    let tops = f32x4.splat(0);
    for (; values + 16 <= end; values += 16) tops = f32x4.pmax(tops, f32x4.abs(v128.load(values)));
    const pairs = f32x4.pmax(tops, v128.shuffle<f32>(tops, tops, 2, 3, 0, 1));
    top = f32x4.extract_lane(f32x4.pmax(pairs, v128.shuffle<f32>(pairs, pairs, 1, 0, 3, 2)), 0);
  }
  for (; values < end; values += 4) {
    const x = abs(load<f32>(values));
    top = select<f32>(x, top, x > top);
  }
  return top;
}

/**
 * Weights of the row's squared errors: v = h, or h·sqrt(σ² + w²) with σ² the row's mean square, both with h
 * and w scaled by a power of two, so that no square over- or underflows.
 */
function weighRow(tile: Tile, importanceFactor: f32, out: usize): void {
  const weights = tile.weights;
  const importance = tile.importance;
  const end = <usize>tile.cols << 2;
  let factor: f32 = 0;
  let meanSquare: f32 = 1;
  if (tile.weighting == 1) {
    factor = inversePowerOfTwo(largestMagnitude(weights, tile.cols));
    meanSquare = sumOfSquares(weights, tile.cols, factor) / <f32>tile.cols;
  }
  let i: usize = 0;
  if (ASC_FEATURE_SIMD) {
    const factors = f32x4.splat(factor), meanSquares = f32x4.splat(meanSquare);
    const importanceFactors = f32x4.splat(importanceFactor);
    for (; i + 16 <= end; i += 16) {
      const w = f32x4.mul(v128.load(weights + i), factors);
      const v = f32x4.sqrt(f32x4.add(meanSquares, f32x4.mul(w, w)));
      const h = importance == 0 ? importanceFactors : f32x4.mul(v128.load(importance + i), importanceFactors);
      v128.store(out + i, f32x4.mul(h, v));
    }
  }
  for (; i < end; i += 4) {
    const w = load<f32>(weights + i) * factor;
    const h = importance == 0 ? importanceFactor : load<f32>(importance + i) * importanceFactor;
    store<f32>(out + i, h * sqrt(meanSquare + w * w));
  }
}

/** Σ (w·factor)² in four lanes; the row is padded with zeros to a multiple of four. */
function sumOfSquares(weights: usize, n: i32, factor: f32): f32 {
  const end = weights + (<usize>n << 2);
  if (ASC_FEATURE_SIMD) {
    const factors = f32x4.splat(factor);
    let lanes = f32x4.splat(0);
    for (; weights < end; weights += 16) {
      const w = f32x4.mul(v128.load(weights), factors);
      lanes = f32x4.add(lanes, f32x4.mul(w, w));
    }
    return f32x4.extract_lane(lanes, 0) + f32x4.extract_lane(lanes, 1) + f32x4.extract_lane(lanes, 2) +
      f32x4.extract_lane(lanes, 3);
  }
  let s0: f32 = 0, s1: f32 = 0, s2: f32 = 0, s3: f32 = 0;
  for (; weights < end; weights += 16) {
    const w0 = load<f32>(weights) * factor, w1 = load<f32>(weights, 4) * factor;
    const w2 = load<f32>(weights, 8) * factor, w3 = load<f32>(weights, 12) * factor;
    s0 += w0 * w0;
    s1 += w1 * w1;
    s2 += w2 * w2;
    s3 += w3 * w3;
  }
  return s0 + s1 + s2 + s3;
}

/** Σ h·w² and Σ h·w·ŵ of a row, as the last `projectRow` found them. */
let norm: f64 = 0;
let dot: f64 = 0;

/** Sets `norm` and `dot`, in float64, column j in lane j mod 4, lanes added ((0 + 1) + 2) + 3. */
function projectRow(weights: usize, rebuilt: usize, importance: usize, n: i32): void {
  const end = <usize>n << 2;
  let i: usize = 0;
  let n0: f64 = 0, n1: f64 = 0, n2: f64 = 0, n3: f64 = 0;
  let d0: f64 = 0, d1: f64 = 0, d2: f64 = 0, d3: f64 = 0;
  if (ASC_FEATURE_SIMD) {
    let norms01 = f64x2.splat(0), norms23 = f64x2.splat(0), dots01 = f64x2.splat(0), dots23 = f64x2.splat(0);
    for (; i + 16 <= end; i += 16) {
      const w01 = promotedPair(weights + i), w23 = promotedPair(weights + i + 8);
      const x01 = promotedPair(rebuilt + i), x23 = promotedPair(rebuilt + i + 8);
      let h01 = w01, h23 = w23;
      if (importance != 0) {
        h01 = f64x2.mul(promotedPair(importance + i), w01);
        h23 = f64x2.mul(promotedPair(importance + i + 8), w23);
      }
      norms01 = f64x2.add(norms01, f64x2.mul(h01, w01));
      norms23 = f64x2.add(norms23, f64x2.mul(h23, w23));
      dots01 = f64x2.add(dots01, f64x2.mul(h01, x01));
      dots23 = f64x2.add(dots23, f64x2.mul(h23, x23));
    }
    n0 = f64x2.extract_lane(norms01, 0);
    n1 = f64x2.extract_lane(norms01, 1);
    n2 = f64x2.extract_lane(norms23, 0);
    n3 = f64x2.extract_lane(norms23, 1);
    d0 = f64x2.extract_lane(dots01, 0);
    d1 = f64x2.extract_lane(dots01, 1);
    d2 = f64x2.extract_lane(dots23, 0);
    d3 = f64x2.extract_lane(dots23, 1);
  }
  for (; i < end; i += 4) {
    const w = <f64>load<f32>(weights + i);
    const h = importance == 0 ? w : <f64>load<f32>(importance + i) * w;
    const nw = h * w, dw = h * <f64>load<f32>(rebuilt + i);
    const lane = i & 12;
    if (lane == 0) { n0 += nw; d0 += dw; }
    else if (lane == 4) { n1 += nw; d1 += dw; }
    else if (lane == 8) { n2 += nw; d2 += dw; }
    else { n3 += nw; d3 += dw; }
  }
  norm = n0 + n1 + n2 + n3;
  dot = d0 + d1 + d2 + d3;
}

/** Two float32 as float64: one instruction where they are loaded for it. */
// @ts-ignore: decorator
@inline
function promotedPair(at: usize): v128 {
  return f64x2.promote_low_f32x4(v128.load64_zero(at));
}

/** ⟨w,w⟩_h/⟨w,ŵ⟩_h of the row; 1 where that says nothing. */
function missingGain(tile: Tile): f32 {
  projectRow(tile.weights, tile.rebuilt, tile.importance, tile.cols);
  const gain = norm / dot;
  return dot > 0 && gain <= LARGEST_GAIN ? <f32>gain : 1;
}

/** Multiplies the row's stored scales. */
function multiplyScales(tile: Tile, factor: f32): void {
  if (tile.scaleBits == 0) {
    for (let g = 0; g < tile.groupsPerRow; ++g) {
      const at = tile.scales + (<usize>g << 2);
      store<f32>(at, load<f32>(at) * factor);
    }
    return;
  }
  for (let i = 0; i < tile.supersPerRow; ++i) {
    const at = tile.superScales + (<usize>i << 2);
    const superScale = load<f32>(at) * factor;
    store<f32>(at, superScale);
    for (let g = i * tile.groupsPerSuper; g < endOfSuper(tile, i); ++g) {
      store<f32>(tile.scales + (<usize>g << 2), superScale * <f32>load<u8>(tile.scaleCodes + g));
    }
  }
}

/** Scratch (src/quantize/methods/mse.ts): the row's weights of errors, then the search's arrays. */
export function quantizeRowsMse(tile: Tile, rowCount: i32): i32 {
  const isCoded = tile.scaleBits != 0;
  const rowImportances = tile.scratch;
  const groupsPerUnit = isCoded ? min<i32>(tile.groupsPerSuper, tile.groupsPerRow) : 1;
  layOutUnit(tile, rowImportances + (<usize>alignUp(tile.cols, 4) << 2), groupsPerUnit);
  const importanceFactor: f32 = tile.importance == 0
    ? 1
    : inversePowerOfTwo(largestMagnitude(tile.importance, tile.cols));
  for (let row = 0; row < rowCount; ++row) {
    if (!loadRow(tile, row)) return row;
    proposeRange(tile);
    storeScales(tile);
    storeZeroPoints(tile);
    weighRow(tile, importanceFactor, rowImportances);
    if (isCoded) {
      for (let i = 0; i < tile.supersPerRow; ++i) {
        searchSuper(tile, i, i * tile.groupsPerSuper, endOfSuper(tile, i), rowImportances);
      }
    } else {
      for (let g = 0; g < tile.groupsPerRow; ++g) searchGroup(tile, g, rowImportances);
    }
    encodeRow(tile);
    if (tile.preserveGain == 1) {
      for (let round = 0; round < GAIN_ROUNDS; ++round) {
        multiplyScales(tile, missingGain(tile));
        encodeRow(tile);
      }
    }
    finishRow(tile);
  }
  return -1;
}
