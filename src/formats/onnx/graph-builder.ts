/** New nodes and constants for a graph, under names that nothing in it has. */
import { create } from "@bufbuild/protobuf";
import {
  type AttributeProto,
  AttributeProto_AttributeType,
  AttributeProtoSchema,
  type GraphProto,
  type NodeProto,
  NodeProtoSchema,
  TensorProto_DataType,
  TensorProtoSchema,
} from "./onnx-pb.js";

/** Constants by element type, as their typed arrays hold them (little-endian, as every platform of Node is). */
const CONSTANT_TYPES = {
  float: TensorProto_DataType.FLOAT,
  double: TensorProto_DataType.DOUBLE,
  uint8: TensorProto_DataType.UINT8,
  int64: TensorProto_DataType.INT64,
} as const;

type Constant =
  | { readonly type: "float"; readonly values: Float32Array }
  | { readonly type: "double"; readonly values: Float64Array }
  | { readonly type: "uint8"; readonly values: Uint8Array }
  | { readonly type: "int64"; readonly values: BigInt64Array };

export class GraphBuilder {
  readonly #graph: GraphProto;
  readonly #names: Set<string>;
  readonly #constants = new Map<string, string>();
  #nodes: NodeProto[] = [];

  constructor(graph: GraphProto) {
    this.#graph = graph;
    this.#names = namesOf(graph);
  }

  /** A name that begins with `wish` and is taken from now on. */
  takeName(wish: string): string {
    let name = wish;
    for (let count = 2; this.#names.has(name); count++) name = `${wish}_${count}`;
    this.#names.add(name);
    return name;
  }

  /** An initializer of `shape` (default: scalar); equal ones are one. Returns its name. */
  constant({ type, values }: Constant, shape: readonly number[] = []): string {
    const bytes = Buffer.from(values.buffer, values.byteOffset, values.byteLength);
    const key = `${type} [${shape}] ${bytes.toString("latin1")}`;
    const known = this.#constants.get(key);
    if (known !== undefined) return known;
    const name = this.takeName(`arrowquant/${type}`);
    const dataType = CONSTANT_TYPES[type];
    const tensor = { name, dataType, dims: shape.map(BigInt), rawData: Uint8Array.from(bytes) };
    this.#graph.initializer.push(create(TensorProtoSchema, tensor));
    this.#constants.set(key, name);
    return name;
  }

  /** A node of one output, named after `about` and its operator. Returns the output's name. */
  node(opType: string, input: readonly string[], about: string, attribute: readonly AttributeProto[] = []): string {
    const name = this.takeName(`${about}/arrowquant/${opType}`);
    const output = this.takeName(`${name}_output`);
    this.#nodes.push(
      create(NodeProtoSchema, { name, opType, input: [...input], output: [output], attribute: [...attribute] }),
    );
    return output;
  }

  /** The nodes made since the last call, in order. */
  takeNodes(): NodeProto[] {
    const nodes = this.#nodes;
    this.#nodes = [];
    return nodes;
  }
}

export function integerAttribute(name: string, value: number): AttributeProto {
  const type = AttributeProto_AttributeType.INT;
  return create(AttributeProtoSchema, { name, type, i: BigInt(value) });
}

export function integersAttribute(name: string, values: readonly number[]): AttributeProto {
  const type = AttributeProto_AttributeType.INTS;
  return create(AttributeProtoSchema, { name, type, ints: values.map(BigInt) });
}

export function textAttribute(name: string, value: string): AttributeProto {
  const type = AttributeProto_AttributeType.STRING;
  return create(AttributeProtoSchema, { name, type, s: Uint8Array.from(Buffer.from(value, "utf8")) });
}

/** Names of values and nodes, those within subgraphs too: an inner name may not hide an outer one. */
function namesOf(graph: GraphProto): Set<string> {
  const names = new Set<string>();
  const open = [graph];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    for (const { name } of [...next.input, ...next.initializer, ...next.valueInfo]) names.add(name);
    for (const node of next.node) {
      names.add(node.name);
      for (const output of node.output) names.add(output);
      for (const { g, graphs } of node.attribute) open.push(...(g === undefined ? graphs : [g, ...graphs]));
    }
  }
  return names;
}
