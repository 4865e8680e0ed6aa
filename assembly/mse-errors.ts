/**
 * Weighted squared errors of one group under several candidates at once, in units of the candidate's scale: t
 * = w·(1/s) + z, q = clamp(round(t), 0, L), r = t − q, Σ v·r². Every load serves all candidates, and their
 * sums do not wait for each other. Loops over vectors are do-while: only out of those does V8 take splats and
 * constants.
 *
 * `weights` and `importances` hold `n` > 0 floats, a multiple of four; padding has importance 0. Element j
 * goes to lane j mod 4, lanes are added ((0 + 1) + 2) + 3.
 */
import { clamp } from "./number";

/** What the last call found: f32 each. */
const sums = memory.data(32, 16);

// @ts-ignore: decorator
@inline
export function sumOf(index: i32): f32 {
  return load<f32>(sums + (<usize>index << 2));
}

// @ts-ignore: decorator
@inline
function setSum(index: i32, lanes: v128): void {
  store<f32>(
    sums + (<usize>index << 2),
    f32x4.extract_lane(lanes, 0) + f32x4.extract_lane(lanes, 1) + f32x4.extract_lane(lanes, 2) +
      f32x4.extract_lane(lanes, 3),
  );
}

/** v·r² where t is w/s + z. */
// @ts-ignore: decorator
@inline
function errors4(t: v128, largest: v128, v: v128): v128 {
  const r = f32x4.sub(t, f32x4.nearest(f32x4.pmin(largest, f32x4.pmax(f32x4.splat(0), t))));
  return f32x4.mul(f32x4.mul(r, r), v);
}

// @ts-ignore: decorator
@inline
function error1(t: f32, largest: f32, v: f32): f32 {
  const r = t - nearest(clamp(t, 0, largest));
  return r * r * v;
}

/** Σ v·r² of one scale, given as its inverse, and one zero point. */
function errorOf(weights: usize, importances: usize, n: i32, inv: f32, z: f32, largest: f32): f32 {
  let e0: f32 = 0, e1: f32 = 0, e2: f32 = 0, e3: f32 = 0;
  for (let i: usize = 0, end = <usize>n << 2; i < end; i += 16) {
    e0 += error1(load<f32>(weights + i) * inv + z, largest, load<f32>(importances + i));
    e1 += error1(load<f32>(weights + i, 4) * inv + z, largest, load<f32>(importances + i, 4));
    e2 += error1(load<f32>(weights + i, 8) * inv + z, largest, load<f32>(importances + i, 8));
    e3 += error1(load<f32>(weights + i, 12) * inv + z, largest, load<f32>(importances + i, 12));
  }
  return e0 + e1 + e2 + e3;
}

/** Sums 0 … 3: Σ v·r² of four scales, given as their inverses, with zero point `z`. */
export function errorsOfScales(
  weights: usize, importances: usize, n: i32, z: f32, largest: f32,
  inv0: f32, inv1: f32, inv2: f32, inv3: f32,
): void {
  if (ASC_FEATURE_SIMD) {
    const zs = f32x4.splat(z), ls = f32x4.splat(largest);
    const i0 = f32x4.splat(inv0), i1 = f32x4.splat(inv1), i2 = f32x4.splat(inv2), i3 = f32x4.splat(inv3);
    let e0 = f32x4.splat(0), e1 = f32x4.splat(0), e2 = f32x4.splat(0), e3 = f32x4.splat(0);
    const end = weights + (<usize>n << 2);
    do {
      const w = v128.load(weights), v = v128.load(importances);
      e0 = f32x4.add(e0, errors4(f32x4.add(f32x4.mul(w, i0), zs), ls, v));
      e1 = f32x4.add(e1, errors4(f32x4.add(f32x4.mul(w, i1), zs), ls, v));
      e2 = f32x4.add(e2, errors4(f32x4.add(f32x4.mul(w, i2), zs), ls, v));
      e3 = f32x4.add(e3, errors4(f32x4.add(f32x4.mul(w, i3), zs), ls, v));
      weights += 16;
      importances += 16;
    } while (weights < end);
    setSum(0, e0);
    setSum(1, e1);
    setSum(2, e2);
    setSum(3, e3);
  } else {
    store<f32>(sums, errorOf(weights, importances, n, inv0, z, largest));
    store<f32>(sums, errorOf(weights, importances, n, inv1, z, largest), 4);
    store<f32>(sums, errorOf(weights, importances, n, inv2, z, largest), 8);
    store<f32>(sums, errorOf(weights, importances, n, inv3, z, largest), 12);
  }
}

