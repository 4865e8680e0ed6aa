/** A small denoiser whose layers read its inputs more or less as they are, so that their statistics are plain sums. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { create, toBinary } from "@bufbuild/protobuf";
import type { CalibrateJob } from "../../dist/calibration/calibration-job.js";
import { ModelProtoSchema } from "../../dist/formats/onnx/onnx-pb.js";
import { toFloat16Bits } from "../../dist/tensor/float16.js";
import { type Axis, buildGraph, type ElementType, type GraphSpec, waves } from "../graph/onnx-model.ts";
import { buildSafetensors } from "../hostile/safetensors/build.ts";

export const CHANNELS = 4;
export const HEIGHT = 6;
export const WIDTH = 5;
const SAMPLE_LENGTH = CHANNELS * HEIGHT * WIDTH;

export interface Row {
  readonly sample: Float32Array;
  readonly timestep: number;
}

/** Multiples of 1/64 below 4: exact in float16, and in every sum of a few thousand products. */
export function makeRows(count: number, timeOf: (index: number) => number): Row[] {
  return Array.from({ length: count }, (_, index) => ({
    sample: waves(SAMPLE_LENGTH, index * SAMPLE_LENGTH).map((value) => Math.round(value * (64 + index)) / 64),
    timestep: timeOf(index),
  }));
}

export interface SmallModelOptions {
  /** Size of the batch, or a name. */
  readonly batch?: Axis;
  /** Whether the time is one number for the whole batch. */
  readonly scalarTime?: boolean;
  readonly float?: "FLOAT" | "FLOAT16";
  /** Classes that the model takes labels of. */
  readonly classes?: number;
}

const WEIGHTS = {
  "conv.weight": [3, CHANNELS, 3, 3],
  "grouped.weight": [CHANNELS, 1, 3, 3],
  "shortcut.weight": [2, CHANNELS, 1, 1],
  "linear.weight": [7, CHANNELS],
  "left.weight": [5, CHANNELS],
  "time.weight": [6, 1],
  "label.weight": [3, 1],
} as const;

/** Stored [in, out] in the graph, as exporters do. */
const TRANSPOSED: readonly string[] = ["linear.weight", "time.weight", "label.weight"];

export const GEOMETRY = { kernel: [3, 3], strides: [2, 1], pads: [1, 0, 1, 1] } as const;

/** Writes graph, weights and rows into `folder`. */
export function writeSmallModel(folder: string, rows: readonly Row[], options: SmallModelOptions = {}): void {
  mkdirSync(folder, { recursive: true });
  const { float = "FLOAT" } = options;
  const stored = (values: Float32Array) => (float === "FLOAT" ? values : toFloat16Bits(values));
  const weights = Object.entries(WEIGHTS).map(([name, dims], index) => {
    const count = dims.reduce<number>((product, size) => product * size, 1);
    return { name, dims, data: stored(waves(count, 1000 * (index + 1))) };
  });
  const transposed = weights.map(({ name, dims, data }) => {
    if (!TRANSPOSED.includes(name)) return { name, dims, data };
    const [out, cols] = dims as readonly [number, number];
    const turned = data.slice();
    for (const [index, value] of data.entries()) turned[(index % cols) * out + Math.floor(index / cols)] = value;
    return { name, dims: [cols, out], data: turned };
  });
  writeGraph(
    join(folder, "model.onnx"),
    smallGraph(
      options,
      Object.fromEntries(transposed.map(({ name, dims, data }) => [name, { dims, data, type: float }])),
    ),
  );
  const parts = weights.map(({ name, dims, data }) => ({
    name,
    dtype: float === "FLOAT" ? "F32" : "F16",
    shape: dims,
    bytes: new Uint8Array(data.buffer),
  }));
  writeFileSync(join(folder, "model.safetensors"), buildSafetensors(parts));
  writeFileSync(
    join(folder, "config.json"),
    JSON.stringify({ _class_name: "SmallModel", num_class_embeds: options.classes }),
  );
  writeRows(join(folder, "rows.jsonl"), rows);
}

