/** Errors of a model with replaced layers are those that `validate --run` finds in a quantized file. */
import { mkdirSync, readdirSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { orderSamples } from "../../../dist/calibration/time-bins.js";
import { Session } from "../../../dist/engine/session.js";
import { openModel } from "../../../dist/formats/open.js";
import { ArrowQuant, type RunOptions, type RunResult } from "../../../dist/index.js";
import {
  type ModelRunner,
  openModelRunner,
  type RunnerRequest,
} from "../../../dist/quantize/sensitivity/model-runner.js";
import { heldBackSeed, planInputs } from "../../../dist/quantize/sensitivity/prediction-inputs.js";
import type { RunSession } from "../../../dist/runtime/runtime.js";
import type { Component } from "../../../dist/tensor/info.js";
import { makeRows, writeGraph, writeScheduler, writeSmallModel } from "../../calibration/small-model.ts";
import { areModelsHere, MODELS, REAL_MODELS, waves } from "../../graph/onnx-model.ts";
import { readTensors } from "../../runtime/reference.ts";

let folder: string;
let aq: ArrowQuant;
let session: Session;
const at = (name: string) => join(folder, name);

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "arrowquant-test-runner-"));
  aq = new ArrowQuant();
  session = new Session();
});

afterAll(async () => {
  await aq.dispose();
  await session.dispose();
  await rm(folder, { recursive: true, force: true });
});

async function componentOf(original: string): Promise<Component> {
  return (await openModel(original)).components[0] as Component;
}

async function openRunner(original: string, rest: Partial<RunnerRequest> = {}): Promise<ModelRunner> {
  return openModelRunner({
    original,
    component: await componentOf(original),
    graph: null,
    data: null,
    samples: 16,
    steps: 4,
    seed: 0,
    session,
    signal: new AbortController().signal,
    onRun: () => {},
    ...rest,
  });
}

