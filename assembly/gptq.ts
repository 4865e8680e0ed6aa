/**
 * GPTQ (arXiv 2210.17323) in its dual form. With H = T·D·Tᵀ, T unit upper triangular (factor.ts), the error of a
 * row's output is Σ D_i·((ΔT)_i)², Δ = w − ŵ, and column i of ΔT holds Δ_i plus what the columns before it have
 * done: so column i is quantized as w_i + Σ_{k<i} Δ_k·T_ki. These are the very values that the usual form, which
 * pushes (w_i − ŵ_i)/U_ii times row i of U = R⁻¹ to the right, arrives at (there Δ = E·U, here Δ·R = E), without
 * inverting R, which saves half of the factoring, and Δ stays as small as a step of the codes, whatever H is.
 *
 * Columns are visited in the order of the factor; scales and zero points of groups are fixed beforehand, as stored,
 * in natural order. Eight rows of the slab go side by side through all of it.
 */
import { checkRow, loadRowUnchecked, loadSourceRow } from "./convert";
import { rebuildFromCodes } from "./encode";
import { ROUND_MAGIC, clamp, largestCode } from "./number";
import { ADD, PANEL, PANEL_STEP, SET, multiplyPanels, padToPanel } from "./panel";
import { appendScales, finishCodes } from "./row";
import { groupRange, proposeRange, rangeLow } from "./rtn";
import { storeScales, storeZeroPoints } from "./storage";
import { Tile } from "./tile";

/** Columns that are quantized before what they did is worked into others in one product. */
const BLOCK_COLS: i32 = 128;
/** Done columns whose products are summed before they are added: they and eight rows fit the nearest cache. */
const DONE_COLS: i32 = 256;

// Scratch of a slab (src/quantize/methods/gptq.ts), of every eight rows: float32[cols][8] weights in visiting
// order, replaced by their errors one by one; u8[cols][8] codes, natural order; float32[groups][8] scales and
// zero points; float32[BLOCK_COLS][8] what done columns add to those of the block.
let weights: usize = 0;
let codes: usize = 0;
let scales: usize = 0;
let zeroPoints: usize = 0;
let pushed: usize = 0;
let weightBytes: usize = 0;
let codeBytes: usize = 0;
let groupBytes: usize = 0;
const PUSHED_BYTES: usize = <usize>(BLOCK_COLS * PANEL_STEP);

function layOut(tile: Tile, panelCount: i32): void {
  const cols = padToPanel(tile.cols);
  weightBytes = <usize>cols * PANEL_STEP;
  codeBytes = <usize>cols * PANEL;
  groupBytes = <usize>tile.groupsPerRow * PANEL_STEP;
  weights = tile.scratch;
  codes = weights + <usize>panelCount * weightBytes;
  scales = codes + <usize>panelCount * codeBytes;
  zeroPoints = scales + <usize>panelCount * groupBytes;
  pushed = zeroPoints + <usize>panelCount * groupBytes;
}

/** Column panel `p` of the factor: elements 0 … 8p + 7 of eight columns. */
// @ts-ignore: decorator
@inline
function factorPanel(tile: Tile, p: i32): usize {
  return tile.factor + <usize>(p * (p + 1)) * 128;
}

/** Weights of dead columns count as zero: nothing they are multiplied with is ever anything else. */
function clearDeadColumns(tile: Tile): void {
  for (let c = 0; c < tile.cols; ++c) {
    if (load<u8>(tile.deadColumns + c)) store<f32>(tile.weights + (<usize>c << 2), 0);
  }
}

/**
 * Zero points that put the lowest level on the lower end of each group's range, unrounded, against the stored scales.
 * Beside rtn's rounded ones they take 6 to 15 % off the prediction error at two bits (dit-mnist, group 32, 6-bit codes:
 * 0.0253 for 0.0268). Scales searched for least weight error, even weighted by D, shrink the output, and the network
 * adds that up: 0.046, though each layer's output error falls.
 */
function placeZeroPoints(tile: Tile): void {
  const groupSize = tile.groupSize;
  let first = 0;
  for (let g = 0; g < tile.groupsPerRow; ++g, first += groupSize) {
    groupRange(tile.weights + (<usize>first << 2), min<i32>(groupSize, tile.cols - first));
    const s = load<f32>(tile.scales + (<usize>g << 2));
    store<f32>(tile.zeroPoints + (<usize>g << 2), s == 0 ? 0 : (0 - rangeLow) / s);
  }
}

