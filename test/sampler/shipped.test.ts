/** The shipped models, run by ONNX Runtime under the shipped scheduler configs, against the shipped samples. */
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { seedNoise } from "../../dist/sampler/noise.js";
import { createSignalLevels } from "../../dist/sampler/noise-schedule.js";
import { type Denoiser, guideDenoiser, sampleBatch } from "../../dist/sampler/sample.js";
import { createScheduler } from "../../dist/sampler/schedulers.js";
import { floatsOf, readSafetensors } from "../quantize/methods/vectors.js";

const MODELS = new URL("../../../shared/models/", import.meta.url);
const present = existsSync(MODELS);
if (!present && process.env["CI"]) throw new Error(`${MODELS.pathname} is missing`);

const SAMPLE_LENGTH = 16 * 16;
const NO_CLASS = 10n;

function readReference(model: string) {
  const { tensors } = readSafetensors(new URL(`${model}/eval_reference.safetensors`, MODELS));
  const integersOf = (name: string) => new BigInt64Array(floatsOf(tensors.get(name)).buffer);
  return {
    floats: (name: string) => floatsOf(tensors.get(name)),
    labels: integersOf("class_labels"),
    timesteps: Array.from(integersOf("ddim20_timesteps"), Number),
    config: JSON.parse(readFileSync(new URL(`${model}/scheduler/scheduler_config.json`, MODELS), "utf8")),
  };
}

async function openDenoiser(model: string, labelOf: (sampleIndex: number) => bigint): Promise<Denoiser> {
  const path = fileURLToPath(new URL(`${model}/onnx/model.onnx`, MODELS));
  const session = await InferenceSession.create(path, { intraOpNumThreads: 2 });
  return {
    async predict(sample, time, sampleIndices) {
      const count = sampleIndices.length;
      const { noise_pred: predicted } = await session.run({
        sample: new Tensor("float32", sample, [count, 1, 16, 16]),
        timestep: new Tensor("int64", new BigInt64Array(count).fill(BigInt(time)), [count]),
        class_labels: new Tensor("int64", BigInt64Array.from(sampleIndices, labelOf), [count]),
      });
      return (predicted as Tensor).data as Float32Array;
    },
  };
}

describe.skipIf(!present)("a shipped model (skipped where ../shared is absent)", () => {
  it.each(["dit-mnist", "unet-mnist"])("%s: the schedule is that of the config, bit for bit", (model) => {
    const { config, timesteps, floats } = readReference(model);
    expect(createSignalLevels(config)).toEqual(floats("alphas_cumprod"));
    const scheduler = createScheduler(config, 20);
    expect(Array.from(scheduler.timesteps)).toEqual(timesteps);
    expect(scheduler).toMatchObject({ name: "DDIMScheduler", substitutedFor: null, initialScale: 1 });
    expect(scheduler).toMatchObject({ trainTimesteps: 1000, timeRange: { start: 0, end: 1000 } });
  });

  // 20 DDIM steps amplify the last bits in which ONNX Runtime and torch differ, to 3e-5 where this was written.
  it.each([
    { model: "dit-mnist", name: "ddim20", guidanceScale: null, sampleCount: 16 },
    { model: "unet-mnist", name: "ddim20", guidanceScale: null, sampleCount: 16 },
    { model: "dit-mnist", name: "ddim20_cfg2", guidanceScale: 2, sampleCount: 8 },
    { model: "unet-mnist", name: "ddim20_cfg2", guidanceScale: 2, sampleCount: 8 },
  ])("$model draws the samples of $name", async ({ model, name, guidanceScale, sampleCount }) => {
    const { config, labels, floats } = readReference(model);
    const conditional = await openDenoiser(model, (i) => labels[i] as bigint);
    const denoiser =
      guidanceScale === null
        ? conditional
        : guideDenoiser(conditional, await openDenoiser(model, () => NO_CLASS), guidanceScale);
    const sample = await sampleBatch({
      denoiser,
      scheduler: createScheduler(config, 20),
      sample: floats("x_T").slice(0, sampleCount * SAMPLE_LENGTH),
      sampleIndices: Array.from({ length: sampleCount }, (_, i) => i),
      noise: seedNoise(0),
    });
    const expected = floats(name).slice(0, sampleCount * SAMPLE_LENGTH);
    const worst = expected.reduce((most, value, i) => Math.max(most, Math.abs(value - (sample[i] as number))), 0);
    expect(worst).toBeLessThan(1e-3);
  });
});