describe.skipIf(!areModelsHere).each(REAL_MODELS)("%s (skipped where ../shared is absent)", (model) => {
  const original = join(MODELS, model);
  const data = join(original, "calibration.jsonl");
  let weights: ReadonlyMap<string, Float32Array>;

  beforeAll(async () => {
    const config = { method: "rtn", bit_width: 2, group_size: 32, min_accuracy: 0 } as const;
    await aq.quantize({ input: original, output: at(`${model}.parquet`), config });
    await aq.export({ input: at(`${model}.parquet`), output: at(`${model}.safetensors`), dtype: "F32" });
    const read = readTensors(at(`${model}.safetensors`));
    const { layers } = await aq.validate({ original, quantized: at(`${model}.parquet`), minAccuracy: 0 });
    const quantized = layers.filter(({ quantType }) => quantType !== "none").map(({ name }) => name);
    weights = new Map(quantized.map((name) => [name, new Float32Array(read(name))]));
  });

  async function validated(run: RunOptions): Promise<RunResult["variants"][number]> {
    const { run: result } = await aq.validate({ original, quantized: at(`${model}.parquet`), minAccuracy: 0, run });
    return result?.variants[0] as RunResult["variants"][number];
  }

  it.each([
    ["what the model samples", null, { samples: 4, steps: 4, seed: heldBackSeed(7) }],
    ["data", data, { samples: 24, data }],
  ])("has the prediction errors that validate --run gives on the same inputs: %s", async (_what, source, run) => {
    // Of four steps all four inputs of a trajectory are taken: sixteen inputs are four trajectories.
    const samples = source === null ? 16 : 24;
    const runner = await openRunner(original, { data: source, samples, seed: 7 });
    const { predictionError, times } = await validated(run);
    const found = await runner.measure(weights);
    expect(found.overTimes / predictionError).toBeCloseTo(1, 4);
    expect(found.times.map(({ time }) => time)).toEqual(times.map(({ time }) => time));
    for (const [index, { relativeError }] of times.entries()) {
      expect((found.times[index]?.relativeError as number) / relativeError).toBeCloseTo(1, 4);
    }
    await runner.close();
  });

  it("finds no error in the original, and in several layers about the sum of theirs", async () => {
    const runner = await openRunner(original, { layers: [...weights.keys()] });
    expect([...runner.layerNames].sort()).toEqual([...weights.keys()].sort());
    expect(runner.originalEnergy).toBeGreaterThan(0);
    expect(await runner.error(new Map())).toBe(0);
    const some = [...weights].slice(2, 5);
    // Asked for at once: they wait for one another.
    const [together, ...alone] = (await Promise.all([
      runner.error(new Map(some)),
      ...some.map((layer) => runner.error(new Map([layer]))),
    ])) as [number, ...number[]];
    const sum = alone.reduce((total, error) => total + error, 0);
    expect(Math.min(...alone)).toBeGreaterThan(0);
    expect(together / sum).toBeGreaterThan(0.5);
    expect(together / sum).toBeLessThan(2);
    const [name, values] = some[0] as (typeof some)[number];
    expect(await runner.error(new Map([[name, values.map(() => Number.NaN)]]))).toBe(Infinity);
    await runner.close();
  });

  it("runs those rows of calibration data that calibration holds back, and no other", async () => {
    const rows = (await readFile(data, "utf8"))
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as DataRow);
    const component = await componentOf(original);
    const request = { original, component, graph: null, data, samples: 1000, steps: 20, seed: 0 };
    const plan = await planInputs({ ...request, calibrationSamples: 128, signal: new AbortController().signal });
    const spoolPath = at(`${model}.samples`);
    const { batches, sampleCount } = await plan.take({ original: echo, spoolPath, onRun: () => {} });
    const taken = batches.flatMap(({ feeds, rows: count }) => {
      const values = feeds["sample"]?.data as Float32Array;
      return Array.from({ length: count }, (_, row) => [...values.subarray(row * 256, row * 256 + 256)]);
    });
    const { used, heldBack } = orderSamples(
      Float64Array.from(rows, ({ timestep }) => timestep),
      8,
    );
    const samplesOf = (indices: Uint32Array) =>
      Array.from(indices, (index) => [...Float32Array.from((rows[index] as DataRow).sample.flat(9))]);
    expect(sampleCount).toBe(16);
    expect(taken).toEqual(samplesOf(heldBack));
    expect(samplesOf(used)).not.toContainEqual(taken[0]);
  });
});

interface DataRow {
  readonly sample: number[];
  readonly timestep: number;
}

/** A graph that predicts its input. */
const echo: RunSession = {
  inputs: [],
  outputs: [],
  run: async (feeds) => ({ noise_pred: feeds["sample"] as NonNullable<(typeof feeds)[string]> }),
  close: async () => {},
};

