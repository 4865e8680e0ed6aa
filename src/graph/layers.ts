/**
 * The layers of a graph: nodes that multiply an activation by a weight of their own. Weights are followed from
 * their initializer through what exporters put in between (Identity, Cast, Transpose) to the node that uses them.
 * Operators: https://onnx.ai/onnx/operators/
 */
import { ArrowQuantError } from "../errors.js";
import { quoteName } from "../formats/json.js";
import type { OnnxFile, OnnxInitializer } from "../formats/onnx/read.js";
import {
  describeNode,
  followUses,
  indexReaders,
  isQuantizedUse,
  isStandard,
  isStoredTransposed,
  nameOfNode,
  ownTranspositions,
  type WeightUse,
} from "../formats/onnx/weight-uses.js";
import { isFloat } from "../tensor/dtype.js";
import { countElements } from "../tensor/layout.js";
import { type ConvGeometry, readConvGeometry } from "./conv.js";

/** A MatMul, Gemm or Conv node with a constant weight, seen as a matrix [rows, cols] that multiplies its input. */
export interface GraphLayer {
  /** The node's name, or its first output's where it has none. */
  readonly node: string;
  readonly op: "MatMul" | "Gemm" | "Conv";
  readonly initializer: string;
  /** Whether the initializer is stored [cols, rows], that is [in, out]. */
  readonly transposed: boolean;
  /** The value that the weight multiplies. */
  readonly input: string;
  /** The channels' axis of that value: 1 for Conv, else −1 or −2, from the end, as its rank need not be known. */
  readonly channelAxis: number;
  readonly conv: ConvGeometry | null;
  /** Output channels. */
  readonly rows: number;
  /** Input channels times kernel positions; of a grouped convolution those of one group. */
  readonly cols: number;
}

export interface GraphWeights {
  /** In the graph's order. */
  readonly layers: readonly GraphLayer[];
  /** Initializers of two dimensions and more that are no weight of a layer, each with the reason. */
  readonly refused: ReadonlyMap<string, string>;
}

/** Every layer of the main graph. Throws `E_GRAPH` for a graph with quantized weights. */
export function findGraphLayers(file: OnnxFile): readonly GraphLayer[] {
  return findGraphWeights(file).layers;
}

/** The layers, and why the other initializers are none. Throws `E_GRAPH` for a graph with quantized weights. */
export function findGraphWeights(file: OnnxFile): GraphWeights {
  const readers = indexReaders(file.model.graph);
  const found: { readonly order: number; readonly layer: GraphLayer }[] = [];
  const refused = new Map<string, string>();
  const followed = new Set<string>();
  for (const weight of file.initializers.values()) {
    if (weight.shape.length < 2) continue;
    const uses = followUses(weight, readers, followed);
    assertNotQuantized(file, weight, uses);
    const layers = uses.map((use) => ({ order: use.order, layer: readLayer(file, weight, use) }));
    const reason = refusal(
      weight,
      uses,
      layers.map(({ layer }) => layer),
    );
    if (reason === null) found.push(...(layers as typeof found));
    else refused.set(weight.name, reason);
  }
  const layers = found.sort((a, b) => a.order - b.order).map(({ layer }) => layer);
  return { layers, refused };
}

function assertNotQuantized(file: OnnxFile, weight: OnnxInitializer, uses: readonly WeightUse[]): void {
  const use = uses.find(isQuantizedUse);
  if (use === undefined) return;
  const node = nameOfNode(use.node);
  const message =
    `"${file.path}" is quantized already: ` +
    `${use.node.opType} ${quoteName(node)} reads weight ${quoteName(weight.name)}`;
  throw new ArrowQuantError("E_GRAPH", message, {
    hint: "give the graph of the full-precision model",
    details: { path: file.path, initializer: weight.name, node, op: use.node.opType },
  });
}

/** Why an initializer is not, or not only, a layer's weight; null where it is. */
function refusal(
  weight: OnnxInitializer,
  uses: readonly WeightUse[],
  layers: readonly (GraphLayer | string)[],
): string | null {
  if (!isFloat(weight.dtype)) return `it holds ${weight.dtype}, no weights`;
  if (countElements(weight.shape) === 0) return "it is empty";
  if (uses.length === 0) return "no node reads it";
  const reason = layers.find((layer) => typeof layer === "string");
  if (reason !== undefined) return reason;
  const [first, ...others] = layers as readonly GraphLayer[];
  // Square matrices: the shape would not show it.
  const isTurned = others.some(({ transposed, rows }) => transposed !== first?.transposed || rows !== first.rows);
  return isTurned ? "its layers use it both as it is and transposed" : null;
}

/** The layer that a use makes, or why it makes none. */
function readLayer(file: OnnxFile, weight: OnnxInitializer, use: WeightUse): GraphLayer | string {
  const read = isStandard(use.node) && use.operand >= 0 ? LAYER_OPS[use.node.opType] : undefined;
  const layer = read?.(weight, use);
  if (layer === undefined) {
    const reads = use.node.opType === "Gather" ? "looks up its rows (an embedding)" : "reads it";
    return `${describeNode(use.node)} ${reads}`;
  }
  if (typeof layer === "string") return `${layer} (${describeNode(use.node)})`;
  return file.initializers.has(layer.input) ? `it multiplies the constant ${quoteName(layer.input)}` : layer;
}

const LAYER_OPS: Readonly<Record<string, (weight: OnnxInitializer, use: WeightUse) => GraphLayer | string>> = {
  MatMul: readMatrixLayer,
  Gemm: readMatrixLayer,
  Conv: readConvLayer,
};

function readMatrixLayer({ name, shape }: OnnxInitializer, use: WeightUse): GraphLayer | string {
  const { node, operand } = use;
  if (operand > 1) return "it is a bias";
  if (shape.length !== 2) return `it has ${shape.length} dimensions, a matrix has 2`;
  const isB = operand === 1;
  const transposed = isStoredTransposed(use);
  const own = ownTranspositions(node);
  const [first, second] = shape as readonly [number, number];
  const [rows, cols] = transposed ? [second, first] : [first, second];
  const inputAxisIsLast = isB ? !own.a : own.b;
  return {
    node: nameOfNode(node),
    op: node.opType as "MatMul" | "Gemm",
    initializer: name,
    transposed,
    input: node.input[isB ? 0 : 1] ?? "",
    channelAxis: inputAxisIsLast ? -1 : -2,
    conv: null,
    rows,
    cols,
  };
}

function readConvLayer({ name, shape }: OnnxInitializer, { node, operand, swapped }: WeightUse): GraphLayer | string {
  if (operand !== 1 || swapped) return "it is no kernel";
  const conv = readConvGeometry(node, shape);
  if (typeof conv === "string") return conv;
  const [rows, ...kernel] = shape as readonly [number, ...number[]];
  return {
    node: nameOfNode(node),
    op: "Conv",
    initializer: name,
    transposed: false,
    input: node.input[0] ?? "",
    channelAxis: 1,
    conv,
    rows,
    cols: countElements(kernel),
  };
}