/** Loads a row, fixes and appends its scales and zero points, and puts it in its lane of the slab's scratch. */
function prepareRow(tile: Tile, row: i32): bool {
  loadRowUnchecked(tile, row);
  if (!checkRow(tile)) return false;
  clearDeadColumns(tile);
  proposeRange(tile);
  storeScales(tile);
  placeZeroPoints(tile);
  storeZeroPoints(tile);
  appendScales(tile);
  const lane = <usize>(row & (PANEL - 1)) << 2;
  const panel = <usize>(row >> 3);
  let to = weights + panel * weightBytes + lane;
  for (let i = 0; i < tile.cols; ++i, to += PANEL_STEP) {
    const natural = load<i32>(tile.order + (<usize>i << 2));
    store<f32>(to, load<f32>(tile.weights + (<usize>natural << 2)));
  }
  let toScales = scales + panel * groupBytes + lane;
  let toZeroPoints = zeroPoints + panel * groupBytes + lane;
  for (let g = 0; g < tile.groupsPerRow; ++g, toScales += PANEL_STEP, toZeroPoints += PANEL_STEP) {
    store<f32>(toScales, load<f32>(tile.scales + (<usize>g << 2)));
    store<f32>(toZeroPoints, load<f32>(tile.zeroPoints + (<usize>g << 2)));
  }
  return true;
}

/** Codes and errors of one column of eight rows; `weight` becomes the error. */
// @ts-ignore: decorator
@inline
function quantizeColumn(weight: usize, added: usize, scale: usize, zeroPoint: usize, code: usize, largest: f32): void {
  if (ASC_FEATURE_SIMD) {
    const low = quantize4(weight, added, scale, zeroPoint, largest);
    const high = quantize4(weight + 16, added + 16, scale + 16, zeroPoint + 16, largest);
    const byte = i32x4.splat(255);
    const halves = i16x8.narrow_i32x4_u(v128.and(low, byte), v128.and(high, byte));
    v128.store64_lane(code, i8x16.narrow_i16x8_u(halves, halves), 0);
  } else {
    for (let i: usize = 0; i < 8; ++i) {
      const at = i << 2;
      const w = load<f32>(weight + at), s = load<f32>(scale + at), z = load<f32>(zeroPoint + at);
      const divisor: f32 = s == 0 ? Infinity : s;
      const t = clamp((w + load<f32>(added + at)) / divisor + z, 0, largest) + ROUND_MAGIC;
      store<u8>(code + i, <u8>reinterpret<u32>(t));
      store<f32>(weight + at, w - (t - ROUND_MAGIC - z) * s);
    }
  }
}

/** The same for four rows; the codes stand in the low bytes of what is returned. */
// @ts-ignore: decorator
@inline
function quantize4(weight: usize, added: usize, scale: usize, zeroPoint: usize, largest: f32): v128 {
  const w = v128.load(weight), s = v128.load(scale), z = v128.load(zeroPoint);
  const magic = f32x4.splat(ROUND_MAGIC), zero = f32x4.splat(0);
  const divisor = v128.bitselect(f32x4.splat(Infinity), s, f32x4.eq(s, zero));
  const x = f32x4.add(f32x4.div(f32x4.add(w, v128.load(added)), divisor), z);
  const t = f32x4.add(f32x4.pmin(f32x4.splat(largest), f32x4.pmax(zero, x)), magic);
  v128.store(weight, f32x4.sub(w, f32x4.mul(f32x4.sub(f32x4.sub(t, magic), z), s)));
  return t;
}

/** added[j] += error·factor[j] for columns j … 7 of a panel, eight rows each. */
// @ts-ignore: decorator
@inline
function pushError(error: usize, factor: usize, added: usize, first: i32): void {
  if (ASC_FEATURE_SIMD) {
    const low = v128.load(error), high = v128.load(error, 16);
    for (let j = first; j < PANEL; ++j) {
      const at = added + <usize>j * PANEL_STEP;
      const t = v128.load32_splat(factor + (<usize>j << 2));
      v128.store(at, f32x4.add(v128.load(at), f32x4.mul(t, low)));
      v128.store(at, f32x4.add(v128.load(at, 16), f32x4.mul(t, high)), 16);
    }
  } else {
    for (let j = first; j < PANEL; ++j) {
      const t = load<f32>(factor + (<usize>j << 2));
      for (let i: usize = 0; i < 32; i += 4) {
        const at = added + <usize>j * PANEL_STEP + i;
        store<f32>(at, load<f32>(at) + t * load<f32>(error + i));
      }
    }
  }
}