describe("graphs that are fed in their own ways", () => {
  it.each([
    ["a batch of fixed size", { batch: 3 }],
    ["one time for the whole batch", { scalarTime: true }],
    ["float16", { float: "FLOAT16" }],
    ["classes", { classes: 10 }],
  ] as const)("%s", async (_what, options) => {
    const name = `small-${JSON.stringify(options).replaceAll(/\W/g, "")}`;
    writeSmallModel(
      at(name),
      makeRows(20, (index) => 10 * (index % 5)),
      options,
    );
    writeScheduler(at(name));
    for (const data of [null, at(`${name}/rows.jsonl`)]) {
      if (data !== null && "classes" in options) continue;
      const runner = await openRunner(at(name), { data, samples: 20 });
      expect(runner.sampleCount).toBe(20);
      // Its prediction is its input, whatever the weights are.
      const linear = new Map([["linear.weight", new Float32Array(28)]]);
      expect(await runner.measure(linear)).toMatchObject({ squared: 0, overTimes: 0 });
      expect((await runner.measure(linear)).times.length).toBe(data === null ? 4 : 5);
      await runner.close();
    }
  });

  it("a graph that was traced for a single sample, whatever it says of its batch", async () => {
    writeSmallModel(
      at("traced"),
      makeRows(20, (index) => index),
    );
    const weight = waves(28, 4000);
    const image = ["FLOAT", "batch", 4, 6, 5] as const;
    writeGraph(at("traced/model.onnx"), {
      inputs: { sample: image, timestep: ["INT64", "batch"] },
      outputs: { noise_pred: image },
      initializers: {
        "linear.weight": {
          dims: [4, 7],
          data: weight.map((_, index) => weight[(index % 7) * 4 + Math.floor(index / 7)]!),
        },
        single: { dims: [4], data: BigInt64Array.of(1n, 4n, 30n, 1n), type: "INT64" },
        image: { dims: [4], data: BigInt64Array.of(1n, 4n, 6n, 5n), type: "INT64" },
      },
      nodes: [
        { op: "Reshape", in: ["sample", "single"], out: ["column"] },
        { op: "Transpose", in: ["column"], out: ["tokens"], attributes: { perm: [0, 3, 2, 1] } },
        { op: "MatMul", in: ["tokens", "linear.weight"], out: ["product"] },
        { op: "ReduceSum", in: ["product"], out: ["sum"] },
        { op: "Reshape", in: ["sample", "image"], out: ["same"] },
        { op: "Add", in: ["same", "sum"], out: ["noise_pred"] },
      ],
    });
    const runner = await openRunner(at("traced"), { data: at("traced/rows.jsonl"), samples: 20 });
    expect(runner.sampleCount).toBe(20);
    expect(await runner.error(new Map([["linear.weight", weight]]))).toBe(0);
    expect(await runner.error(new Map([["linear.weight", new Float32Array(28)]]))).toBeGreaterThan(0);
    await runner.close();
  });
});

describe("what cannot be run", () => {
  const temporary = process.env["TMPDIR"];
  beforeAll(() => {
    mkdirSync(at("tmp"));
    process.env["TMPDIR"] = at("tmp");
  });
  afterAll(() => {
    if (temporary === undefined) delete process.env["TMPDIR"];
    else process.env["TMPDIR"] = temporary;
  });
  const working = () => readdirSync(at("tmp"));
  const small = () => {
    writeSmallModel(
      at("small"),
      makeRows(20, (index) => index),
    );
    return at("small");
  };

  it.each<[string, () => Partial<RunnerRequest>, string]>([
    ["a model without a scheduler", () => ({}), "E_CALIBRATION"],
    ["a graph that is not there", () => ({ graph: at("none.onnx") }), "E_NOT_FOUND"],
    ["layers that the graph does not have", () => ({ data: at("small/rows.jsonl"), layers: ["x"] }), "E_GRAPH"],
    [
      "too little data to hold any back",
      () => ({ data: at("small/rows.jsonl"), calibrationSamples: 15 }),
      "E_CALIBRATION",
    ],
  ])("%s: an error, and nothing left behind", async (_what, rest, code) => {
    await expect(openRunner(small(), rest())).rejects.toMatchObject({ code });
    expect(working()).toEqual([]);
  });

  it("ends with the signal's reason, and leaves nothing behind", async () => {
    const stop = new AbortController();
    const runner = await openRunner(small(), { data: at("small/rows.jsonl"), signal: stop.signal });
    expect(working()).toHaveLength(1);
    stop.abort(new Error("enough"));
    await expect(runner.error(new Map())).rejects.toThrow("enough");
    await runner.close();
    expect(working()).toEqual([]);
  });

  it.skipIf(!areModelsHere)("does not begin where the weights do not fit the memory", async () => {
    // 5.4 million weights take 21 MB, and as much again replaced.
    const tight = Object.assign(Object.create(session) as Session, { memoryBytes: 40e6 });
    const opened = openRunner(join(MODELS, "dit-mnist"), { session: tight });
    await expect(opened).rejects.toMatchObject({ code: "E_MEMORY" });
  });
});
