/**
 * One group of a ggml block under eight scales and offsets at once: ŵ = o + s·q with q = clamp(round((w − o)/s),
 * lowest, largest). Each candidate has a lane of its own, so that its errors are added element after element in
 * both builds and no lanes need be added.
 *
 * `weights` and `importances` hold `n` floats, a multiple of four.
 */
import { addLanes, clamp } from "./number";

/** Candidates that one call measures. */
export const CANDIDATES: i32 = 8;

/** f32[8] each: scales and offsets of the candidates, set by the caller; then Σ v·(w − ŵ)² of each. */
const scales = memory.data(32, 16);
const offsets = memory.data(32, 16);
const errors = memory.data(32, 16);

// @ts-ignore: decorator
@inline
export function setCandidate(index: i32, scale: f32, offset: f32): void {
  store<f32>(scales + (<usize>index << 2), scale);
  store<f32>(offsets + (<usize>index << 2), offset);
}

// @ts-ignore: decorator
@inline
export function errorOf(index: i32): f32 {
  return load<f32>(errors + (<usize>index << 2));
}

/** 1/s, and 0 for a scale of 0, under which every code is the one next to 0. */
// @ts-ignore: decorator
@inline
export function inverseOf(scale: f32): f32 {
  return scale == 0 ? 0 : 1 / scale;
}

// @ts-ignore: decorator
@inline
function inverses4(scale: v128): v128 {
  return v128.andnot(f32x4.div(f32x4.splat(1), scale), f32x4.eq(scale, f32x4.splat(0)));
}

/** v·(w − ŵ)². */
// @ts-ignore: decorator
@inline
function errors4(w: v128, v: v128, s: v128, inv: v128, o: v128, lowest: v128, largest: v128): v128 {
  const y = f32x4.sub(w, o);
  const q = f32x4.nearest(f32x4.pmin(largest, f32x4.pmax(lowest, f32x4.mul(y, inv))));
  const e = f32x4.sub(y, f32x4.mul(q, s));
  return f32x4.mul(f32x4.mul(e, e), v);
}

/** Measures the eight candidates. */
export function measureCandidates(weights: usize, importances: usize, n: i32, lowest: f32, largest: f32): void {
  const end = weights + (<usize>n << 2);
  if (ASC_FEATURE_SIMD) {
    const low = f32x4.splat(lowest), high = f32x4.splat(largest);
    const s0 = v128.load(scales), s1 = v128.load(scales, 16);
    const o0 = v128.load(offsets), o1 = v128.load(offsets, 16);
    const i0 = inverses4(s0), i1 = inverses4(s1);
    let e0 = f32x4.splat(0), e1 = f32x4.splat(0);
    do {
      const w = v128.load32_splat(weights), v = v128.load32_splat(importances);
      e0 = f32x4.add(e0, errors4(w, v, s0, i0, o0, low, high));
      e1 = f32x4.add(e1, errors4(w, v, s1, i1, o1, low, high));
      weights += 4;
      importances += 4;
    } while (weights < end);
    v128.store(errors, e0);
    v128.store(errors, e1, 16);
  } else {
    for (let k: usize = 0; k < 32; k += 4) {
      const s = load<f32>(scales + k), o = load<f32>(offsets + k), inv = inverseOf(s);
      let sum: f32 = 0;
      for (let at = weights, v = importances; at < end; at += 4, v += 4) {
        const y = load<f32>(at) - o;
        const e = y - nearest(clamp(y * inv, lowest, largest)) * s;
        sum += e * e * load<f32>(v);
      }
      store<f32>(errors + k, sum);
    }
  }
}

/** What `fitGroup` found with codes q: Σ v·q², Σ v·q, Σ v, Σ v·w·q, Σ v·w. */
export let fittedQQ: f32 = 0;
export let fittedQ: f32 = 0;
export let fittedV: f32 = 0;
export let fittedWQ: f32 = 0;
export let fittedW: f32 = 0;

