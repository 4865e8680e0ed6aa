/** Rows of X that a convolution multiplies: what its kernel covers at chosen positions of the output (im2col). */

/** Geometry of a convolution, i32 each. */
@unmanaged
class Geometry {
  kernelHeight: i32;
  kernelWidth: i32;
  strideHeight: i32;
  strideWidth: i32;
  padTop: i32;
  padLeft: i32;
  dilationHeight: i32;
  dilationWidth: i32;
  outWidth: i32;
  height: i32;
  width: i32;
}

/**
 * `count` rows at `to`, `rowStride` bytes apart, of `channels` · kernel height · kernel width floats, channel by
 * channel: the inputs under the kernel at `positions` (i32 each, row-major in the output); outside the image zeros.
 * @param image float32[channels][height][width]
 */
export function copyImageRows(
  image: usize, channels: i32, geometry: Geometry, positions: usize, count: i32, to: usize, rowStride: usize,
): void {
  const height = geometry.height, width = geometry.width;
  const kernelHeight = geometry.kernelHeight, kernelWidth = geometry.kernelWidth;
  const channelBytes = <usize>(height * width) << 2;
  for (let k = 0; k < count; ++k) {
    const position = load<i32>(positions + (<usize>k << 2));
    const top = (position / geometry.outWidth) * geometry.strideHeight - geometry.padTop;
    const left = (position % geometry.outWidth) * geometry.strideWidth - geometry.padLeft;
    let at = to + <usize>k * rowStride;
    let channel = image;
    for (let c = 0; c < channels; ++c, channel += channelBytes) {
      for (let i = 0; i < kernelHeight; ++i) {
        const y = top + i * geometry.dilationHeight;
        for (let j = 0; j < kernelWidth; ++j, at += 4) {
          const x = left + j * geometry.dilationWidth;
          const isInside = <u32>y < <u32>height && <u32>x < <u32>width;
          store<f32>(at, isInside ? load<f32>(channel + (<usize>(y * width + x) << 2)) : 0);
        }
      }
    }
  }
}
