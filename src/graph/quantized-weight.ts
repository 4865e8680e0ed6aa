/**
 * Quantized weights as parts of a graph: codes, scales and zero points in place of an initializer, and the nodes that
 * multiply with them or turn them back. Every form gives the weights of FORMAT.md ("Rebuilding") to the bit.
 *
 * MatMulNBits: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#commicrosoftmatmulnbits
 * DequantizeLinear: https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html
 */
import { create } from "@bufbuild/protobuf";
import { ArrowQuantError } from "../errors.js";
import { quoteName } from "../formats/json.js";
import { integerAttribute as readInteger } from "../formats/onnx/attribute.js";
import { graphOf, IR_VERSION_OF_CONSTANTS } from "../formats/onnx/edit.js";
import { GraphBuilder, integerAttribute, integersAttribute, textAttribute } from "../formats/onnx/graph-builder.js";
import {
  type GraphProto,
  type ModelProto,
  type NodeProto,
  OperatorSetIdProtoSchema,
  TensorProto_DataType,
} from "../formats/onnx/onnx-pb.js";
import type { OnnxInitializer } from "../formats/onnx/read.js";
import type { InitializerBytes } from "../formats/onnx/write.js";
import type { Dtype } from "../tensor/dtype.js";
import { packedBytes } from "../tensor/layout.js";
import type { GraphLayer } from "./layers.js";

export type QuantizedForm =
  /** One node for the product. Blocks are powers of two of columns. */
  | { readonly kind: "matmul-nbits"; readonly blockSize: number; readonly zeroPoints: "packed" | "float32" }
  /** Whole zero points only; uint8, or uint4 where rows have a whole number of bytes. */
  | { readonly kind: "dequantize-linear"; readonly blockSize: number; readonly zeroPoints: "packed" }
  /** Shifts, a subtraction and a product: any width and zero point. */
  | { readonly kind: "arithmetic"; readonly blockSize: number; readonly zeroPoints: "float32" };

export interface QuantizedWeight {
  readonly tensorName: string;
  /** Of all layers below. */
  readonly rows: number;
  readonly cols: number;
  /** 2, 4 or 8. */
  readonly bits: number;
  readonly form: QuantizedForm;
  /** What each input channel's weights are divided by. */
  readonly equalizationScales: Float32Array | null;
  /** Several where the exporter has copied the weight. */
  readonly initializers: readonly {
    readonly initializer: OnnxInitializer;
    readonly layers: readonly GraphLayer[];
  }[];
}

/** Names, types and shapes of a weight's parts. */
export type PartTensors = Readonly<Record<"codes" | "scales" | "zeroPoints", Omit<InitializerBytes, "chunks">>>;

/** Columns of a MatMulNBits block: least by its schema, most by ONNX Runtime's CPU kernel. */
export const MATMUL_BLOCK = { least: 16, most: 256 } as const;

const MICROSOFT_DOMAIN = "com.microsoft";

/** Products in float32; 4 would round activations to 8 bits. */
const ACCURACY_LEVEL = 1;

const DATA_TYPES: Readonly<Partial<Record<Dtype, number>>> = {
  F32: TensorProto_DataType.FLOAT,
  F16: TensorProto_DataType.FLOAT16,
  BF16: TensorProto_DataType.BFLOAT16,
};

/** Operators that hand a weight on. */
const PASSED_BY: ReadonlySet<string> = new Set(["Identity", "Transpose"]);

/** Whether MatMulNBits computes what the node does with the weight, but for a bias. */
export function canBeMatMulNBits(model: ModelProto, layer: GraphLayer, { name, dtype }: OnnxInitializer): boolean {
  const graph = graphOf(model);
  const node = findNode(graph, layer);
  if (dtype !== "F32" || layer.op === "Conv" || layer.channelAxis !== -1 || node.input[0] !== layer.input) return false;
  if (layer.op === "Gemm") {
    const factor = (name: string) => node.attribute.find((attribute) => attribute.name === name)?.f ?? 1;
    if (readInteger(node, "transA", 0) !== 0 || factor("alpha") !== 1) return false;
    if ((node.input[2] ?? "") !== "" && factor("beta") !== 1) return false;
  }
  // A Cast on the way would change the type that the product is computed in.
  let value = node.input[1];
  while (value !== name) {
    const producer = graph.node.find(({ output }) => output[0] === value);
    if (producer === undefined || !PASSED_BY.has(producer.opType)) return false;
    value = producer.input[0];
  }
  return true;
}

