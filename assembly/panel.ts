/**
 * Matrix products over panels. A panel holds eight columns of a matrix, or eight rows, side by side: element k
 * of each in 32 consecutive bytes, then element k + 1 of each. Every product here is a sum over k of outer
 * products of two panels, added in the order of k, element for element in both builds.
 */
import { alignUp } from "./number";

/** Columns (or rows) of a panel, and bytes from one k to the next. */
export const PANEL: i32 = 8;
export const PANEL_STEP: i32 = 32;

/** What becomes of the products. */
export const SET: i32 = 0;
export const ADD: i32 = 1;
export const SUBTRACT: i32 = 2;

/**
 * c[i][j] (=, += or −= as `mode` says) Σ a[k][i]·b[k][j] over k < n, n ≥ 1, for i < 4 and j < 8: `a` is one
 * half of a panel, `b` a whole one; rows of c are `stride` bytes apart.
 */
export function multiplyHalf(a: usize, b: usize, n: i32, c: usize, stride: usize, mode: i32): void {
  const end = a + <usize>n * PANEL_STEP;
  if (ASC_FEATURE_SIMD) {
    let c00 = f32x4.splat(0), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00, c30 = c00, c31 = c00;
    do {
      const b0 = v128.load(b), b1 = v128.load(b, 16);
      const a0 = v128.load32_splat(a);
      c00 = f32x4.add(c00, f32x4.mul(a0, b0));
      c01 = f32x4.add(c01, f32x4.mul(a0, b1));
      const a1 = v128.load32_splat(a, 4);
      c10 = f32x4.add(c10, f32x4.mul(a1, b0));
      c11 = f32x4.add(c11, f32x4.mul(a1, b1));
      const a2 = v128.load32_splat(a, 8);
      c20 = f32x4.add(c20, f32x4.mul(a2, b0));
      c21 = f32x4.add(c21, f32x4.mul(a2, b1));
      const a3 = v128.load32_splat(a, 12);
      c30 = f32x4.add(c30, f32x4.mul(a3, b0));
      c31 = f32x4.add(c31, f32x4.mul(a3, b1));
      a += PANEL_STEP;
      b += PANEL_STEP;
    } while (a < end);
    storeRow(c, c00, c01, mode);
    storeRow(c + stride, c10, c11, mode);
    storeRow(c + 2 * stride, c20, c21, mode);
    storeRow(c + 3 * stride, c30, c31, mode);
  } else {
    for (let i: usize = 0; i < 4; i += 2) {
      for (let j: usize = 0; j < 32; j += 16) {
        multiplyCorner(a + (i << 2), b + j, end + (i << 2), c + i * stride + j, stride, mode);
      }
    }
  }
}

// @ts-ignore: decorator
@inline
function storeRow(c: usize, low: v128, high: v128, mode: i32): void {
  if (mode == ADD) {
    low = f32x4.add(v128.load(c), low);
    high = f32x4.add(v128.load(c, 16), high);
  } else if (mode == SUBTRACT) {
    low = f32x4.sub(v128.load(c), low);
    high = f32x4.sub(v128.load(c, 16), high);
  }
  v128.store(c, low);
  v128.store(c, high, 16);
}

