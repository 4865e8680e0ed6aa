/** The graph of the original with a native file's weights in it, and with its activation parameters. */
import { ArrowQuantError } from "../errors.js";
import type { ActivationQuantizer } from "../formats/onnx/activation-quantizer.js";
import { quantizeActivations } from "../formats/onnx/edit.js";
import type { ModelProto } from "../formats/onnx/onnx-pb.js";
import type { OnnxFile } from "../formats/onnx/read.js";
import type { NativeFile, NativeRowHeader } from "../formats/parquet/reader.js";
import type { TimeAwareQuant } from "../formats/parquet/row.js";
import { openSafetensors } from "../formats/safetensors/reader.js";
import type { GraphLayer } from "../graph/layers.js";
import type { GraphMatch } from "../graph/match.js";
import { type WeightReplacement, writeGraphWithWeights } from "../graph/replace.js";
import { readRows } from "../graph/weight-rows.js";
import type { TensorInfo } from "../tensor/info.js";
import { viewAs2d } from "../tensor/layout.js";

/** A quantized layer, and where the graph multiplies with its weight. */
export interface RunLayer {
  readonly row: NativeRowHeader;
  readonly layers: readonly GraphLayer[];
}

export interface RunLayers {
  readonly run: readonly RunLayer[];
  readonly notRun: readonly { readonly name: string; readonly reason: string }[];
}

/**
 * The quantized layers of a native file, divided into those that the graph has and those that it has not.
 * Throws `E_GRAPH` where it has none of them.
 */
export async function divideLayers(native: NativeFile, graph: OnnxFile, match: GraphMatch): Promise<RunLayers> {
  const reasons = new Map(match.unmatched.map(({ tensorName, reason }) => [tensorName, reason]));
  const run: RunLayer[] = [];
  const notRun: { name: string; reason: string }[] = [];
  for await (const row of native.rowHeaders()) {
    if (row.quantType === "none" || row.chunkIndex > 0) continue;
    const matched = match.matched.get(row.layerName);
    if (matched !== undefined) run.push({ row, layers: matched.layers });
    else notRun.push({ name: row.layerName, reason: reasons.get(row.layerName) ?? "not in the graph" });
  }
  if (run.length > 0) return { run, notRun };
  throw new ArrowQuantError("E_GRAPH", `"${graph.path}" has none of the quantized layers of "${native.path}"`, {
    hint: "is it the graph of this model?",
    details: { graph: graph.path, native: native.path, notRun: notRun.slice(0, 10) },
  });
}

/**
 * Writes the graph with the weights of `run`.
 * @param weightsPath the native file exported to float32
 * @param quantizers what is done to activations; empty: nothing
 */
export async function writeQuantizedGraph(
  file: OnnxFile,
  match: GraphMatch,
  run: readonly RunLayer[],
  weightsPath: string,
  quantizers: readonly ActivationQuantizer[],
  outPath: string,
): Promise<void> {
  const { tensors } = await openSafetensors(weightsPath, weightsPath);
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const replacements = run.map(({ row }): WeightReplacement => {
    const { location, shape } = byName.get(row.layerName) as TensorInfo;
    const { byteOffset, byteLength } = location;
    const rowBytes = 4 * viewAs2d(shape).cols;
    const rows = () => readRows({ path: weightsPath, byteOffset, byteLength }, rowBytes);
    return { tensorName: row.layerName, rows };
  });
  const edit = (model: ModelProto) => {
    if (quantizers.length > 0) quantizeActivations(model, quantizers);
  };
  await writeGraphWithWeights(file, match, replacements, outPath, edit);
}

/** The quantizers of activations that the file holds parameters for. */
export function storedQuantizers(run: readonly RunLayer[], timeInput: string): ActivationQuantizer[] {
  return run.flatMap(({ row, layers }) => {
    const { timeAware, spatial } = row;
    if (timeAware === null || !timeAware.enabled || timeAware.timeGroupParams.length === 0) return [];
    const scales = spatial?.equalizationScales ?? new Float32Array(0);
    return layers.map((layer) => ({
      ...placeOf(layer, scales),
      bits: timeAware.activationBits,
      mode: modeOf(timeAware, timeInput),
    }));
  });
}

/** Quantizers that find the range of each token while running. */
export function dynamicQuantizers(run: readonly RunLayer[], bits: number): ActivationQuantizer[] {
  return run.flatMap(({ row, layers }) =>
    layers.map((layer) => ({
      ...placeOf(layer, row.spatial?.equalizationScales ?? new Float32Array(0)),
      bits,
      mode: { kind: "dynamic-token" } as const,
    })),
  );
}

function placeOf(
  { input, node, channelAxis }: GraphLayer,
  scales: Float32Array,
): Pick<ActivationQuantizer, "value" | "consumers" | "smoothing" | "channelAxis"> {
  return { value: input, consumers: [node], smoothing: scales.length === 0 ? null : scales, channelAxis };
}

function modeOf({ timeGroupParams }: TimeAwareQuant, timeInput: string): ActivationQuantizer["mode"] {
  const [only, second] = timeGroupParams;
  if (only !== undefined && second === undefined) {
    return { kind: "static", scale: only.scale, zeroPoint: only.zeroPoint };
  }
  return {
    kind: "time",
    timeInput,
    starts: timeGroupParams.map(({ timeRange }) => timeRange.start),
    scales: Float32Array.from(timeGroupParams, ({ scale }) => scale),
    zeroPoints: Float32Array.from(timeGroupParams, ({ zeroPoint }) => zeroPoint),
  };
}
