/** A graph with other weights, as a model is run after quantization. */
import { ArrowQuantError } from "../errors.js";
import { quoteName } from "../formats/json.js";
import { cloneModel } from "../formats/onnx/edit.js";
import type { ModelProto } from "../formats/onnx/onnx-pb.js";
import type { OnnxFile, OnnxInitializer } from "../formats/onnx/read.js";
import { type InitializerBytes, writeOnnx } from "../formats/onnx/write.js";
import type { GraphLayer } from "./layers.js";
import type { GraphMatch } from "./match.js";
import { convertRows, loadRowKernels, type RowKernels, turnRows } from "./weight-rows.js";

/** New values of a matched tensor. */
export interface WeightReplacement {
  readonly tensorName: string;
  /** The tensor's float32 rows [o, i·kh·kw], in order, in chunks of whole rows; may be called several times. */
  readonly rows: () => AsyncIterable<Uint8Array>;
}

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
  // Initializers are written one after the other.
  const kernels = loadRowKernels();
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
  kernels: RowKernels,
): () => AsyncIterable<Uint8Array> {
  const stored = layer.transposed ? () => turnRows(kernels.turn, tensorName, rows, layer.rows, layer.cols) : rows;
  if (dtype === "F32") return stored;
  if (dtype === "F16" || dtype === "BF16") {
    const [cols, types] = [layer.transposed ? layer.rows : layer.cols, { from: "F32", to: dtype } as const];
    return () => convertRows(kernels.convert, tensorName, stored, cols, types);
  }
  throw new ArrowQuantError("E_DTYPE", `"${file.path}" stores ${quoteName(name)} as ${dtype}, which is not written`, {
    details: { path: file.path, tensor: tensorName, initializer: name, dtype },
  });
}

function notMatched(file: OnnxFile, tensorName: string): ArrowQuantError {
  return new ArrowQuantError("E_GRAPH", `"${file.path}" has no layer with weight ${quoteName(tensorName)}`, {
    details: { path: file.path, tensor: tensorName },
  });
}
