/**
 * Stored parts in the layout of block-quantized ONNX tensors: codes packed block by block along each row, a decoded
 * float32 scale and zero point for each block.
 */
import { packRow, packedBytes } from "./pack";
import { decodeRow } from "./rebuild";
import { Tile } from "./tile";

/**
 * The next `rowCount` stored rows. Blocks have `blockSize` columns, which divides the group size unless there is one
 * block a row; every block starts on a byte, and the last of a row is filled up with code 0.
 * `codes` u8[rows][blocks][ceil(blockSize · bits / 8)], `scales` and `zeroPoints` float32[rows][blocks],
 * `zeroPointBytes` u8[rows][blocks], good where the zero points are whole.
 */
export function decodeBlocks(
  tile: Tile,
  rowCount: i32,
  blockSize: i32,
  codes: usize,
  scales: usize,
  zeroPoints: usize,
  zeroPointBytes: usize,
): void {
  const blockCount = (tile.cols + blockSize - 1) / blockSize;
  const blockBytes = packedBytes(blockSize, tile.bits);
  // Where blocks end on a byte a row of them is packed like a row without any.
  const isSeamless = ((blockSize * tile.bits) & 7) == 0;
  for (let row = 0; row < rowCount; ++row) {
    decodeRow(tile);
    if (isSeamless) {
      const used = packedBytes(tile.cols, tile.bits);
      packRow(tile.codes, codes, tile.cols, tile.bits);
      memory.fill(codes + used, 0, blockCount * blockBytes - used);
      codes += blockCount * blockBytes;
    }
    for (let block = 0; block < blockCount; ++block) {
      const first = block * blockSize;
      if (!isSeamless) {
        packRow(tile.codes + first, codes, min<i32>(blockSize, tile.cols - first), tile.bits);
        const used = packedBytes(min<i32>(blockSize, tile.cols - first), tile.bits);
        memory.fill(codes + used, 0, blockBytes - used);
        codes += blockBytes;
      }
      const group = first / tile.groupSize;
      const zeroPoint = load<f32>(tile.zeroPoints + (group << 2));
      store<f32>(scales, load<f32>(tile.scales + (group << 2)));
      store<f32>(zeroPoints, zeroPoint);
      store<u8>(zeroPointBytes++, <u8>max<f32>(0, min<f32>(255, zeroPoint)));
      scales += 4;
      zeroPoints += 4;
    }
  }
}