/** Two rows of four of `multiplyHalf`, without SIMD. */
// @ts-ignore: decorator
@inline
function multiplyCorner(a: usize, b: usize, end: usize, c: usize, stride: usize, mode: i32): void {
  let c00: f32 = 0, c01: f32 = 0, c02: f32 = 0, c03: f32 = 0;
  let c10: f32 = 0, c11: f32 = 0, c12: f32 = 0, c13: f32 = 0;
  do {
    const a0 = load<f32>(a), a1 = load<f32>(a, 4);
    const b0 = load<f32>(b), b1 = load<f32>(b, 4), b2 = load<f32>(b, 8), b3 = load<f32>(b, 12);
    c00 += a0 * b0;
    c01 += a0 * b1;
    c02 += a0 * b2;
    c03 += a0 * b3;
    c10 += a1 * b0;
    c11 += a1 * b1;
    c12 += a1 * b2;
    c13 += a1 * b3;
    a += PANEL_STEP;
    b += PANEL_STEP;
  } while (a < end);
  storeOne(c, c00, mode);
  storeOne(c + 4, c01, mode);
  storeOne(c + 8, c02, mode);
  storeOne(c + 12, c03, mode);
  c += stride;
  storeOne(c, c10, mode);
  storeOne(c + 4, c11, mode);
  storeOne(c + 8, c12, mode);
  storeOne(c + 12, c13, mode);
}

// @ts-ignore: decorator
@inline
function storeOne(c: usize, x: f32, mode: i32): void {
  if (mode == ADD) x = load<f32>(c) + x;
  else if (mode == SUBTRACT) x = load<f32>(c) - x;
  store<f32>(c, x);
}

/** `multiplyHalf` for both halves of `a`: eight rows of c. */
// @ts-ignore: decorator
@inline
export function multiplyPanels(a: usize, b: usize, n: i32, c: usize, stride: usize, mode: i32): void {
  multiplyHalf(a, b, n, c, stride, mode);
  multiplyHalf(a + 16, b, n, c + 4 * stride, stride, mode);
}

/** Four vectors of four as their transpose: vector i becomes column i. */
// @ts-ignore: decorator
@inline
function storeTransposed(a: v128, b: v128, c: v128, d: v128, to: usize): void {
  const ab0 = v128.shuffle<f32>(a, b, 0, 4, 1, 5), ab1 = v128.shuffle<f32>(a, b, 2, 6, 3, 7);
  const cd0 = v128.shuffle<f32>(c, d, 0, 4, 1, 5), cd1 = v128.shuffle<f32>(c, d, 2, 6, 3, 7);
  v128.store(to, v128.shuffle<f64>(ab0, cd0, 0, 2));
  v128.store(to + PANEL_STEP, v128.shuffle<f64>(ab0, cd0, 1, 3));
  v128.store(to + 2 * PANEL_STEP, v128.shuffle<f64>(ab1, cd1, 0, 2));
  v128.store(to + 3 * PANEL_STEP, v128.shuffle<f64>(ab1, cd1, 1, 3));
}

/**
 * Rows of `n` floats, `stride` bytes apart, `rows` ≤ 8 of them, into one panel of eight rows; missing rows are
 * zeros.
 */
export function packRows(from: usize, rows: i32, n: i32, stride: usize, panel: usize): void {
  if (ASC_FEATURE_SIMD) {
    if (rows == PANEL) {
      const blocks = n & -4;
      for (let k = 0; k < blocks; k += 4) {
        const at = from + (<usize>k << 2), to = panel + <usize>k * PANEL_STEP;
        storeTransposed(
          v128.load(at), v128.load(at + stride), v128.load(at + 2 * stride), v128.load(at + 3 * stride), to,
        );
        const lower = at + 4 * stride;
        storeTransposed(
          v128.load(lower), v128.load(lower + stride), v128.load(lower + 2 * stride), v128.load(lower + 3 * stride),
          to + 16,
        );
      }
      from += <usize>blocks << 2;
      panel += <usize>blocks * PANEL_STEP;
      n -= blocks;
    }
  }
  for (let k = 0; k < n; ++k) {
    const to = panel + <usize>k * PANEL_STEP;
    for (let i = 0; i < PANEL; ++i) {
      store<f32>(to + (<usize>i << 2), i < rows ? load<f32>(from + <usize>i * stride + (<usize>k << 2)) : 0);
    }
  }
}

/** `cols` rounded up to whole panels. */
// @ts-ignore: decorator
@inline
export function padToPanel(cols: i32): i32 {
  return alignUp(cols, PANEL);
}