/** Sums 0 … 4: Σ v·r² of five zero points with one scale, given as its inverse. */
export function errorsOfZeroPoints(
  weights: usize, importances: usize, n: i32, inv: f32, largest: f32,
  z0: f32, z1: f32, z2: f32, z3: f32, z4: f32,
): void {
  if (ASC_FEATURE_SIMD) {
    const invs = f32x4.splat(inv), ls = f32x4.splat(largest);
    const y0 = f32x4.splat(z0), y1 = f32x4.splat(z1), y2 = f32x4.splat(z2), y3 = f32x4.splat(z3);
    const y4 = f32x4.splat(z4);
    let e0 = f32x4.splat(0), e1 = f32x4.splat(0), e2 = f32x4.splat(0), e3 = f32x4.splat(0);
    let e4 = f32x4.splat(0);
    const end = weights + (<usize>n << 2);
    do {
      const u = f32x4.mul(v128.load(weights), invs), v = v128.load(importances);
      e0 = f32x4.add(e0, errors4(f32x4.add(u, y0), ls, v));
      e1 = f32x4.add(e1, errors4(f32x4.add(u, y1), ls, v));
      e2 = f32x4.add(e2, errors4(f32x4.add(u, y2), ls, v));
      e3 = f32x4.add(e3, errors4(f32x4.add(u, y3), ls, v));
      e4 = f32x4.add(e4, errors4(f32x4.add(u, y4), ls, v));
      weights += 16;
      importances += 16;
    } while (weights < end);
    setSum(0, e0);
    setSum(1, e1);
    setSum(2, e2);
    setSum(3, e3);
    setSum(4, e4);
  } else {
    store<f32>(sums, errorOf(weights, importances, n, inv, z0, largest));
    store<f32>(sums, errorOf(weights, importances, n, inv, z1, largest), 4);
    store<f32>(sums, errorOf(weights, importances, n, inv, z2, largest), 8);
    store<f32>(sums, errorOf(weights, importances, n, inv, z3, largest), 12);
    store<f32>(sums, errorOf(weights, importances, n, inv, z4, largest), 16);
  }
}

/**
 * With x = q − z and r = w/s − x: sum 0 is Σ v·(w − x·s)², as a reader rebuilds it, sums 1 … 5 are Σ v·x·r, Σ
 * v·x², Σ v·r, Σ v·x, Σ v: what a weighted least-squares fit of scale and offset to the codes needs. `inv` is
 * 1/s, or 0.
 */
export function moments(
  weights: usize, importances: usize, n: i32, s: f32, inv: f32, z: f32, largest: f32,
): void {
  if (ASC_FEATURE_SIMD) {
    const end = weights + (<usize>n << 2);
    const ss = f32x4.splat(s), invs = f32x4.splat(inv), zs = f32x4.splat(z), ls = f32x4.splat(largest);
    let ee = f32x4.splat(0), xr = f32x4.splat(0), xx = f32x4.splat(0);
    let r1 = f32x4.splat(0), x1 = f32x4.splat(0), v1 = f32x4.splat(0);
    do {
      const w = v128.load(weights), v = v128.load(importances);
      const t = f32x4.add(f32x4.mul(w, invs), zs);
      const q = f32x4.nearest(f32x4.pmin(ls, f32x4.pmax(f32x4.splat(0), t)));
      const r = f32x4.sub(t, q), x = f32x4.sub(q, zs);
      const e = f32x4.sub(w, f32x4.mul(x, ss)), vx = f32x4.mul(x, v);
      ee = f32x4.add(ee, f32x4.mul(f32x4.mul(e, e), v));
      xr = f32x4.add(xr, f32x4.mul(vx, r));
      xx = f32x4.add(xx, f32x4.mul(vx, x));
      r1 = f32x4.add(r1, f32x4.mul(r, v));
      x1 = f32x4.add(x1, vx);
      v1 = f32x4.add(v1, v);
      weights += 16;
      importances += 16;
    } while (weights < end);
    setSum(0, ee);
    setSum(1, xr);
    setSum(2, xx);
    setSum(3, r1);
    setSum(4, x1);
    setSum(5, v1);
  } else {
    const end = <usize>n << 2;
    // One lane after the other: six sums in four lanes at once do not fit in registers. `sums` holds lanes 0
    // … so far.
    for (let lane: usize = 0; lane < 16; lane += 4) {
      let ee: f32 = 0, xr: f32 = 0, xx: f32 = 0, r1: f32 = 0, x1: f32 = 0, v1: f32 = 0;
      for (let i = lane; i < end; i += 16) {
        const w = load<f32>(weights + i), v = load<f32>(importances + i);
        const t = w * inv + z;
        const q = nearest(clamp(t, 0, largest));
        const r = t - q, x = q - z;
        const e = w - x * s, vx = x * v;
        ee += e * e * v;
        xr += vx * r;
        xx += vx * x;
        r1 += r * v;
        x1 += vx;
        v1 += v;
      }
      addLane(0, ee, lane);
      addLane(1, xr, lane);
      addLane(2, xx, lane);
      addLane(3, r1, lane);
      addLane(4, x1, lane);
      addLane(5, v1, lane);
    }
  }
}

/** Adds the sum of one lane; the first lane's starts it. */
// @ts-ignore: decorator
@inline
function addLane(index: i32, x: f32, lane: usize): void {
  store<f32>(sums + (<usize>index << 2), lane == 0 ? x : sumOf(index) + x);
}
