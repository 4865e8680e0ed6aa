/** Element types of a graph's values, as far as the operators tell. https://onnx.ai/onnx/operators/ */
import { integerAttribute } from "./attribute.js";
import { type GraphProto, type NodeProto, TensorProto_DataType as Type } from "./onnx-pb.js";

/** Operators by the type that all their outputs have, whatever goes in. */
const FIXED: Readonly<Record<string, number>> = {
  ...fixed(Type.INT64, ["Shape", "Size", "NonZero", "ArgMax", "ArgMin"]),
  ...fixed(Type.BOOL, ["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "And", "Or", "Not", "Xor"]),
  ...fixed(Type.BOOL, ["IsNaN", "IsInf"]),
  ...fixed(Type.INT32, ["MatMulInteger", "ConvInteger"]),
};

/** Operators whose outputs have the type of another operand than the first. */
const OPERANDS: Readonly<Record<string, number>> = { Where: 1, OneHot: 2, DequantizeLinear: 1, CastLike: 1 };

/** Operators that name a type in an attribute. */
const ATTRIBUTES: Readonly<Record<string, string>> = {
  Cast: "to",
  EyeLike: "dtype",
  RandomNormal: "dtype",
  RandomUniform: "dtype",
  RandomNormalLike: "dtype",
  RandomUniformLike: "dtype",
  Bernoulli: "dtype",
};

/** Those whose further outputs are of another type than their first. */
const LATER_OUTPUTS: Readonly<Record<string, number>> = { TopK: Type.INT64, MaxPool: Type.INT64, Dropout: Type.BOOL };

function fixed(type: number, opTypes: readonly string[]): Record<string, number> {
  return Object.fromEntries(opTypes.map((opType) => [opType, type]));
}

/** By the name of the value, of the main graph alone; values of operators that are not known may be missing. */
export function inferElementTypes(graph: GraphProto): Map<string, number> {
  const types = new Map<string, number>();
  for (const { name, type } of [...graph.input, ...graph.output, ...graph.valueInfo]) {
    if (type?.value.case === "tensorType") types.set(name, type.value.value.elemType);
  }
  for (const { name, dataType } of graph.initializer) types.set(name, dataType);
  for (const node of graph.node) {
    const first = firstOutputType(node, types);
    for (const [index, name] of node.output.entries()) {
      const type = index === 0 ? first : (LATER_OUTPUTS[node.opType] ?? first);
      if (name !== "" && type !== undefined && !types.has(name)) types.set(name, type);
    }
  }
  return types;
}

function firstOutputType(node: NodeProto, types: ReadonlyMap<string, number>): number | undefined {
  const { opType, input } = node;
  if (opType === "Constant") return constantType(node);
  if (opType === "ConstantOfShape") return findTensor(node)?.dataType ?? Type.FLOAT;
  if (opType === "QuantizeLinear") return types.get(input[2] ?? "") ?? Type.UINT8;
  if (FIXED[opType] !== undefined) return FIXED[opType];
  const inherited = types.get(input[OPERANDS[opType] ?? 0] ?? "");
  const attribute = ATTRIBUTES[opType];
  return attribute === undefined ? inherited : integerAttribute(node, attribute, inherited ?? Type.FLOAT);
}

function constantType(node: NodeProto): number | undefined {
  const tensor = findTensor(node);
  if (tensor !== undefined) return tensor.dataType;
  const names = node.attribute.map(({ name }) => name);
  if (names.some((name) => name === "value_float" || name === "value_floats")) return Type.FLOAT;
  return names.some((name) => name === "value_int" || name === "value_ints") ? Type.INT64 : undefined;
}

/** The tensor in a Constant's or ConstantOfShape's attribute. */
export function findTensor(node: NodeProto) {
  return node.attribute.find(({ name }) => name === "value")?.t;
}
