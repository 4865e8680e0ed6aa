/** Samples without data: what the sampler visits, and random inputs that are called so. */
import { readFile, writeFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { calibrateModel } from "../../dist/calibration/calibrate.js";
import type { CalibrateJob } from "../../dist/calibration/calibration-job.js";
import { type LayerStatistics, openStatistics, type Statistics } from "../../dist/calibration/statistics.js";
import { Session } from "../../dist/engine/session.js";
import { drawInteger, seedNoise } from "../../dist/sampler/noise.js";
import { waves } from "../graph/onnx-model.ts";
import { buildSafetensors } from "../hostile/safetensors/build.ts";
import { useFolder } from "../quantize/source.js";
import { readBytes } from "./shipped.js";
import { CHANNELS, HEIGHT, smallJob, WIDTH, writeGraph, writeScheduler, writeSmallModel } from "./small-model.js";

const folder = useFolder();
const SAMPLES = 40;
const CLASSES = 7;
let session: Session;
beforeAll(() => {
  session = new Session({ threads: 1 });
  writeSmallModel(folder.path("model"), [], { classes: CLASSES });
  writeScheduler(folder.path("model"));
});
afterAll(() => session.dispose());

async function calibrate(rest: Partial<CalibrateJob>): Promise<Statistics> {
  const job = smallJob(folder.path("model"), folder.path("cache"), {
    samples: SAMPLES,
    steps: 10,
    fresh: true,
    ...rest,
  });
  return openStatistics((await calibrateModel(job, session)).path);
}

async function heldBackRows(statistics: Statistics, name: string): Promise<{ time: number; row: number[] }[]> {
  const { heldBack, heldBackTime, cols } = (await statistics.read(name)) as LayerStatistics;
  const { path, byteOffset, rowCount } = heldBack as NonNullable<LayerStatistics["heldBack"]>;
  const floats = new Float32Array(await readBytes(path, byteOffset, 4 * rowCount * cols));
  return Array.from({ length: rowCount }, (_, r) => ({
    time: heldBackTime?.[r] as number,
    row: [...floats.subarray(r * cols, (r + 1) * cols)],
  }));
}

describe("sampling", () => {
  it("visits the scheduler's times about equally often, from noise and labels of the seed", async () => {
    const seed = 5;
    const statistics = await calibrate({ source: "sampling", seed });
    const { info } = statistics;
    expect(info.source).toEqual({
      kind: "sampling",
      scheduler: "DDIMScheduler",
      steps: 10,
      seed,
      trajectories: SAMPLES / 4,
      classes: CLASSES,
    });
    expect(info.sampleCount).toBe(SAMPLES);
    expect(info.time.bins.map(({ value }) => value)).toEqual([0, 100, 200, 300, 400, 500, 600, 700, 800, 900]);
    for (const { count } of info.time.bins) expect(count).toBeGreaterThanOrEqual(2);

    const trajectories = Array.from({ length: SAMPLES / 4 }, (_, index) => index);
    const labels = new Set(trajectories.map((index) => drawInteger(seed, index, CLASSES)));
    const label = (await statistics.read("label.weight")) as LayerStatistics;
    expect(Math.max(...label.max)).toBe(Math.max(...labels));
    for (const { row } of await heldBackRows(statistics, "label.weight")) expect(labels).toContain(row[0]);

    // At the first step a trajectory is the noise that it starts from.
    const noises = trajectories.flatMap((index) => {
      const noise = new Float32Array(CHANNELS * HEIGHT * WIDTH);
      seedNoise(seed, index).fill(noise);
      return Array.from({ length: HEIGHT * WIDTH }, (_, p) =>
        String(Array.from({ length: CHANNELS }, (_unused, c) => noise[c * HEIGHT * WIDTH + p])),
      );
    });
    const first = (await heldBackRows(statistics, "shortcut.weight")).filter(({ time }) => time === 900);
    expect(first.length).toBeGreaterThan(0);
    for (const { row } of first) expect(noises).toContain(String(row));
  });

  it("gives the same file for the same seed, and another for another", async () => {
    const read = async (seed: number) => readFile((await calibrate({ source: "sampling", seed })).path);
    const first = await read(1);
    expect((await read(1)).equals(first)).toBe(true);
    expect((await read(2)).equals(first)).toBe(false);
  });

  it("refuses inputs that it has nothing for, which random ones are made for", async () => {
    const weight = waves(16);
    writeSmallModel(folder.path("text"), []);
    writeScheduler(folder.path("text"));
    const image = ["FLOAT", "batch", CHANNELS, HEIGHT, WIDTH] as const;
    writeGraph(folder.path("text", "model.onnx"), {
      inputs: {
        sample: image,
        timestep: ["INT64", "batch"],
        encoder_hidden_states: ["FLOAT", "batch", "tokens", 8],
      },
      outputs: { noise_pred: image },
      initializers: { "text.weight": { dims: [8, 2], data: weight } },
      nodes: [
        { op: "MatMul", in: ["encoder_hidden_states", "text.weight"], out: ["text_out"] },
        { op: "Identity", in: ["sample"], out: ["noise_pred"] },
      ],
    });
    const turned = Float32Array.from(weight, (_, index) => weight[(index % 8) * 2 + Math.floor(index / 8)] as number);
    const part = { name: "text.weight", dtype: "F32", shape: [2, 8], bytes: new Uint8Array(turned.buffer) };
    await writeFile(folder.path("text", "model.safetensors"), buildSafetensors([part]));
    const job = smallJob(folder.path("text"), folder.path("cache"), { samples: 16 });
    await expect(calibrateModel({ ...job, source: "sampling" }, session)).rejects.toMatchObject({
      code: "E_CALIBRATION",
      message: expect.stringContaining("encoder_hidden_states"),
      hint: expect.stringContaining("synthetic"),
    });
    const { path } = await calibrateModel({ ...job, source: "synthetic" }, session);
    const layer = (await (await openStatistics(path)).read("text.weight")) as LayerStatistics;
    // 77 tokens a sample, as CLIP has them, where the graph leaves their number open.
    expect(layer.count.reduce((sum, count) => sum + count, 0)).toBe(77 * 14);
  });
});

describe("synthetic inputs", () => {
  it("are normal, at times over the whole range, and labelled", async () => {
    const job = smallJob(folder.path("model"), folder.path("cache"), { source: "synthetic", samples: 64 });
    const result = await calibrateModel(job, session);
    expect(result.source.label).toMatch(/^synthetic: random/);
    expect(result.warnings.join()).toMatch(/synthetic inputs are random/);
    expect(result.info.source).toEqual({ kind: "synthetic", seed: 0 });
    expect(result.info.time.bins.length).toBe(20);
    const layer = (await (await openStatistics(result.path)).read("shortcut.weight")) as LayerStatistics;
    const mean = layer.meansq.reduce((sum, x) => sum + x, 0) / layer.meansq.length;
    expect(Math.abs(mean - 1)).toBeLessThan(0.1);
  });
});
