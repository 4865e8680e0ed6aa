/**
 * What a quantized row does to the layer's output: y = w·x and ŷ = ŵ·x̂ over held-back inputs x, where x̂ is what
 * quantized activations make of x, or x itself. Rows are taken eight at a time; each row has sums of its own,
 * which are added in order, so slabs do not matter.
 */
import { ADD, PANEL, PANEL_STEP, SET, multiplyPanels, packRows } from "./panel";
import { Tile } from "./tile";

/** Columns whose products are summed in float32 before they are added to the rest. */
const BLOCK_COLS: i32 = 256;

/** float32[8 inputs][8 rows] each. */
const sourceOutputs = memory.data(PANEL * PANEL_STEP, 16);
const rebuiltOutputs = memory.data(PANEL * PANEL_STEP, 16);
/** float64[8][3]: Σ y², Σ ŷ², Σ (y − ŷ)² of each row. */
const rowSums = memory.data(PANEL * 24, 16);

/** Held-back inputs, up to eight rows of `cols` floats, to a panel of eight rows. */
export function packHeldBack(from: usize, rows: i32, cols: i32, panel: usize): void {
  packRows(from, rows, cols, <usize>cols << 2, panel);
}

/**
 * A held-back input as quantized activations have it, in place: (clamp(round(x/s) + z, 0, largest) − z)·s, x
 * divided by its channel's equalization scale before and multiplied by it after, `scales` 0: none.
 */
export function quantizeInput(
  x: usize, cols: i32, scales: usize, colsPerChannel: i32, s: f32, z: f32, largest: f32,
): void {
  let left = colsPerChannel;
  let e: f32 = scales == 0 ? 1 : load<f32>(scales);
  for (let c = 0; c < cols; ++c, x += 4) {
    if (scales != 0) {
      if (left == 0) {
        scales += 4;
        e = load<f32>(scales);
        left = colsPerChannel;
      }
      --left;
    }
    const q = max<f32>(0, min<f32>(largest, nearest(load<f32>(x) / e / s) + z));
    store<f32>(x, (q - z) * s * e);
  }
}

/** Outputs of the eight rows of `panel` for the eight inputs of `inputs`. */
// @ts-ignore: decorator
@inline
function outputsOf(inputs: usize, panel: usize, cols: i32, outputs: usize): void {
  for (let first = 0; first < cols; first += BLOCK_COLS) {
    const at = <usize>first * PANEL_STEP;
    const n = min<i32>(BLOCK_COLS, cols - first);
    multiplyPanels(inputs + at, panel + at, n, outputs, PANEL_STEP, first == 0 ? SET : ADD);
  }
}

// @ts-ignore: decorator
@inline
function addTo(at: usize, x: f64): void {
  store<f64>(at, load<f64>(at) + x);
}

/** Adds the outputs of the rows that wait in the panels to `tile.outputSums`. */
export function flushOutputErrors(tile: Tile): void {
  const rows = tile.panelRows;
  if (rows == 0) return;
  tile.panelRows = 0;
  const panelBytes = <usize>tile.cols * PANEL_STEP;
  memory.fill(rowSums, 0, PANEL * 24);
  for (let i = 0; i < tile.heldBackPanelCount; ++i) {
    const at = <usize>i * panelBytes;
    outputsOf(tile.heldBackPanels + at, tile.sourcePanel, tile.cols, sourceOutputs);
    outputsOf(tile.quantizedPanels + at, tile.rebuiltPanel, tile.cols, rebuiltOutputs);
    for (let k = 0; k < PANEL * PANEL; ++k) {
      const y = <f64>load<f32>(sourceOutputs + (<usize>k << 2));
      const v = <f64>load<f32>(rebuiltOutputs + (<usize>k << 2));
      const sums = rowSums + <usize>(k & (PANEL - 1)) * 24;
      addTo(sums, y * y);
      addTo(sums + 8, v * v);
      addTo(sums + 16, (y - v) * (y - v));
    }
  }
  for (let row = 0; row < rows; ++row) {
    for (let i: usize = 0; i < 24; i += 8) {
      addTo(tile.outputSums + i, load<f64>(rowSums + <usize>row * 24 + i));
    }
  }
}

/** `cols` floats into lane `lane` of a panel. */
// @ts-ignore: decorator
@inline
function fillLane(panel: usize, lane: i32, from: usize, cols: i32): void {
  let to = panel + (<usize>lane << 2);
  for (const end = from + (<usize>cols << 2); from < end; from += 4, to += PANEL_STEP) store<f32>(to, load<f32>(from));
}

/** Takes the row, `tile.originals` and `tile.rebuilt`, where there are held-back inputs. */
export function addOutputErrors(tile: Tile): void {
  if (tile.heldBackPanelCount == 0) return;
  fillLane(tile.sourcePanel, tile.panelRows, tile.originals, tile.cols);
  fillLane(tile.rebuiltPanel, tile.panelRows, tile.rebuilt, tile.cols);
  tile.panelRows += 1;
  if (tile.panelRows == PANEL) flushOutputErrors(tile);
}
