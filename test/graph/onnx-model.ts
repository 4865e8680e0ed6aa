/** Small ONNX models built for a test, and the real ones. */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { create, toBinary } from "@bufbuild/protobuf";
import { afterAll } from "vitest";
import {
  type AttributeProto,
  AttributeProtoSchema,
  AttributeProto_AttributeType as AttributeType,
  type GraphProto,
  GraphProtoSchema,
  ModelProtoSchema,
  NodeProtoSchema,
  TensorProto_DataType,
  TensorProtoSchema,
  TensorShapeProtoSchema,
  TypeProto_TensorSchema,
  TypeProtoSchema,
  ValueInfoProtoSchema,
} from "../../dist/formats/onnx/onnx-pb.js";
import { type OnnxFile, readOnnx } from "../../dist/formats/onnx/read.js";

export const MODELS = fileURLToPath(new URL("../../../shared/models/", import.meta.url));
/** The models are handed out beside the repository, not in it. */
export const areModelsHere = existsSync(MODELS) || process.env["CI"] !== undefined;

export const REAL_MODELS = [
  ["dit-mnist", "transformer"],
  ["unet-mnist", "unet"],
] as const;

export type ElementType = Exclude<keyof typeof TensorProto_DataType, "UNDEFINED">;
export type Axis = number | string;

/** `x: ["FLOAT", "n", 4]`. */
export type ValueSpecs = Readonly<Record<string, readonly [ElementType, ...Axis[]]>>;

export interface TensorSpec {
  readonly dims: readonly number[];
  readonly data: Float32Array | Uint16Array | Uint8Array | BigInt64Array;
  readonly type?: ElementType;
}

export interface NodeSpec {
  readonly op: string;
  readonly in: readonly string[];
  readonly out: readonly string[];
  readonly name?: string;
  readonly domain?: string;
  readonly attributes?: Readonly<Record<string, number | string | readonly number[] | GraphProto>>;
}

export interface GraphSpec {
  readonly inputs?: ValueSpecs;
  readonly outputs?: ValueSpecs;
  readonly initializers?: Readonly<Record<string, TensorSpec>>;
  readonly nodes?: readonly NodeSpec[];
}

export function buildGraph({ inputs = {}, outputs = {}, initializers = {}, nodes = [] }: GraphSpec): GraphProto {
  return create(GraphProtoSchema, {
    name: "g",
    input: values(inputs),
    output: values(outputs),
    initializer: Object.entries(initializers).map(([name, { dims, data, type = "FLOAT" }]) =>
      create(TensorProtoSchema, {
        name,
        dims: dims.map(BigInt),
        dataType: TensorProto_DataType[type],
        rawData: new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
      }),
    ),
    node: nodes.map((node) =>
      create(NodeProtoSchema, {
        opType: node.op,
        name: node.name ?? "",
        domain: node.domain ?? "",
        input: [...node.in],
        output: [...node.out],
        attribute: Object.entries(node.attributes ?? {}).map(([name, value]) => attribute(name, value)),
      }),
    ),
  });
}

function values(specs: ValueSpecs) {
  return Object.entries(specs).map(([name, [elemType, ...axes]]) => {
    const dim = axes.map((axis) =>
      typeof axis === "number"
        ? { value: { case: "dimValue" as const, value: BigInt(axis) } }
        : { value: { case: "dimParam" as const, value: axis } },
    );
    const tensor = create(TypeProto_TensorSchema, {
      elemType: TensorProto_DataType[elemType],
      shape: create(TensorShapeProtoSchema, { dim }),
    });
    const type = create(TypeProtoSchema, { value: { case: "tensorType", value: tensor } });
    return create(ValueInfoProtoSchema, { name, type });
  });
}

function attribute(name: string, value: number | string | readonly number[] | GraphProto): AttributeProto {
  if (typeof value === "number") {
    return create(AttributeProtoSchema, { name, type: AttributeType.INT, i: BigInt(value) });
  }
  if (typeof value === "string") {
    return create(AttributeProtoSchema, { name, type: AttributeType.STRING, s: Buffer.from(value) });
  }
  return "$typeName" in value
    ? create(AttributeProtoSchema, { name, type: AttributeType.GRAPH, g: value as GraphProto })
    : create(AttributeProtoSchema, { name, type: AttributeType.INTS, ints: (value as number[]).map(BigInt) });
}

/** Writes graphs into a scratch folder and opens them. */
export function graphOpener(): (spec: GraphSpec) => Promise<OnnxFile> {
  const scratch = scratchFolder();
  let count = 0;
  return async (spec) => {
    const path = join(scratch, `g${count++}.onnx`);
    const model = create(ModelProtoSchema, {
      irVersion: 8n,
      opsetImport: [{ domain: "", version: 17n }],
      graph: buildGraph(spec),
    });
    writeFileSync(path, toBinary(ModelProtoSchema, model));
    return readOnnx(path);
  };
}

export function scratchFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "arrowquant-graph-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Numbers between −1 and 1 that repeat only after thousands. */
export function waves(count: number, phase = 0): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => Math.sin(1 + 12.9898 * (i + phase)));
}