export function writeRows(path: string, rows: readonly Row[]): void {
  const lines = rows.map(({ sample, timestep }) => JSON.stringify({ sample: [...sample], timestep }));
  writeFileSync(path, `${lines.join("\n")}\n`);
}

export function writeGraph(path: string, spec: GraphSpec): void {
  const graph = buildGraph(spec);
  const model = { irVersion: 8n, opsetImport: [{ domain: "", version: 17n }], graph };
  writeFileSync(path, toBinary(ModelProtoSchema, create(ModelProtoSchema, model)));
}

function smallGraph(
  { batch = "batch", scalarTime = false, float = "FLOAT", classes }: SmallModelOptions,
  initializers: NonNullable<GraphSpec["initializers"]>,
): GraphSpec {
  const image: [ElementType, ...Axis[]] = [float, batch, CHANNELS, HEIGHT, WIDTH];
  return {
    inputs: {
      sample: image,
      timestep: scalarTime ? ["INT64"] : ["INT64", batch],
      ...(classes === undefined ? {} : { class_labels: ["INT64", batch] }),
    },
    outputs: { noise_pred: image },
    initializers: {
      ...initializers,
      column: { dims: [2], data: BigInt64Array.of(-1n, 1n), type: "INT64" },
      flat: { dims: [3], data: BigInt64Array.of(0n, BigInt(CHANNELS), -1n), type: "INT64" },
    },
    nodes: [
      {
        op: "Conv",
        in: ["sample", "conv.weight"],
        out: ["conv_out"],
        attributes: { strides: GEOMETRY.strides, pads: GEOMETRY.pads },
      },
      {
        op: "Conv",
        in: ["sample", "grouped.weight"],
        out: ["grouped_out"],
        attributes: { group: CHANNELS, pads: [1, 1, 1, 1] },
      },
      { op: "Conv", in: ["sample", "shortcut.weight"], out: ["shortcut_out"] },
      { op: "Transpose", in: ["sample"], out: ["tokens"], attributes: { perm: [0, 2, 3, 1] } },
      { op: "Add", in: ["tokens", "tokens"], out: ["doubled"] },
      // One weight at two places: its statistics are those of both inputs.
      { op: "MatMul", in: ["tokens", "linear.weight"], out: ["linear_out"] },
      { op: "MatMul", in: ["doubled", "linear.weight"], out: ["doubled_out"] },
      { op: "Reshape", in: ["sample", "flat"], out: ["columns"] },
      { op: "MatMul", in: ["left.weight", "columns"], out: ["left_out"] },
      { op: "Cast", in: ["timestep"], out: ["seconds"], attributes: { to: float === "FLOAT" ? 1 : 10 } },
      { op: "Reshape", in: ["seconds", "column"], out: ["time_column"] },
      { op: "MatMul", in: ["time_column", "time.weight"], out: ["time_out"] },
      ...(classes === undefined
        ? []
        : [
            { op: "Cast", in: ["class_labels"], out: ["labels"], attributes: { to: 1 } },
            { op: "Reshape", in: ["labels", "column"], out: ["label_column"] },
            { op: "MatMul", in: ["label_column", "label.weight"], out: ["label_out"] },
          ]),
      { op: "Identity", in: ["sample"], out: ["noise_pred"] },
    ],
  };
}

/** Makes a pipeline of the folder, as far as sampling needs one. */
export function writeScheduler(folder: string): void {
  mkdirSync(join(folder, "scheduler"), { recursive: true });
  const config = { _class_name: "DDIMScheduler", num_train_timesteps: 1000, clip_sample: false };
  writeFileSync(join(folder, "scheduler", "scheduler_config.json"), JSON.stringify(config));
}

/** A job on a small model's rows. */
export function smallJob(folder: string, cacheFolder: string, rest: Partial<CalibrateJob> = {}): CalibrateJob {
  return {
    input: folder,
    graph: null,
    source: join(folder, "rows.jsonl"),
    output: null,
    samples: 1000,
    steps: 20,
    seed: 0,
    roles: {},
    variant: null,
    components: null,
    hessians: true,
    cacheFolder,
    ...rest,
  };
}
