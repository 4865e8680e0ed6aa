/** A graph with other weights, as a model is run after quantization. */
import { ArrowQuantError } from "../errors.js";
import { quoteName } from "../formats/json.js";
import { cloneModel } from "../formats/onnx/edit.js";
import type { ModelProto } from "../formats/onnx/onnx-pb.js";
import type { OnnxFile, OnnxInitializer } from "../formats/onnx/read.js";
import { type InitializerBytes, writeOnnx } from "../formats/onnx/write.js";
import { Converter, type OutDtype } from "../kernels/converter.js";
import { type Kernels, loadKernels } from "../kernels/load.js";
import { Transposer } from "../kernels/transposer.js";
import type { GraphLayer } from "./layers.js";
import type { GraphMatch } from "./match.js";

/** New values of a matched tensor. */
export interface WeightReplacement {
  readonly tensorName: string;
  /** The tensor's float32 rows [o, i·kh·kw], in order, in chunks of whole rows; may be called several times. */
  readonly rows: () => AsyncIterable<Uint8Array>;
}

/**
 * Columns of a matrix that are turned at once are held in memory; a larger matrix takes several passes over its
 * rows. Enough for one pass over all but the largest linear layers (4096 × 4096 float32 is 64 MiB).
 */
const BAND_BYTES = 64 * 1024 * 1024;

/** Rows that go through a kernel at a time. */
const SLAB_BYTES = 1024 * 1024;

/**
 * Writes the graph to `outPath`, its weights as external data beside it: those of `replacements` new, in the
 * type and orientation that the graph stores them in, all else as it is. `edit` may change the copy of the graph
 * that is written; it must leave the weights' initializers alone.
 * Throws `E_GRAPH` for a tensor that the match does not have, `E_DTYPE` where the graph stores it as float64 or
 * float8, `E_SHAPE` where the rows are more or fewer than the tensor's, and what `writeOnnx` does.
 */
export async function writeGraphWithWeights(
  file: OnnxFile,
  match: GraphMatch,
  replacements: readonly WeightReplacement[],
  outPath: string,
  edit: (model: ModelProto) => void = () => {},
): Promise<void> {
  const model = cloneModel(file.model);
  edit(model);
  // One instance for each step, whatever is replaced: initializers are written one after the other.
  const kernels = { turn: loadKernels(), convert: loadKernels() };
  const replaced = new Map<string, InitializerBytes>();
  for (const replacement of replacements) {
    const layers = match.matched.get(replacement.tensorName)?.layers;
    if (layers === undefined) throw notMatched(file, replacement.tensorName);
    for (const layer of layers) {
      const initializer = file.initializers.get(layer.initializer) as OnnxInitializer;
      const { name, dtype, shape } = initializer;
      const chunks = chooseChunks(file, replacement, layer, initializer, kernels);
      replaced.set(name, { name, dtype, shape, chunks });
    }
  }
  await writeOnnx(file, { path: outPath, model, replaced, externalData: "always" });
}

/** The weight's bytes as the graph stores it. */
function chooseChunks(
  file: OnnxFile,
  { tensorName, rows }: WeightReplacement,
  layer: GraphLayer,
  { name, dtype }: OnnxInitializer,
  kernels: { readonly turn: Kernels; readonly convert: Kernels },
): () => AsyncIterable<Uint8Array> {
  const stored = layer.transposed ? () => turnRows(kernels.turn, tensorName, rows, layer.rows, layer.cols) : rows;
  if (dtype === "F32") return stored;
  if (dtype === "F16" || dtype === "BF16") {
    return () => convertRows(kernels.convert, tensorName, stored, layer.transposed ? layer.rows : layer.cols, dtype);
  }
  throw new ArrowQuantError("E_DTYPE", `"${file.path}" stores ${quoteName(name)} as ${dtype}, which is not written`, {
    details: { path: file.path, tensor: tensorName, initializer: name, dtype },
  });
}

/** A matrix [rowCount, cols] as [cols, rowCount]. The chunks are views that are good until the next one. */
async function* turnRows(
  kernels: Kernels,
  tensorName: string,
  rows: WeightReplacement["rows"],
  rowCount: number,
  cols: number,
): AsyncGenerator<Uint8Array> {
  const slabRows = countSlabRows(cols);
  const bandCols = Math.min(cols, Math.max(1, Math.floor(BAND_BYTES / (4 * rowCount))));
  const transposer = new Transposer(kernels, { rows: rowCount, cols, slabRows, bandCols });
  for (let firstCol = 0; firstCol < cols; firstCol += bandCols) {
    const colCount = Math.min(bandCols, cols - firstCol);
    let row = 0;
    for await (const slab of cutIntoSlabs(tensorName, rows(), cols, slabRows)) {
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

/** Float32 rows in another type. The chunks are views that are good until the next one. */
async function* convertRows(
  kernels: Kernels,
  tensorName: string,
  rows: WeightReplacement["rows"],
  cols: number,
  outDtype: OutDtype,
): AsyncGenerator<Uint8Array> {
  const slabRows = countSlabRows(cols);
  const converter = new Converter(kernels, { cols, slabRows, sourceDtype: "F32", sourceScale: "none", outDtype });
  for await (const slab of cutIntoSlabs(tensorName, rows(), cols, slabRows)) {
    const slabCount = slab.byteLength / (4 * cols);
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
  cols: number,
  slabRows: number,
): AsyncGenerator<Uint8Array> {
  for await (const chunk of chunks) {
    if (chunk.byteLength % (4 * cols) !== 0) {
      throw new ArrowQuantError(
        "E_INTERNAL",
        `${chunk.byteLength} bytes of ${quoteName(tensorName)} are no whole rows of ${4 * cols}`,
      );
    }
    const slabBytes = 4 * cols * slabRows;
    for (let at = 0; at < chunk.byteLength; at += slabBytes) yield chunk.subarray(at, at + slabBytes);
  }
}

function wrongRows(tensorName: string, found: string, expected: number): ArrowQuantError {
  return new ArrowQuantError("E_SHAPE", `${quoteName(tensorName)} has ${expected} rows, ${found} were given`, {
    details: { tensor: tensorName, rows: expected },
  });
}

function notMatched(file: OnnxFile, tensorName: string): ArrowQuantError {
  return new ArrowQuantError("E_GRAPH", `"${file.path}" has no layer with weight ${quoteName(tensorName)}`, {
    details: { path: file.path, tensor: tensorName },
  });
}