/** Quantizes columns `first` … `end` − 1 (whole panels but for the last) of eight rows. */
function quantizeBlock(tile: Tile, rowPanel: i32, first: i32, end: i32): void {
  const rowWeights = weights + <usize>rowPanel * weightBytes;
  const rowCodes = codes + <usize>rowPanel * codeBytes;
  const rowScales = scales + <usize>rowPanel * groupBytes;
  const rowZeroPoints = zeroPoints + <usize>rowPanel * groupBytes;
  const largest = largestCode(tile.bits);
  const groupSize = tile.groupSize;
  let added = pushed + <usize>rowPanel * PUSHED_BYTES;
  const blockStart = <usize>first * PANEL_STEP;
  for (let start = first; start < end; start += PANEL, added += PANEL * PANEL_STEP) {
    const panel = factorPanel(tile, start >> 3);
    if (start > first) {
      multiplyPanels(panel + blockStart, rowWeights + blockStart, start - first, added, PANEL_STEP, ADD);
    }
    const n = min<i32>(PANEL, end - start);
    for (let j = 0; j < n; ++j) {
      const at = <usize>(start + j) * PANEL_STEP;
      const natural = load<i32>(tile.order + (<usize>(start + j) << 2));
      const group = <usize>(natural / groupSize) * PANEL_STEP;
      quantizeColumn(
        rowWeights + at, added + <usize>j * PANEL_STEP, rowScales + group, rowZeroPoints + group,
        rowCodes + <usize>natural * PANEL, largest,
      );
      pushError(rowWeights + at, panel + at, added, j + 1);
    }
  }
}

/** What all columns before `first` do to those of the block that starts there, in all rows. */
function pushDone(tile: Tile, panelCount: i32, first: i32, end: i32): void {
  if (first == 0) memory.fill(pushed, 0, <usize>panelCount * PUSHED_BYTES);
  for (let done = 0; done < first; done += DONE_COLS) {
    const n = min<i32>(DONE_COLS, first - done);
    const at = <usize>done * PANEL_STEP;
    for (let rowPanel = 0; rowPanel < panelCount; ++rowPanel) {
      const errors = weights + <usize>rowPanel * weightBytes + at;
      let added = pushed + <usize>rowPanel * PUSHED_BYTES;
      for (let start = first; start < end; start += PANEL, added += PANEL * PANEL_STEP) {
        multiplyPanels(factorPanel(tile, start >> 3) + at, errors, n, added, PANEL_STEP, done == 0 ? SET : ADD);
      }
    }
  }
}

/** Rebuilds a row from its codes, appends them and adds its errors to the sums. */
function finishRowOfSlab(tile: Tile, row: i32): void {
  const lane = <usize>(row & (PANEL - 1));
  const panel = <usize>(row >> 3);
  let from = codes + panel * codeBytes + lane;
  for (let c = 0; c < tile.cols; ++c, from += PANEL) store<u8>(tile.codes + c, load<u8>(from));
  let fromScales = scales + panel * groupBytes + (lane << 2);
  let fromZeroPoints = zeroPoints + panel * groupBytes + (lane << 2);
  for (let g = 0; g < tile.groupsPerRow; ++g, fromScales += PANEL_STEP, fromZeroPoints += PANEL_STEP) {
    store<f32>(tile.scales + (<usize>g << 2), load<f32>(fromScales));
    store<f32>(tile.zeroPoints + (<usize>g << 2), load<f32>(fromZeroPoints));
  }
  loadSourceRow(tile, row, tile.originals);
  rebuildFromCodes(tile);
  finishCodes(tile);
}

/** Quantizes the slab's rows; −1, or the row whose weight `badColumn` cannot be. */
export function quantizeRowsGptq(tile: Tile, rowCount: i32): i32 {
  const cols = tile.cols;
  const panelCount = (rowCount + PANEL - 1) >> 3;
  layOut(tile, panelCount);
  // Lanes without a row, and columns that pad a panel, count with error zero.
  memory.fill(weights, 0, <usize>panelCount * weightBytes);
  memory.fill(scales, 0, <usize>panelCount * groupBytes * 2);
  for (let row = 0; row < rowCount; ++row) {
    if (!prepareRow(tile, row)) return row;
  }
  for (let first = 0; first < cols; first += BLOCK_COLS) {
    const end = min<i32>(first + BLOCK_COLS, cols);
    pushDone(tile, panelCount, first, end);
    for (let rowPanel = 0; rowPanel < panelCount; ++rowPanel) quantizeBlock(tile, rowPanel, first, end);
  }
  for (let row = 0; row < rowCount; ++row) finishRowOfSlab(tile, row);
  return -1;
}
