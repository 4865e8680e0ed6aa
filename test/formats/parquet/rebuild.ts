/**
 * The rebuilding of FORMAT.md in plain JavaScript, one float32 operation at a time: slow, and nothing but the
 * text.
 */
import type { StoredChunk } from "../../../dist/tensor/stored.js";

function codeAt(codes: Uint8Array, rowBytes: number, row: number, index: number, bits: number): number {
  let code = 0;
  for (let bit = 0; bit < bits; bit++) {
    const at = index * bits + bit;
    const byte = codes[row * rowBytes + (at >> 3)] as number;
    code |= ((byte >> (at & 7)) & 1) << bit;
  }
  return code;
}

function packedRowBytes(count: number, bits: number): number {
  return Math.ceil((count * bits) / 8);
}

export function rebuildChunk(chunk: StoredChunk): Float32Array {
  const { rows, cols, bits, storageBits, groupSize, superGroupSize, scaleBits, zeroPointBits } = chunk;
  const groups = Math.ceil(cols / groupSize);
  const supers = superGroupSize === null ? groups : Math.ceil(cols / superGroupSize);
  const rebuilt = new Float32Array(rows * cols);
  for (let row = 0; row < rows; row++) {
    for (let col = 0; col < cols; col++) {
      const group = Math.floor(col / groupSize);
      const at = row * groups + group;
      const superScale =
        chunk.scales[row * supers + (superGroupSize === null ? group : Math.floor(col / superGroupSize))];
      const coded = (codes: Uint8Array | null) =>
        Math.fround(
          (superScale as number) *
            codeAt(codes as Uint8Array, packedRowBytes(groups, scaleBits as number), row, group, scaleBits as number),
        );
      const scale = scaleBits === null ? (superScale as number) : coded(chunk.scaleCodes);
      const q = codeAt(chunk.data, packedRowBytes(cols, storageBits), row, col, storageBits);
      let weight: number;
      if (chunk.isR2q) {
        const residual = coded(chunk.residualScaleCodes);
        weight = Math.fround(Math.fround(scale * (2 * (q >> 1) - 1)) + Math.fround(residual * (2 * (q & 1) - 1)));
      } else {
        let zeroPoint = 2 ** (bits - 1);
        if (zeroPointBits !== null) {
          const step = Math.fround((2 ** bits - 1) / (2 ** zeroPointBits - 1));
          const codes = chunk.zeroPointCodes as Uint8Array;
          const code = codeAt(codes, packedRowBytes(groups, zeroPointBits), row, group, zeroPointBits);
          zeroPoint = Math.fround(code * step);
        } else if (chunk.zeroPoints !== null) zeroPoint = chunk.zeroPoints[at] as number;
        weight = Math.fround(Math.fround(q - zeroPoint) * scale);
      }
      if (chunk.equalizationScales !== null) {
        const channel = Math.floor(col / (cols / chunk.equalizationScales.length));
        weight = Math.fround(weight / (chunk.equalizationScales[channel] as number));
      }
      rebuilt[row * cols + col] = weight;
    }
  }
  return rebuilt;
}
