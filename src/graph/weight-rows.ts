/** Rows of weights on their way from one layout or type to another, slab by slab through the kernels. */
import { ArrowQuantError } from "../errors.js";
import { quoteName } from "../formats/json.js";
import type { OnnxInitializer } from "../formats/onnx/read.js";
import type { TensorPlace } from "../formats/onnx/tensor.js";
import { readExactly, withFile } from "../io/read.js";
import { Converter, type OutDtype } from "../kernels/converter.js";
import { type Kernels, loadKernels } from "../kernels/load.js";
import { Transposer } from "../kernels/transposer.js";
import { DTYPES, type Dtype } from "../tensor/dtype.js";
import type { GraphLayer } from "./layers.js";

/**
 * Columns of a matrix that are turned at once are held in memory; a larger matrix takes several passes over its
 * rows. Enough for one pass over all but the largest linear layers (4096 × 4096 float32 is 64 MiB).
 */
const BAND_BYTES = 64 * 1024 * 1024;

/** Rows that go through a kernel at a time. */
const SLAB_BYTES = 1024 * 1024;

/** Rows of a file are read in pieces of this size. */
const PIECE_BYTES = 4 * 1024 * 1024;

/** The bytes at a place of a file in pieces of whole rows, which share one buffer: each is good until the next one. */
export async function* readRows(
  { path, byteOffset, byteLength }: TensorPlace,
  rowBytes: number,
): AsyncGenerator<Uint8Array> {
  const piece = Buffer.allocUnsafeSlow(Math.max(1, Math.floor(PIECE_BYTES / rowBytes)) * rowBytes);
  for (let at = 0; at < byteLength; at += piece.length) {
    const part = piece.subarray(0, Math.min(piece.length, byteLength - at));
    await withFile(path, (open) => readExactly(open, part, byteOffset + at));
    yield part;
  }
}

/** One instance for each step, whatever goes through them: it does so one after the other. */
export interface RowKernels {
  readonly turn: Kernels;
  readonly convert: Kernels;
}

export function loadRowKernels(): RowKernels {
  return { turn: loadKernels(), convert: loadKernels() };
}

/** The matrix [rows, cols] that a layer multiplies with, as float32, whatever way the graph stores it. */
export async function readLayerWeight(
  kernels: RowKernels,
  { dtype, name, place, bytes }: OnnxInitializer,
  { rows, cols, transposed }: Pick<GraphLayer, "rows" | "cols" | "transposed">,
): Promise<Float32Array> {
  const weight = new Float32Array(rows * cols);
  const [lines, length] = transposed ? [cols, rows] : [rows, cols];
  const stored = () => (place === null ? onlyChunk(bytes) : readRows(place, (length * DTYPES[dtype].bits) / 8));
  const types = { from: dtype, to: "F32" } as const;
  const floats = dtype === "F32" ? stored : () => convertRows(kernels.convert, name, stored, length, types);
  const into = new Uint8Array(weight.buffer);
  let filled = 0;
  for await (const chunk of transposed ? turnRows(kernels.turn, name, floats, lines, length) : floats()) {
    into.set(chunk, filled);
    filled += chunk.byteLength;
  }
  return weight;
}

async function* onlyChunk(bytes: Uint8Array | null): AsyncGenerator<Uint8Array> {
  if (bytes !== null) yield bytes;
}

/** A matrix [rowCount, cols] as [cols, rowCount]. The chunks are views that are good until the next one. */
export async function* turnRows(
  kernels: Kernels,
  tensorName: string,
  rows: () => AsyncIterable<Uint8Array>,
  rowCount: number,
  cols: number,
): AsyncGenerator<Uint8Array> {
  const slabRows = countSlabRows(cols);
  const bandCols = Math.min(cols, Math.max(1, Math.floor(BAND_BYTES / (4 * rowCount))));
  const transposer = new Transposer(kernels, { rows: rowCount, cols, slabRows, bandCols });
  for (let firstCol = 0; firstCol < cols; firstCol += bandCols) {
    const colCount = Math.min(bandCols, cols - firstCol);
    let row = 0;
    for await (const slab of cutIntoSlabs(tensorName, rows(), 4 * cols, slabRows)) {
      const slabCount = slab.byteLength / (4 * cols);
      if (row + slabCount > rowCount) throw wrongRows(tensorName, `more than ${rowCount}`, rowCount);
      transposer.slab(slabCount).set(slab);
      transposer.add(row, slabCount, firstCol, colCount);
      row += slabCount;
    }
    if (row !== rowCount) throw wrongRows(tensorName, String(row), rowCount);
    yield transposer.band(colCount);
  }
}

/** Rows in another type. The chunks are views that are good until the next one. */
export async function* convertRows(
  kernels: Kernels,
  tensorName: string,
  rows: () => AsyncIterable<Uint8Array>,
  cols: number,
  { from: sourceDtype, to: outDtype }: { readonly from: Dtype; readonly to: OutDtype },
): AsyncGenerator<Uint8Array> {
  const slabRows = countSlabRows(cols);
  const rowBytes = (cols * DTYPES[sourceDtype].bits) / 8;
  const converter = new Converter(kernels, { cols, slabRows, sourceDtype, sourceScale: "none", outDtype });
  for await (const slab of cutIntoSlabs(tensorName, rows(), rowBytes, slabRows)) {
    const slabCount = slab.byteLength / rowBytes;
    converter.source(slabCount).set(slab);
    yield converter.convert(slabCount);
  }
}

function countSlabRows(cols: number): number {
  return Math.max(1, Math.floor(SLAB_BYTES / (4 * cols)));
}

async function* cutIntoSlabs(
  tensorName: string,
  chunks: AsyncIterable<Uint8Array>,
  rowBytes: number,
  slabRows: number,
): AsyncGenerator<Uint8Array> {
  for await (const chunk of chunks) {
    if (chunk.byteLength % rowBytes !== 0) {
      throw new ArrowQuantError(
        "E_INTERNAL",
        `${chunk.byteLength} bytes of ${quoteName(tensorName)} are no whole rows of ${rowBytes}`,
      );
    }
    const slabBytes = rowBytes * slabRows;
    for (let at = 0; at < chunk.byteLength; at += slabBytes) yield chunk.subarray(at, at + slabBytes);
  }
}

function wrongRows(tensorName: string, found: string, expected: number): ArrowQuantError {
  return new ArrowQuantError("E_SHAPE", `${quoteName(tensorName)} has ${expected} rows, ${found} were given`, {
    details: { tensor: tensorName, rows: expected },
  });
}