/** The sums that least-squares fits of scale and offset need, for the codes of one candidate. */
export function fitGroup(
  weights: usize, importances: usize, n: i32, scale: f32, offset: f32, lowest: f32, largest: f32,
): void {
  const inv = inverseOf(scale);
  if (ASC_FEATURE_SIMD) {
    const end = weights + (<usize>n << 2);
    const invs = f32x4.splat(inv), o = f32x4.splat(offset);
    const low = f32x4.splat(lowest), high = f32x4.splat(largest);
    let qq = f32x4.splat(0), q1 = f32x4.splat(0), v1 = f32x4.splat(0), wq = f32x4.splat(0), w1 = f32x4.splat(0);
    do {
      const w = v128.load(weights), v = v128.load(importances);
      const t = f32x4.mul(f32x4.sub(w, o), invs);
      const q = f32x4.nearest(f32x4.pmin(high, f32x4.pmax(low, t)));
      const vq = f32x4.mul(v, q), vw = f32x4.mul(v, w);
      qq = f32x4.add(qq, f32x4.mul(vq, q));
      q1 = f32x4.add(q1, vq);
      v1 = f32x4.add(v1, v);
      wq = f32x4.add(wq, f32x4.mul(vw, q));
      w1 = f32x4.add(w1, vw);
      weights += 16;
      importances += 16;
    } while (weights < end);
    fittedQQ = addLanes(qq);
    fittedQ = addLanes(q1);
    fittedV = addLanes(v1);
    fittedWQ = addLanes(wq);
    fittedW = addLanes(w1);
  } else {
    const end = <usize>n << 2;
    // One lane of the SIMD build after the other.
    for (let lane: usize = 0; lane < 16; lane += 4) {
      let qq: f32 = 0, q1: f32 = 0, v1: f32 = 0, wq: f32 = 0, w1: f32 = 0;
      for (let i = lane; i < end; i += 16) {
        const w = load<f32>(weights + i), v = load<f32>(importances + i);
        const q = nearest(clamp((w - offset) * inv, lowest, largest));
        const vq = v * q, vw = v * w;
        qq += vq * q;
        q1 += vq;
        v1 += v;
        wq += vw * q;
        w1 += vw;
      }
      fittedQQ = lane == 0 ? qq : fittedQQ + qq;
      fittedQ = lane == 0 ? q1 : fittedQ + q1;
      fittedV = lane == 0 ? v1 : fittedV + v1;
      fittedWQ = lane == 0 ? wq : fittedWQ + wq;
      fittedW = lane == 0 ? w1 : fittedW + w1;
    }
  }
}

/** Codes less `lowest` of one group, a byte each, to `codes`. */
export function encodeGroup(
  weights: usize, codes: usize, n: i32, scale: f32, offset: f32, lowest: f32, largest: f32,
): void {
  const inv = inverseOf(scale);
  const end = weights + (<usize>n << 2);
  if (ASC_FEATURE_SIMD) {
    const invs = f32x4.splat(inv), o = f32x4.splat(offset);
    const low = f32x4.splat(lowest), high = f32x4.splat(largest);
    do {
      const t = f32x4.mul(f32x4.sub(v128.load(weights), o), invs);
      const q = f32x4.sub(f32x4.nearest(f32x4.pmin(high, f32x4.pmax(low, t))), low);
      const words = i32x4.trunc_sat_f32x4_s(q);
      const halves = i16x8.narrow_i32x4_s(words, words);
      v128.store32_lane(codes, i8x16.narrow_i16x8_u(halves, halves), 0);
      weights += 16;
      codes += 4;
    } while (weights < end);
  } else {
    for (; weights < end; weights += 4, ++codes) {
      const t = (load<f32>(weights) - offset) * inv;
      store<u8>(codes, <u8>(nearest(clamp(t, lowest, largest)) - lowest));
    }
  }
}

/** Smallest and largest of a group's weights, neither of them −0, as the last `findEnds` found them. */
export let lowEnd: f32 = 0;
export let highEnd: f32 = 0;

export function findEnds(weights: usize, n: i32): void {
  const end = weights + (<usize>n << 2);
  let low = load<f32>(weights), high = low;
  if (ASC_FEATURE_SIMD) {
    let lows = v128.load(weights), highs = lows;
    do {
      const w = v128.load(weights);
      lows = f32x4.pmin(lows, w);
      highs = f32x4.pmax(highs, w);
      weights += 16;
    } while (weights < end);
    lows = f32x4.pmin(lows, i32x4.shuffle(lows, lows, 2, 3, 0, 1));
    highs = f32x4.pmax(highs, i32x4.shuffle(highs, highs, 2, 3, 0, 1));
    lows = f32x4.pmin(lows, i32x4.shuffle(lows, lows, 1, 0, 3, 2));
    highs = f32x4.pmax(highs, i32x4.shuffle(highs, highs, 1, 0, 3, 2));
    low = f32x4.extract_lane(lows, 0);
    high = f32x4.extract_lane(highs, 0);
  } else {
    for (; weights < end; weights += 4) {
      const w = load<f32>(weights);
      low = w < low ? w : low;
      high = w > high ? w : high;
    }
  }
  lowEnd = low + 0;
  highEnd = high + 0;
}
