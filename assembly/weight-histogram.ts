/** Range of a tensor's weights, then how many lie in each of equal bins of it. */
import { loadRow } from "./convert";
import { Tile } from "./tile";

/** Widens float32[2], least and largest, by the slab's rows; −1, or the row that cannot be read. */
export function widenWeightRange(tile: Tile, rowCount: i32, range: usize): i32 {
  let least = load<f32>(range), largest = load<f32>(range, 4);
  const end = tile.weights + (<usize>tile.cols << 2);
  for (let row = 0; row < rowCount; ++row) {
    if (!loadRow(tile, row)) return row;
    for (let at = tile.weights; at < end; at += 4) {
      const w = load<f32>(at);
      least = min<f32>(least, w);
      largest = max<f32>(largest, w);
    }
  }
  store<f32>(range, least);
  store<f32>(range, largest, 4);
  return -1;
}

/**
 * Adds the slab's weights to i64[bins]: weight w falls in bin ⌊(w − least)·factor⌋, the largest in the last.
 * One outside the range, of a file that has changed since, falls in the nearest. −1, or the row that cannot be read.
 */
export function countWeights(tile: Tile, rowCount: i32, counts: usize, bins: i32, least: f64, factor: f64): i32 {
  const end = tile.weights + (<usize>tile.cols << 2);
  for (let row = 0; row < rowCount; ++row) {
    if (!loadRow(tile, row)) return row;
    for (let at = tile.weights; at < end; at += 4) {
      const bin = max<i32>(0, min<i32>(<i32>((<f64>load<f32>(at) - least) * factor), bins - 1));
      const count = counts + (<usize>bin << 3);
      store<i64>(count, load<i64>(count) + 1);
    }
  }
  return -1;
}