/**
 * Puts weights into a copy of a graph, in place of their initializers, whose bytes are then to be given under the names
 * returned, by tensor name.
 * Throws `E_DTYPE` where the graph holds a weight as float64 or float8, `E_GRAPH` where it is not in the main graph.
 */
export function placeQuantizedWeights(
  model: ModelProto,
  weights: readonly QuantizedWeight[],
): ReadonlyMap<string, PartTensors> {
  const graph = graphOf(model);
  const builder = new GraphBuilder(graph);
  const placed = new Map<string, PartTensors>();
  const leading: NodeProto[] = [];
  const around = new Map<NodeProto, { before: NodeProto[]; after: NodeProto[] }>();
  const dropped = new Set<string>();
  for (const weight of weights) {
    const parts = nameParts(weight, builder);
    placed.set(weight.tensorName, parts);
    for (const { initializer, layers } of weight.initializers) {
      if (!graph.initializer.some(({ name }) => name === initializer.name)) throw notInMainGraph(initializer.name);
      if (weight.form.kind === "matmul-nbits") {
        dropped.add(initializer.name);
        for (const layer of layers) {
          const node = findNode(graph, layer);
          around.set(node, toMatMulNBits(node, weight, parts, builder));
        }
      } else {
        leading.push(...rebuildWeight(weight, initializer, layers[0]?.transposed ?? false, parts, builder));
      }
    }
  }
  const replaced = new Set(
    weights.flatMap(({ initializers }) => initializers.map(({ initializer: { name } }) => name)),
  );
  for (const key of ["initializer", "input", "valueInfo"] as const) {
    graph[key] = (graph[key] as { name: string }[]).filter(({ name }) => !replaced.has(name)) as never;
  }
  dropReaders(graph, dropped);
  graph.node = [
    ...leading,
    ...graph.node.flatMap((node) => {
      const { before, after } = around.get(node) ?? { before: [], after: [] };
      return [...before, node, ...after];
    }),
  ];
  if (around.size > 0 && !model.opsetImport.some(({ domain }) => domain === MICROSOFT_DOMAIN)) {
    model.opsetImport.push(create(OperatorSetIdProtoSchema, { domain: MICROSOFT_DOMAIN, version: 1n }));
  }
  if (model.irVersion < IR_VERSION_OF_CONSTANTS) model.irVersion = IR_VERSION_OF_CONSTANTS;
  return placed;
}

function nameParts({ bits, rows, cols, form, initializers }: QuantizedWeight, builder: GraphBuilder): PartTensors {
  const name = initializers[0]?.initializer.name ?? "";
  const blocks = Math.ceil(cols / form.blockSize);
  const blockBytes = packedBytes(form.blockSize, bits);
  const part = (ending: string, dtype: InitializerBytes["dtype"], shape: readonly number[]) => ({
    name: builder.takeName(`${name}_${ending}`),
    dtype,
    shape,
  });
  switch (form.kind) {
    case "matmul-nbits":
      return {
        codes: part(`Q${bits}`, "U8", [rows, blocks, blockBytes]),
        // Of one dimension: older runtimes take no other.
        scales: part("scales", "F32", [rows * blocks]),
        zeroPoints:
          form.zeroPoints === "packed"
            ? part("zero_points", "U8", [rows * packedBytes(blocks, bits)])
            : part("zero_points", "F32", [rows * blocks]),
      };
    case "dequantize-linear": {
      const dtype = bits === 4 ? "UINT4" : "U8";
      const perBlock = blocks === 1 ? [rows] : [rows, blocks];
      return {
        codes: part("quantized", dtype, [rows, cols]),
        scales: part("scale", "F32", perBlock),
        zeroPoints: part("zero_point", dtype, perBlock),
      };
    }
    case "arithmetic":
      return {
        codes: part("quantized", "U8", [rows, blocks, blockBytes, ...(bits === 8 ? [] : [1])]),
        scales: part("scale", "F32", [rows, blocks, 1]),
        zeroPoints: part("zero_point", "F32", [rows, blocks, 1]),
      };
  }
}

