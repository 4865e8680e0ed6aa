/** Largest magnitude of each column. */
import { loadRow } from "./convert";
import { Tile } from "./tile";

/** Raises float32[cols] at `maxima` to the magnitudes of the slab's rows; −1, or the row that cannot be read. */
export function raiseColumnMaxima(tile: Tile, rowCount: i32, maxima: usize): i32 {
  const end = <usize>tile.cols << 2;
  for (let row = 0; row < rowCount; ++row) {
    if (!loadRow(tile, row)) return row;
    let i: usize = 0;
    if (ASC_FEATURE_SIMD) {
      for (; i + 16 <= end; i += 16) {
        const w = f32x4.abs(v128.load(tile.weights + i));
        v128.store(maxima + i, f32x4.pmax(v128.load(maxima + i), w));
      }
    }
    for (; i < end; i += 4) {
      const w = abs(load<f32>(tile.weights + i)), most = load<f32>(maxima + i);
      store<f32>(maxima + i, select<f32>(w, most, w > most));
    }
  }
  return -1;
}
