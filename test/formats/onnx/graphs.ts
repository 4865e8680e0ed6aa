/** Small ONNX models, and ONNX Runtime to run them. */
import { existsSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import * as ort from "onnxruntime-node";
import {
  type AttributeProtoSchema,
  type FunctionProtoSchema,
  type GraphProtoSchema,
  type ModelProto,
  ModelProtoSchema,
  type NodeProtoSchema,
  type TensorProtoSchema,
  type ValueInfoProtoSchema,
} from "../../../dist/formats/onnx/onnx-pb.js";
import { SHARED_MODELS } from "../../quantize/methods/vectors.js";

export type TensorInit = MessageInitShape<typeof TensorProtoSchema>;
export type GraphInit = MessageInitShape<typeof GraphProtoSchema>;
type AttributeInit = MessageInitShape<typeof AttributeProtoSchema>;
export type NodeInit = MessageInitShape<typeof NodeProtoSchema>;
type ValueInit = MessageInitShape<typeof ValueInfoProtoSchema>;

/** `TensorProto.data_type` and `AttributeProto.type`, as onnx.proto numbers them. */
export const TYPE = { float: 1, uint8: 2, int32: 6, int64: 7, float16: 10, double: 11 } as const;
export const ATTRIBUTE = { int: 2, tensor: 4, graph: 5, ints: 7 } as const;

/** The shipped models' graphs; none where the models are not on this machine. */
export const SHIPPED = ["dit-mnist", "unet-mnist"]
  .map((name) => ({ name, folder: join(SHARED_MODELS, name), path: join(SHARED_MODELS, name, "onnx/model.onnx") }))
  .filter(({ path }) => existsSync(path));

interface ModelRest {
  readonly opset?: number;
  readonly irVersion?: bigint;
  readonly functions?: MessageInitShape<typeof FunctionProtoSchema>[];
  readonly metadataProps?: { key: string; value: string }[];
}

export function model(graph: GraphInit, rest: ModelRest = {}): ModelProto {
  const { opset = 17, irVersion = 8n, functions = [], metadataProps = [] } = rest;
  const opsetImport = [{ domain: "", version: BigInt(opset) }];
  return create(ModelProtoSchema, {
    ...{ irVersion, opsetImport, functions, metadataProps },
    graph: { name: "graph", ...graph },
  });
}

export function encode(proto: ModelProto): Buffer {
  return Buffer.from(toBinary(ModelProtoSchema, proto));
}

export function value(name: string, elemType: number, shape?: readonly (number | string)[]): ValueInit {
  const dim = shape?.map((size) => ({
    value:
      typeof size === "string"
        ? ({ case: "dimParam", value: size } as const)
        : ({ case: "dimValue", value: BigInt(size) } as const),
  }));
  const type = { elemType, ...(dim === undefined ? {} : { shape: { dim } }) };
  return { name, type: { value: { case: "tensorType", value: type } } };
}

export function node(opType: string, input: string[], output: string, attribute: AttributeInit[] = []): NodeInit {
  return { opType, name: `${output}.${opType}`, input, output: [output], attribute };
}

/** Entries of `TensorProto.external_data`. */
export function entries(record: Readonly<Record<string, string>>): { key: string; value: string }[] {
  return Object.entries(record).map(([key, text]) => ({ key, value: text }));
}

export function floats(name: string, shape: readonly number[], values: ArrayLike<number>): TensorInit {
  const rawData = new Uint8Array(Float32Array.from(values).buffer);
  return { name, dataType: TYPE.float, dims: shape.map(BigInt), rawData };
}

export interface Fed {
  readonly type: "float32" | "float64" | "int32" | "int64";
  readonly data: Float32Array | Float64Array | Int32Array | BigInt64Array;
  readonly shape: readonly number[];
}

export function fed(data: Fed["data"], shape: readonly number[]): Fed {
  const type =
    data instanceof Float32Array
      ? "float32"
      : data instanceof Float64Array
        ? "float64"
        : data instanceof Int32Array
          ? "int32"
          : "int64";
  return { type, data, shape };
}

/** Outputs of one run of a model, given as a path or as bytes. */
export async function runOnce(
  source: string | Uint8Array,
  feeds: Readonly<Record<string, Fed>>,
  graphOptimizationLevel: "disabled" | "all" = "all",
): Promise<Record<string, ort.Tensor>> {
  const [outputs = {}] = await runEach(source, [feeds], graphOptimizationLevel);
  return outputs;
}

/** Outputs of a model for each of several inputs. */
export async function runEach(
  source: string | Uint8Array,
  inputs: readonly Readonly<Record<string, Fed>>[],
  graphOptimizationLevel: "disabled" | "all" = "all",
): Promise<Record<string, ort.Tensor>[]> {
  const options = { intraOpNumThreads: 1, logSeverityLevel: 3, graphOptimizationLevel } as const;
  const session = await (typeof source === "string"
    ? ort.InferenceSession.create(source, options)
    : ort.InferenceSession.create(source, options));
  try {
    const outputs: Record<string, ort.Tensor>[] = [];
    for (const feeds of inputs) {
      const tensors = Object.entries(feeds).map(([name, { type, data, shape }]) => [
        name,
        new ort.Tensor(type as "float32", data as Float32Array, shape),
      ]);
      outputs.push({ ...(await session.run(Object.fromEntries(tensors))) });
    }
    return outputs;
  } finally {
    await session.release();
  }
}

/** Inputs of the shipped models: `count` samples at one time. */
export function denoiserFeeds(count: number, time: number, sample?: Float32Array): Record<string, Fed> {
  const waves = Float32Array.from({ length: count * 256 }, (_, index) => Math.sin(index * 0.37) * 1.5);
  return {
    sample: fed(sample ?? waves, [count, 1, 16, 16]),
    timestep: fed(new BigInt64Array(count).fill(BigInt(time)), [count]),
    class_labels: fed(
      BigInt64Array.from({ length: count }, (_, index) => BigInt(index % 11)),
      [count],
    ),
  };
}

export function bytesOf(tensor: ort.Tensor | undefined): Buffer {
  const data = tensor?.data as Float32Array;
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
}

/** Some bytes of a file that is too large to be read for each of them. */
export async function readRange(path: string, byteOffset: number, byteLength: number): Promise<Buffer> {
  const handle = await open(path);
  try {
    const { buffer } = await handle.read(Buffer.alloc(byteLength), 0, byteLength, byteOffset);
    return buffer;
  } finally {
    await handle.close();
  }
}
