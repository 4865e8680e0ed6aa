/**
 * The layers of a graph: nodes that multiply an activation by a weight of their own. Weights are followed from
 * their initializer through what exporters put in between (Identity, Cast, Transpose) to the node that uses them.
 * Operators: https://onnx.ai/onnx/operators/
 */
import { ArrowQuantError } from "../errors.js";
import { quoteName } from "../formats/json.js";
import type { GraphProto, NodeProto } from "../formats/onnx/onnx-pb.js";
import type { OnnxFile, OnnxInitializer } from "../formats/onnx/read.js";
import { isFloat } from "../tensor/dtype.js";
import { countElements } from "../tensor/layout.js";
import { integerAttribute, integersAttribute } from "./attribute.js";
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

/** A node that reads a value: directly, or (operand −1) within one of its subgraphs. */
interface Reader {
  readonly node: NodeProto;
  readonly order: number;
  readonly operand: number;
}

/** A use of a weight; `swapped` where an odd number of transpositions lies in between. */
interface WeightUse extends Reader {
  readonly swapped: boolean;
}

const ONNX_DOMAINS: readonly string[] = ["", "ai.onnx"];

/** Operators on weights that are quantized already. The last three are ONNX Runtime's own. */
const QUANTIZED_OPS: ReadonlySet<string> = new Set([
  "DequantizeLinear",
  "QLinearMatMul",
  "QLinearConv",
  "MatMulInteger",
  "ConvInteger",
  "MatMulNBits",
  "DynamicQuantizeMatMul",
  "MatMulIntegerToFloat",
]);

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

function indexReaders(graph: GraphProto | undefined): ReadonlyMap<string, readonly Reader[]> {
  const readers = new Map<string, Reader[]>();
  const add = (name: string, reader: Reader): void => {
    const known = readers.get(name);
    if (known === undefined) readers.set(name, [reader]);
    else known.push(reader);
  };
  for (const [order, node] of (graph?.node ?? []).entries()) {
    for (const [operand, name] of node.input.entries()) add(name, { node, order, operand });
    for (const name of new Set(subgraphsOf(node).flatMap(listReadNames))) add(name, { node, order, operand: -1 });
  }
  return readers;
}

function subgraphsOf(node: NodeProto): GraphProto[] {
  return node.attribute.flatMap(({ g, graphs }) => (g === undefined ? graphs : [g, ...graphs]));
}

/** Names that nodes within read, from inside or from the graph around: names are unique over both. */
function listReadNames(graph: GraphProto): string[] {
  return graph.node.flatMap((node) => [...node.input, ...subgraphsOf(node).flatMap(listReadNames)]);
}

/** `followed` keeps values that were reached before: a graph that is no such, with a cycle in it, ends here too. */
function followUses(
  weight: OnnxInitializer,
  readers: ReadonlyMap<string, readonly Reader[]>,
  followed: Set<string>,
): WeightUse[] {
  const uses: WeightUse[] = [];
  const open = [{ value: weight.name, swapped: false }];
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    if (followed.has(at.value)) continue;
    followed.add(at.value);
    for (const reader of readers.get(at.value) ?? []) {
      const swaps = passesThrough(reader, weight.shape.length);
      const output = reader.node.output[0];
      if (swaps === null || output === undefined) uses.push({ ...reader, swapped: at.swapped });
      else open.push({ value: output, swapped: at.swapped !== swaps });
    }
  }
  return uses;
}

/** Whether what comes out is the transpose of what goes in; null where it is something else altogether. */
function passesThrough({ node, operand }: Reader, rank: number): boolean | null {
  if (!ONNX_DOMAINS.includes(node.domain) || operand !== 0) return null;
  if (node.opType === "Identity" || node.opType === "Cast") return false;
  if (node.opType !== "Transpose" || rank !== 2) return null;
  return (integersAttribute(node, "perm") ?? [1, 0])[0] === 1;
}

function assertNotQuantized(file: OnnxFile, weight: OnnxInitializer, uses: readonly WeightUse[]): void {
  const use = uses.find(({ node }) => QUANTIZED_OPS.has(node.opType));
  if (use === undefined) return;
  const node = nameOf(use.node);
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
  const read = ONNX_DOMAINS.includes(use.node.domain) && use.operand >= 0 ? LAYER_OPS[use.node.opType] : undefined;
  const layer = read?.(weight, use);
  if (layer === undefined) {
    const reads = use.node.opType === "Gather" ? "looks up its rows (an embedding)" : "reads it";
    return `${describeNode(use.node)} ${reads}`;
  }
  if (typeof layer === "string") return `${layer} (${describeNode(use.node)})`;
  return file.initializers.has(layer.input) ? `it multiplies the constant ${quoteName(layer.input)}` : layer;
}

const LAYER_OPS: Readonly<Record<string, (weight: OnnxInitializer, use: WeightUse) => GraphLayer | string>> = {
  MatMul: (weight, use) => readMatrixLayer(weight, use, false, false),
  Gemm: (weight, use) =>
    readMatrixLayer(
      weight,
      use,
      integerAttribute(use.node, "transA", 0) !== 0,
      integerAttribute(use.node, "transB", 0) !== 0,
    ),
  Conv: readConvLayer,
};

/** Y = A·B after the node's own transpositions: a weight B is [in, out], a weight A is [out, in]. */
function readMatrixLayer(
  { name, shape }: OnnxInitializer,
  { node, operand, swapped }: WeightUse,
  transA: boolean,
  transB: boolean,
): GraphLayer | string {
  if (operand > 1) return "it is a bias";
  if (shape.length !== 2) return `it has ${shape.length} dimensions, a matrix has 2`;
  const isB = operand === 1;
  const isSwapped = swapped !== (isB ? transB : transA);
  // As stored: B is [in, out] unless it is swapped on its way into the product, A where it is.
  const transposed = isB ? !isSwapped : isSwapped;
  const [first, second] = shape as readonly [number, number];
  const [rows, cols] = transposed ? [second, first] : [first, second];
  const inputAxisIsLast = isB ? !transA : transB;
  return {
    node: nameOf(node),
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
    node: nameOf(node),
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

function describeNode(node: NodeProto): string {
  return `${node.opType} ${quoteName(nameOf(node))}`;
}

/** Names of nodes are optional, those of values are not. */
function nameOf(node: NodeProto): string {
  return node.name !== "" ? node.name : (node.output[0] ?? "");
}
