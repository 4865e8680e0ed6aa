/** The bytes of a quantized layer's parts as a graph holds them, decoded row group by row group of the native file. */
import type { InitializerBytes } from "../formats/onnx/write.js";
import type { NativeFile } from "../formats/parquet/reader.js";
import { countStoredRows, toStoredChunk } from "../formats/parquet/stored.js";
import type { PartTensors, QuantizedWeight } from "../graph/quantized-weight.js";
import { ChunkRebuilder, type DecodedBlocks } from "../kernels/chunk-rebuilder.js";
import type { Kernels } from "../kernels/load.js";
import { packedBytes } from "../tensor/layout.js";

/** Codes that go through the kernels at a time, one a byte. */
const SLAB_CODES = 1024 * 1024;

interface LayerSource {
  readonly native: NativeFile;
  readonly rowGroups: readonly number[];
  readonly kernels: Kernels;
  /** Called with the bytes of codes as they are given out. */
  readonly onBytes: (byteCount: number) => void;
}

/** Scales and zero points of a whole layer, in bytes. */
interface LayerGroups {
  readonly scales: Uint8Array;
  readonly zeroPoints: Uint8Array;
}

/** What `writeOnnx` is to write for each part. Chunks are views that are good until the next one. */
export function layerInitializers(
  source: LayerSource,
  weight: QuantizedWeight,
  parts: PartTensors,
): readonly InitializerBytes[] {
  let groups: Promise<LayerGroups> | null = null;
  const takeGroups = () => (groups ??= readGroups(source, weight));
  return [
    { ...parts.codes, chunks: () => readCodes(source, weight) },
    {
      ...parts.scales,
      async *chunks() {
        yield (await takeGroups()).scales;
      },
    },
    {
      ...parts.zeroPoints,
      async *chunks() {
        yield (await takeGroups()).zeroPoints;
        // The last that is asked for: the memory is free for the next layer.
        groups = null;
      },
    },
  ];
}

async function* readCodes(source: LayerSource, weight: QuantizedWeight): AsyncGenerator<Uint8Array> {
  const { form, cols } = weight;
  // DequantizeLinear's codes have no blocks of their own.
  const blockSize = form.kind === "dequantize-linear" ? cols : form.blockSize;
  for await (const { codes } of readBlocks(source, weight, blockSize)) {
    yield codes;
    source.onBytes(codes.byteLength);
  }
}

async function readGroups(source: LayerSource, weight: QuantizedWeight): Promise<LayerGroups> {
  const { rows, cols, bits, form } = weight;
  const blocks = Math.ceil(cols / form.blockSize);
  const isPacked = form.zeroPoints === "packed";
  const scales = new Float32Array(rows * blocks);
  const zeroPoints = isPacked ? new Uint8Array(rows * blocks) : new Float32Array(rows * blocks);
  let at = 0;
  for await (const decoded of readBlocks(source, weight, form.blockSize)) {
    scales.set(decoded.scales, at);
    zeroPoints.set(isPacked ? decoded.zeroPointBytes : decoded.zeroPoints, at);
    at += decoded.scales.length;
  }
  const bytes = (values: Float32Array | Uint8Array) => new Uint8Array(values.buffer, 0, values.byteLength);
  if (!(zeroPoints instanceof Uint8Array)) return { scales: bytes(scales), zeroPoints: bytes(zeroPoints) };
  // MatMulNBits begins each row on a byte, a tensor of uint4 has no seams.
  const lineCodes = form.kind === "matmul-nbits" ? blocks : rows * blocks;
  return { scales: bytes(scales), zeroPoints: packLines(source.kernels, zeroPoints, lineCodes, bits) };
}

/** Codes, one a byte, packed in lines of `lineCodes` that begin on a byte each. */
function packLines({ arena, exports }: Kernels, codes: Uint8Array, lineCodes: number, bits: number): Uint8Array {
  if (bits === 8) return codes;
  const lineBytes = packedBytes(lineCodes, bits);
  const lines = codes.length / lineCodes;
  const { from, to } = arena.allocateAll({ from: codes.length, to: lines * lineBytes });
  arena.bytes(from, codes.length).set(codes);
  for (let line = 0; line < lines; line++) {
    exports.packRow(from + line * lineCodes, to + line * lineBytes, lineCodes, bits);
  }
  return arena.bytes(to, lines * lineBytes).slice();
}

async function* readBlocks(
  { native, rowGroups, kernels }: LayerSource,
  { tensorName, cols }: QuantizedWeight,
  blockSize: number,
): AsyncGenerator<DecodedBlocks> {
  const slabRows = Math.max(1, Math.floor(SLAB_CODES / cols));
  for await (const row of native.rows({ rowGroups })) {
    if (row.layerName !== tensorName) continue;
    const rows = countStoredRows(row);
    // A plain V2 file holds a tensor of any size in one row.
    for (let firstRow = 0; firstRow < rows; firstRow += slabRows) {
      const rowCount = Math.min(slabRows, rows - firstRow);
      const stored = toStoredChunk(row, { firstRow, rowCount });
      yield new ChunkRebuilder(kernels, stored, { slabRows: rowCount, blockSize }).decodeBlocks(rowCount);
    }
  }
}
