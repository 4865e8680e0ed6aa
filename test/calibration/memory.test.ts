/** Where memory does not hold all accumulators at once: several passes, and Hessians put together from blocks. */

import { writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { calibrateModel } from "../../dist/calibration/calibrate.js";
import { openStatistics, type Statistics } from "../../dist/calibration/statistics.js";
import { Session } from "../../dist/engine/session.js";
import { waves } from "../graph/onnx-model.ts";
import { buildSafetensors } from "../hostile/safetensors/build.ts";
import { useFolder } from "../quantize/source.js";
import { smallJob, writeGraph } from "./small-model.js";

const folder = useFolder();

const MIB = 1024 ** 2;
/** A Hessian of 20 MiB. */
const COLS = 2304;
const LAYERS = { "wide.weight": 1, "twice.weight": 2 } as const;
/** Under the cap below a thread has 16 MiB: a layer's Hessian alone does not fit. */
const SMALL_CAP = 210 * MIB;
const AMPLE_CAP = 420 * MIB;

const samples = Array.from({ length: 12 }, (_, index) =>
  waves(COLS, index * COLS).map((value) => Math.round(value * 64) / 64),
);

function writeWideModel(): string {
  const input = folder.path();
  const weights = Object.keys(LAYERS).map((name, index) => ({ name, data: waves(2 * COLS, 7 * index) }));
  writeGraph(join(input, "model.onnx"), {
    inputs: { sample: ["FLOAT", "batch", COLS], timestep: ["INT64", "batch"] },
    outputs: { noise_pred: ["FLOAT", "batch", COLS] },
    initializers: Object.fromEntries(weights.map(({ name, data }) => [name, { dims: [2, COLS], data }])),
    nodes: [
      { op: "Gemm", in: ["sample", "wide.weight"], out: ["wide_out"], attributes: { transB: 1 } },
      { op: "Add", in: ["sample", "sample"], out: ["twice"] },
      { op: "Gemm", in: ["twice", "twice.weight"], out: ["twice_out"], attributes: { transB: 1 } },
      { op: "Identity", in: ["sample"], out: ["noise_pred"] },
    ],
  });
  const parts = weights.map(({ name, data }) => ({
    name,
    dtype: "F32",
    shape: [2, COLS],
    bytes: new Uint8Array(data.buffer),
  }));
  writeFileSync(join(input, "model.safetensors"), buildSafetensors(parts));
  const lines = samples.map((sample, index) => JSON.stringify({ sample: [...sample], timestep: index % 3 }));
  // Data of fewer than 16 rows are an error: these are given more than once.
  writeFileSync(join(input, "rows.jsonl"), [...lines, ...lines].join("\n"));
  return input;
}

async function calibrate(input: string, memoryBytes: number): Promise<Statistics> {
  await using session = new Session({ threads: 1, memoryBytes });
  const job = smallJob(input, folder.path("cache"), { fresh: true, heldBackEvery: 0 });
  return openStatistics((await calibrateModel(job, session)).path);
}

async function hessianRow(statistics: Statistics, name: string, row: number): Promise<Float32Array> {
  const layer = await statistics.read(name);
  const place = layer?.hessian;
  if (place == null) throw new Error(`${name} has no Hessian`);
  const file = await open(place.path);
  try {
    const values = new Float32Array(COLS);
    await file.read(new Uint8Array(values.buffer), 0, 4 * COLS, place.byteOffset + 4 * COLS * row);
    return values;
  } finally {
    await file.close();
  }
}

describe("a memory cap below what all Hessians take", () => {
  it("gives the same Hessians in blocks, and the same statistics", async () => {
    const input = writeWideModel();
    const inBlocks = await calibrate(input, SMALL_CAP);
    const path = inBlocks.path;
    const statistics = await Promise.all(Object.keys(LAYERS).map((name) => inBlocks.read(name)));
    // Rows from each of the three blocks, and around their borders.
    const rows = [0, 767, 768, 1500, 1535, 1536, COLS - 1];
    const found = new Map<string, Float32Array>();
    for (const name of Object.keys(LAYERS)) {
      for (const row of rows) found.set(`${name} ${row}`, await hessianRow(inBlocks, name, row));
    }
    for (const [name, factor] of Object.entries(LAYERS)) {
      for (const row of rows) {
        const values = found.get(`${name} ${row}`) as Float32Array;
        const exact = Array.from({ length: COLS }, (_, col) => {
          const sum = samples.reduce((s, sample) => s + (sample[row] as number) * (sample[col] as number), 0);
          return (factor ** 2 * sum) / samples.length;
        });
        for (const [col, value] of values.entries())
          expect(Math.abs(value - (exact[col] as number))).toBeLessThan(1e-5);
      }
    }
    const ample = await calibrate(input, AMPLE_CAP);
    expect(ample.path).toBe(path);
    for (const [index, name] of Object.keys(LAYERS).entries()) {
      const { hessian: _, ...other } = (await ample.read(name)) as NonNullable<Awaited<ReturnType<Statistics["read"]>>>;
      expect(statistics[index]).toMatchObject(other);
    }
  });
});
