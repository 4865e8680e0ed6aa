/**
 * A graph that computes in float16: products and what comes after them, with the inputs and outputs that it had. What
 * leads up to the first product (embeddings of the time: its sines need all digits) and operators whose values leave
 * float16's range (squares, sums of them, exponentials) stay in float32, with casts between.
 *
 * The like of onnxconverter-common's float16.py with keep_io_types, by which model_fp16.onnx files are made.
 */
import { create } from "@bufbuild/protobuf";
import { ArrowQuantError } from "../../errors.js";
import { toFloat16Bits } from "../../tensor/float16.js";
import { graphOf } from "./edit.js";
import { findTensor, inferElementTypes } from "./element-types.js";
import { GraphBuilder, integerAttribute } from "./graph-builder.js";
import { type ModelProto, type NodeProto, NodeProtoSchema, type TensorProto, TensorProto_DataType } from "./onnx-pb.js";
import { byteLengthOf, dataTypeOf, isLocated, readInlineBytes } from "./tensor.js";
import { describeNode } from "./weight-uses.js";
import type { InitializerBytes } from "./write.js";

const { FLOAT, FLOAT16 } = TensorProto_DataType;

/** From these on values are float16. */
const PRODUCTS: ReadonlySet<string> = new Set(["MatMul", "Gemm", "Conv", "ConvTranspose", "MatMulNBits", "Einsum"]);

/** Computed in float32 wherever they stand. */
const FULL_PRECISION: ReadonlySet<string> = new Set([
  ...["Pow", "Sqrt", "Reciprocal", "Exp", "Log", "Sin", "Cos", "CumSum", "InstanceNormalization"],
  ...["ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp"],
  // Of these an attribute names the type, or they take no other.
  ...["Constant", "ConstantOfShape", "Cast", "EyeLike", "Range", "Bernoulli"],
  ...["RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike"],
  ...["QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"],
]);

/** Operands that are float32 whatever the others are. */
const FLOAT_OPERANDS: Readonly<Record<string, readonly number[]>> = { Resize: [1, 2], Upsample: [1] };

/** What is finite stays so: masks add the least float32 to what is not to be attended to. */
const LARGEST_HALF = 65504;

/**
 * Turns the graph of `model`, a copy, to float16.
 * @param added initializers that the graph reads and whose bytes are yet to be given
 * @returns names of float32 initializers, of the graph and added ones, whose bytes are to be given as float16
 * @throws E_GRAPH for a graph with subgraphs or with functions of its own
 */
