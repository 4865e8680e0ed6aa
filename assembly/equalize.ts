/** Equalization: each input channel's weights times a scale before quantization, divided by it afterwards. */
import { Tile } from "./tile";

/** A row of floats at `from`, each channel's times its scale, to `to`. */
export function multiplyByScales(tile: Tile, from: usize, to: usize): void {
  const width = tile.colsPerChannel;
  const end = from + (<usize>tile.cols << 2);
  let scale = tile.equalizationScales;
  if (ASC_FEATURE_SIMD) {
    if (width == 1) {
      for (const last = end - 16; from <= last; from += 16, to += 16, scale += 16) {
        v128.store(to, f32x4.mul(v128.load(from), v128.load(scale)));
      }
    }
  }
  for (; from < end; scale += 4) {
    const factor = load<f32>(scale);
    for (let i = 0; i < width; ++i, from += 4, to += 4) store<f32>(to, load<f32>(from) * factor);
  }
}

/** Divides `tile.rebuilt` by the scale of each input channel, where there are any. */
export function divideByScales(tile: Tile): void {
  if (tile.equalizationScales == 0) return;
  const width = tile.colsPerChannel;
  let at = tile.rebuilt;
  const end = at + (<usize>tile.cols << 2);
  let scale = tile.equalizationScales;
  if (ASC_FEATURE_SIMD) {
    if (width == 1) {
      for (const last = end - 16; at <= last; at += 16, scale += 16) {
        v128.store(at, f32x4.div(v128.load(at), v128.load(scale)));
      }
    }
  }
  for (; at < end; scale += 4) {
    const divisor = load<f32>(scale);
    for (let i = 0; i < width; ++i, at += 4) store<f32>(at, load<f32>(at) / divisor);
  }
}