/** Makes the node the product with the weight, and returns the nodes that belong before and after it. */
function toMatMulNBits(
  node: NodeProto,
  { rows, cols, bits, form, equalizationScales }: QuantizedWeight,
  parts: PartTensors,
  builder: GraphBuilder,
): { before: NodeProto[]; after: NodeProto[] } {
  const about = nameOf(node);
  let [input = ""] = node.input;
  if (equalizationScales !== null) {
    // (w / s) · x = w · (x / s)
    const factors = builder.constant({ type: "float", values: equalizationScales }, [cols]);
    input = builder.node("Div", [input, factors], about);
  }
  const before = builder.takeNodes();
  const bias = node.opType === "Gemm" ? (node.input[2] ?? "") : "";
  const [output = ""] = node.output;
  // Seen from outside a node without a name goes by its output.
  if (bias !== "") {
    const product = builder.takeName(`${output}/arrowquant/product`);
    node.output = [product];
    builder.node("Add", [product, bias], about);
  }
  const after = builder.takeNodes();
  if (after[0] !== undefined) after[0].output = [output];
  node.name = about;
  node.opType = "MatMulNBits";
  node.domain = MICROSOFT_DOMAIN;
  node.input = [input, parts.codes.name, parts.scales.name, parts.zeroPoints.name];
  node.attribute = Object.entries({
    K: cols,
    N: rows,
    bits,
    block_size: form.blockSize,
    accuracy_level: ACCURACY_LEVEL,
  }).map(([name, value]) => integerAttribute(name, value));
  return { before, after };
}

/** Nodes whose last output has the initializer's name, type and shape. */
function rebuildWeight(
  weight: QuantizedWeight,
  initializer: OnnxInitializer,
  isTransposed: boolean,
  parts: PartTensors,
  builder: GraphBuilder,
): NodeProto[] {
  const { rows, cols, equalizationScales } = weight;
  const { name } = initializer;
  let value =
    weight.form.kind === "dequantize-linear"
      ? dequantize(weight, parts, name, builder)
      : compute(weight, parts, name, builder);
  let shape: readonly number[] = [rows, cols];
  const reshape = (wanted: readonly number[]) => {
    if (wanted.join() !== shape.join()) value = builder.node("Reshape", [value, integers(builder, wanted)], name);
    shape = wanted;
  };
  if (equalizationScales !== null) {
    const channels = equalizationScales.length;
    reshape([rows, channels, cols / channels]);
    const factors = builder.constant({ type: "float", values: equalizationScales }, [channels, 1]);
    value = builder.node("Div", [value, factors], name);
  }
  if (isTransposed) {
    reshape([rows, cols]);
    // The default, spelled out: ONNX Runtime 1.30's optimizer aborts the process where it is left out after DequantizeLinear.
    value = builder.node("Transpose", [value], name, [integersAttribute("perm", [1, 0])]);
  } else {
    reshape(initializer.shape);
  }
  if (initializer.dtype !== "F32") {
    const dataType = DATA_TYPES[initializer.dtype];
    if (dataType === undefined) throw notWritten(initializer);
    builder.node("Cast", [value], name, [integerAttribute("to", dataType)]);
  }
  const nodes = builder.takeNodes();
  (nodes.at(-1) as NodeProto).output = [name];
  return nodes;
}

