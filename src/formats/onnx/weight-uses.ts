/**
 * What a graph does with its initializers: each is followed through what exporters put in between (Identity, Cast,
 * Transpose) to the nodes that use it. Operators: https://onnx.ai/onnx/operators/
 */
import { quoteName } from "../json.js";
import { integerAttribute, integersAttribute } from "./attribute.js";
import type { GraphProto, NodeProto } from "./onnx-pb.js";

/** A node that reads a value: directly, or (operand −1) within one of its subgraphs. */
interface Reader {
  readonly node: NodeProto;
  /** Place of the node in its graph. */
  readonly order: number;
  readonly operand: number;
}

/** By the name of the value. */
export type Readers = ReadonlyMap<string, readonly Reader[]>;

/** A use of a weight; `swapped` where an odd number of transpositions lies in between. */
export interface WeightUse extends Reader {
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

/** Whether a node is one of ONNX's own operators, not one of the same name in another domain. */
export function isStandard(node: NodeProto): boolean {
  return ONNX_DOMAINS.includes(node.domain);
}

/** Whether a use says that the weight holds codes of a quantized one. */
export function isQuantizedUse({ node }: WeightUse): boolean {
  return QUANTIZED_OPS.has(node.opType);
}

/** Readers of a graph's values among its own nodes; those in subgraphs count as reads of the node around them. */
export function indexReaders(graph: GraphProto | undefined): Readers {
  const readers = new Map<string, Reader[]>();
  for (const [order, node] of (graph?.node ?? []).entries()) {
    addReader(readers, node, order);
    for (const name of new Set(subgraphsOf(node).flatMap(listReadNames))) {
      add(readers, name, { node, order, operand: -1 });
    }
  }
  return readers;
}

/** Readers among all nodes, those of subgraphs too: names are unique over a graph and those around it. */
export function indexAllReaders(graph: GraphProto | undefined): Readers {
  const readers = new Map<string, Reader[]>();
  const visit = (nodes: readonly NodeProto[]): void => {
    for (const [order, node] of nodes.entries()) {
      addReader(readers, node, order);
      for (const subgraph of subgraphsOf(node)) visit(subgraph.node);
    }
  };
  visit(graph?.node ?? []);
  return readers;
}

function addReader(readers: Map<string, Reader[]>, node: NodeProto, order: number): void {
  for (const [operand, name] of node.input.entries()) add(readers, name, { node, order, operand });
}

function add(readers: Map<string, Reader[]>, name: string, reader: Reader): void {
  const known = readers.get(name);
  if (known === undefined) readers.set(name, [reader]);
  else known.push(reader);
}

function subgraphsOf(node: NodeProto): GraphProto[] {
  return node.attribute.flatMap(({ g, graphs }) => (g === undefined ? graphs : [g, ...graphs]));
}

/** Names that nodes within read, from inside or from the graph around. */
function listReadNames(graph: GraphProto): string[] {
  return graph.node.flatMap((node) => [...node.input, ...subgraphsOf(node).flatMap(listReadNames)]);
}

/**
 * The nodes that use a weight.
 * @param followed values that were reached before: a graph that is no such, with a cycle in it, ends here too
 */
export function followUses(
  { name, shape }: { readonly name: string; readonly shape: readonly number[] },
  readers: Readers,
  followed: Set<string>,
): WeightUse[] {
  const uses: WeightUse[] = [];
  const open = [{ value: name, swapped: false }];
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    if (followed.has(at.value)) continue;
    followed.add(at.value);
    for (const reader of readers.get(at.value) ?? []) {
      const swaps = passesThrough(reader, shape.length);
      const output = reader.node.output[0];
      if (swaps === null || output === undefined) uses.push({ ...reader, swapped: at.swapped });
      else open.push({ value: output, swapped: at.swapped !== swaps });
    }
  }
  return uses;
}

/** Whether what comes out is the transpose of what goes in; null where it is something else altogether. */
function passesThrough({ node, operand }: Reader, rank: number): boolean | null {
  if (!isStandard(node) || operand !== 0) return null;
  if (node.opType === "Identity" || node.opType === "Cast") return false;
  if (node.opType !== "Transpose" || rank !== 2) return null;
  return (integersAttribute(node, "perm") ?? [1, 0])[0] === 1;
}

/** Which of its two matrices a MatMul or Gemm transposes itself. */
export function ownTranspositions(node: NodeProto): { readonly a: boolean; readonly b: boolean } {
  if (node.opType !== "Gemm") return { a: false, b: false };
  return { a: integerAttribute(node, "transA", 0) !== 0, b: integerAttribute(node, "transB", 0) !== 0 };
}

/**
 * Whether a matrix that a MatMul or Gemm multiplies is stored [in, out]. Y = A·B after the node's own transpositions:
 * a weight B is [in, out], a weight A is [out, in].
 */
export function isStoredTransposed({ node, operand, swapped }: WeightUse): boolean {
  const { a, b } = ownTranspositions(node);
  const isB = operand === 1;
  const isSwapped = swapped !== (isB ? b : a);
  // As stored: B is [in, out] unless it is swapped on its way into the product, A where it is.
  return isB ? !isSwapped : isSwapped;
}

/** `MatMul "/blocks.0/attn/to_q/MatMul"` */
export function describeNode(node: NodeProto): string {
  return `${node.opType} ${quoteName(nameOfNode(node))}`;
}

/** Names of nodes are optional, those of values are not. */
export function nameOfNode(node: NodeProto): string {
  return node.name !== "" ? node.name : (node.output[0] ?? "");
}

/** The parameter that torch's exporter names by a node: `/blocks.0/attn/to_q/MatMul` multiplies its weight. */
export function parameterOfPath(nodeName: string): string {
  return [...nodeName.split("/").slice(0, -1), "weight"].filter((segment) => segment !== "").join(".");
}
