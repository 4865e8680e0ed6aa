/**
 * H += XᵀX over blocks of rows of X: each block's products are summed in float32 and added to H in float32. A
 * thousand blocks are off by some 1e-5 of a diagonal element, a thousandth of the damping that a Hessian gets before
 * it is factored; float64 would double its memory for nothing.
 */
import { ADD, PANEL, PANEL_STEP, multiplyPanels, padToPanel } from "./panel";

/** `rows` of `cols` floats to panels of eight columns, the last filled up with zeros. */
function packColumns(from: usize, rows: i32, cols: i32, panels: usize): void {
  const panelBytes = <usize>rows * PANEL_STEP;
  const whole = cols & -PANEL;
  for (let row = 0; row < rows; ++row) {
    let to = panels + <usize>row * PANEL_STEP;
    for (let c = 0; c < whole; c += PANEL, from += PANEL_STEP, to += panelBytes) {
      if (ASC_FEATURE_SIMD) {
        v128.store(to, v128.load(from));
        v128.store(to, v128.load(from, 16), 16);
      } else {
        for (let i: usize = 0; i < 32; i += 4) store<f32>(to + i, load<f32>(from + i));
      }
    }
    if (whole == cols) continue;
    for (let i = 0; i < PANEL; ++i) {
      store<f32>(to + (<usize>i << 2), whole + i < cols ? load<f32>(from + (<usize>i << 2)) : 0);
    }
    from += <usize>(cols - whole) << 2;
  }
}

/**
 * Adds `rows` ≥ 1 of `cols` floats to `gram`, float32[padded][padded] with `cols` padded to whole panels; only tiles
 * on and above the diagonal are kept. `panels` is float32[padded][rows].
 */
export function addGram(from: usize, rows: i32, cols: i32, gram: usize, panels: usize): void {
  packColumns(from, rows, cols, panels);
  const padded = padToPanel(cols);
  const stride = <usize>padded << 2;
  const panelBytes = <usize>rows * PANEL_STEP;
  for (let col = 0; col < padded; col += PANEL) {
    const right = panels + <usize>(col >> 3) * panelBytes;
    for (let row = 0; row <= col; row += PANEL) {
      const left = panels + <usize>(row >> 3) * panelBytes;
      multiplyPanels(left, right, rows, gram + <usize>row * stride + (<usize>col << 2), stride, ADD);
    }
  }
}

/** Row `row` of the whole symmetric matrix, times `factor`, to `cols` floats at `to`. */
export function readGramRow(gram: usize, cols: i32, row: i32, factor: f32, to: usize): void {
  const stride = <usize>padToPanel(cols) << 2;
  for (let c = 0; c < cols; ++c) {
    const at = c < row
      ? gram + <usize>c * stride + (<usize>row << 2)
      : gram + <usize>row * stride + (<usize>c << 2);
    store<f32>(to + (<usize>c << 2), load<f32>(at) * factor);
  }
}