function dequantize({ cols, form }: QuantizedWeight, parts: PartTensors, about: string, builder: GraphBuilder): string {
  const { codes, scales, zeroPoints } = parts;
  const isPerRow = form.blockSize >= cols;
  const attributes = isPerRow
    ? [integerAttribute("axis", 0)]
    : [integerAttribute("axis", 1), integerAttribute("block_size", form.blockSize)];
  return builder.node("DequantizeLinear", [codes.name, scales.name, zeroPoints.name], about, attributes);
}

/** (q − z) · s with operators of every operator set since 13; a runtime computes it once, as it loads the graph. */
function compute(
  { rows, cols, bits, form }: QuantizedWeight,
  parts: PartTensors,
  about: string,
  builder: GraphBuilder,
) {
  const { blockSize } = form;
  const blocks = Math.ceil(cols / blockSize);
  const codesPerByte = 8 / bits;
  let codes = parts.codes.name;
  if (bits < 8) {
    // The bits above a code are pushed out of the byte, then those below it.
    const above = Uint8Array.from({ length: codesPerByte }, (_, i) => 8 - bits * (i + 1));
    const direction = (to: string) => [textAttribute("direction", to)];
    const shifts = builder.constant({ type: "uint8", values: above }, [codesPerByte]);
    const left = builder.node("BitShift", [codes, shifts], about, direction("LEFT"));
    const back = builder.constant({ type: "uint8", values: Uint8Array.of(8 - bits) });
    const right = builder.node("BitShift", [left, back], about, direction("RIGHT"));
    const length = packedBytes(blockSize, bits) * codesPerByte;
    codes = builder.node("Reshape", [right, integers(builder, [rows, blocks, length])], about);
    if (length > blockSize) codes = cutAxis(builder, codes, 2, blockSize, about);
  }
  const numbers = builder.node("Cast", [codes], about, [integerAttribute("to", TensorProto_DataType.FLOAT)]);
  const steps = builder.node("Sub", [numbers, parts.zeroPoints.name], about);
  const values = builder.node("Mul", [steps, parts.scales.name], about);
  const joined = builder.node("Reshape", [values, integers(builder, [rows, blocks * blockSize])], about);
  return blocks * blockSize > cols ? cutAxis(builder, joined, 1, cols, about) : joined;
}

/** The first `length` along an axis. */
function cutAxis(builder: GraphBuilder, value: string, axis: number, length: number, about: string): string {
  const [from, to, at] = [0, length, axis].map((number) => integers(builder, [number])) as [string, string, string];
  return builder.node("Slice", [value, from, to, at], about);
}

function integers(builder: GraphBuilder, values: readonly number[]): string {
  return builder.constant({ type: "int64", values: BigInt64Array.from(values, BigInt) }, [values.length]);
}

/** Drops the nodes that handed on weights which are no longer there. */
function dropReaders(graph: GraphProto, dropped: Set<string>): void {
  for (let before = -1; before !== dropped.size; ) {
    before = dropped.size;
    graph.node = graph.node.filter(({ opType, input, output }) => {
      const isDropped = PASSED_BY.has(opType) && dropped.has(input[0] ?? "");
      if (isDropped) for (const name of output) dropped.add(name);
      return !isDropped;
    });
  }
}

function findNode(graph: GraphProto, layer: GraphLayer): NodeProto {
  const node = graph.node.find((candidate) => nameOf(candidate) === layer.node);
  if (node === undefined) throw new ArrowQuantError("E_INTERNAL", `no node ${quoteName(layer.node)} in the graph`);
  return node;
}

/** Names of nodes are optional, those of values are not. */
function nameOf(node: NodeProto): string {
  return node.name !== "" ? node.name : (node.output[0] ?? "");
}

function notInMainGraph(name: string): ArrowQuantError {
  return new ArrowQuantError("E_GRAPH", `weight ${quoteName(name)} is no initializer of the main graph`, {
    details: { initializer: name },
  });
}

function notWritten({ name, dtype }: OnnxInitializer): ArrowQuantError {
  return new ArrowQuantError("E_DTYPE", `the graph stores ${quoteName(name)} as ${dtype}, which is not written`, {
    details: { initializer: name, dtype },
  });
}