export function convertToHalf(
  model: ModelProto,
  added: readonly Pick<InitializerBytes, "name" | "dtype">[],
): Set<string> {
  const graph = graphOf(model);
  assertFlat(model);
  const types = inferElementTypes(graph);
  for (const { name, dtype } of added) types.set(name, dataTypeOf(dtype));
  const isFloat = (name: string): boolean => types.get(name) === FLOAT;
  const half = findHalfNodes(graph.node);
  const halfValues = new Set([...half].flatMap(({ output }) => output.filter(isFloat)));
  const constants = findConstants(graph.node, half, isFloat);
  // An initializer may be the default of an input, which keeps its type.
  for (const { name } of graph.input) constants.delete(name);
  const given = new Set(added.map(({ name }) => name).filter((name) => constants.has(name)));
  for (const tensor of graph.initializer) {
    if (!constants.has(tensor.name)) continue;
    if (isLocated(tensor)) given.add(tensor.name);
    else convertTensor(tensor);
    halfValues.add(tensor.name);
  }
  for (const name of given) halfValues.add(name);
  for (const node of graph.node) {
    const [name = ""] = node.output;
    const tensor = node.opType === "Constant" && constants.has(name) ? findTensor(node) : undefined;
    if (tensor === undefined || isLocated(tensor)) continue;
    convertTensor(tensor);
    halfValues.add(name);
  }
  const outputs = new Set(graph.output.map(({ name }) => name).filter((name) => halfValues.has(name)));
  const renamed = new Map<string, string>();
  const builder = new GraphBuilder(graph);
  const casts = new Map<string, string>();
  const nodes: NodeProto[] = [];
  const cast = (value: string, to: number): string => {
    const key = `${to} ${value}`;
    const known = casts.get(key);
    if (known !== undefined) return known;
    const output = builder.node("Cast", [value], value, [integerAttribute("to", to)]);
    casts.set(key, output);
    nodes.push(...builder.takeNodes());
    return output;
  };
  for (const node of graph.node) {
    const isHalf = half.has(node);
    node.input = node.input.map((name, operand) => {
      if (!isFloat(name)) return name;
      const wantsHalf = isHalf && !FLOAT_OPERANDS[node.opType]?.includes(operand);
      const value = renamed.get(name) ?? name;
      return wantsHalf === halfValues.has(name) ? value : cast(value, wantsHalf ? FLOAT16 : FLOAT);
    });
    nodes.push(node);
    for (const [index, name] of node.output.entries()) {
      if (!outputs.has(name)) continue;
      // The graph's output keeps its name and type.
      const inner = builder.takeName(`${name}/arrowquant/half`);
      node.output[index] = inner;
      renamed.set(name, inner);
      nodes.push(create(NodeProtoSchema, castNode(`${inner}/Cast`, inner, name)));
    }
  }
  graph.node = nodes;
  graph.valueInfo = graph.valueInfo.filter(({ name }) => !halfValues.has(name));
  return given;
}

function castNode(name: string, input: string, output: string) {
  return { name, opType: "Cast", input: [input], output: [output], attribute: [integerAttribute("to", FLOAT)] };
}

function assertFlat(model: ModelProto): void {
  const outer = graphOf(model).node.find(({ attribute }) =>
    attribute.some(({ g, graphs }) => g !== undefined || graphs.length > 0),
  );
  if (outer === undefined && model.functions.length === 0) return;
  const what = outer === undefined ? "functions of its own" : `a subgraph in ${describeNode(outer)}`;
  throw new ArrowQuantError("E_GRAPH", `the graph has ${what}, which is not turned to float16`, {
    hint: "leave --dtype f16 out",
  });
}

/** Nodes that compute in float16: products, and those after them that may. */
function findHalfNodes(nodes: readonly NodeProto[]): Set<NodeProto> {
  const half = new Set<NodeProto>();
  const after = new Set<string>();
  for (const node of nodes) {
    if (!PRODUCTS.has(node.opType) && !node.input.some((name) => after.has(name))) continue;
    for (const name of node.output) after.add(name);
    if (!FULL_PRECISION.has(node.opType)) half.add(node);
  }
  return half;
}

/** Float32 constants, by name of the value, that only float16 nodes read. */
function findConstants(
  nodes: readonly NodeProto[],
  half: ReadonlySet<NodeProto>,
  isFloat: (name: string) => boolean,
): Set<string> {
  const wanted = new Set<string>();
  const refused = new Set<string>();
  for (const node of nodes) {
    for (const [operand, name] of node.input.entries()) {
      if (!isFloat(name)) continue;
      const takesHalf = half.has(node) && !FLOAT_OPERANDS[node.opType]?.includes(operand);
      (takesHalf ? wanted : refused).add(name);
    }
  }
  return new Set([...wanted].filter((name) => !refused.has(name)));
}

/** Few values: larger payloads are not in memory. */
function convertTensor(tensor: TensorProto): void {
  const bytes = readInlineBytes(tensor, byteLengthOf(tensor) as number);
  const values = new Float32Array(Uint8Array.from(bytes).buffer);
  for (const [index, value] of values.entries()) {
    if (Number.isFinite(value)) values[index] = Math.max(-LARGEST_HALF, Math.min(value, LARGEST_HALF));
  }
  tensor.floatData = [];
  tensor.rawData = new Uint8Array(toFloat16Bits(values).buffer);
  tensor.dataType = FLOAT16;
}
