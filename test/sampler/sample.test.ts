/** The loop: what the model is given, what it may answer, and how it stops. */
import { describe, expect, it } from "vitest";
import { seedBatchNoise } from "../../dist/sampler/noise.js";
import { type Denoiser, guideDenoiser, type SamplingJob, sampleBatch } from "../../dist/sampler/sample.js";
import { createScheduler } from "../../dist/sampler/schedulers.js";

const LENGTH = 4;
const bend: Denoiser = {
  predict: async (sample, time, sampleIndices) =>
    sample.map((x, i) => Math.sin(x + time / 300) * (1 + (sampleIndices[Math.floor(i / LENGTH)] as number) / 5)),
};

function job(sampleIndices: number[], changes: Partial<SamplingJob> = {}): SamplingJob {
  const noise = seedBatchNoise(1, sampleIndices);
  const sample = new Float32Array(LENGTH * sampleIndices.length);
  noise.fill(sample);
  const scheduler = createScheduler({ _class_name: "EulerAncestralDiscreteScheduler" }, 6);
  return { denoiser: bend, scheduler, sample, sampleIndices, noise, ...changes };
}

it("a sample does not depend on the batch that it is drawn in", async () => {
  const together = await sampleBatch(job([0, 1, 2]));
  const alone = await sampleBatch(job([2]));
  expect(together.subarray(2 * LENGTH)).toEqual(alone);
});

it("every step is shown before it is taken, with what the model saw", async () => {
  const seen: { stepIndex: number; time: number; variance: number }[] = [];
  const asked: number[][] = [];
  const { scheduler, ...rest } = job([4, 9]);
  await sampleBatch({
    ...rest,
    scheduler,
    denoiser: {
      predict: async (sample, time, indices) => {
        asked.push([time, ...indices]);
        return bend.predict(sample, time, indices);
      },
    },
    onStep: async ({ stepIndex, stepCount, time, input, prediction }) => {
      expect(stepCount).toBe(6);
      expect(prediction).toEqual(await bend.predict(input, time, [4, 9]));
      seen.push({ stepIndex, time, variance: input.reduce((sum, x) => sum + x * x, 0) / input.length });
    },
  });
  expect(seen.map(({ stepIndex }) => stepIndex)).toEqual([0, 1, 2, 3, 4, 5]);
  expect(seen.map(({ time }) => [time, 4, 9])).toEqual(asked);
  expect(asked.map(([time]) => time)).toEqual(Array.from(scheduler.timesteps));
  // Level 157 of noise at the start, scaled to a unit.
  expect(seen[0]?.variance).toBeLessThan(5);
});

it("a variance that the model predicts as well is left out, sample by sample", async () => {
  const withVariance: Denoiser = {
    predict: async (sample, time, indices) => {
      const prediction = await bend.predict(sample, time, indices);
      const both = new Float32Array(2 * sample.length).fill(77);
      for (let i = 0; i < indices.length; i++) {
        both.set(prediction.subarray(i * LENGTH, (i + 1) * LENGTH), 2 * i * LENGTH);
      }
      return both;
    },
  };
  expect(await sampleBatch(job([0, 1, 2], { denoiser: withVariance }))).toEqual(await sampleBatch(job([0, 1, 2])));
});

it("stops before the next step when its signal is aborted", async () => {
  const controller = new AbortController();
  const reason = new Error("enough");
  let steps = 0;
  const onStep = () => {
    if (++steps === 2) controller.abort(reason);
  };
  await expect(sampleBatch(job([0], { signal: controller.signal, onStep }))).rejects.toBe(reason);
  expect(steps).toBe(2);
});

describe("refused", () => {
  it.each([
    ["a prediction of another length", { predict: async () => new Float32Array(3) }, "E_SHAPE"],
    ["a prediction that is no number", { predict: async (x) => x.map((_, i) => (i === 5 ? NaN : 0)) }, "E_NONFINITE"],
  ] as [string, Denoiser, string][])("%s", async (_, denoiser, code) => {
    await expect(sampleBatch(job([3, 8], { denoiser }))).rejects.toMatchObject({ code });
  });

  it("and the sample at fault is named", async () => {
    const denoiser: Denoiser = { predict: async (x) => x.map((_, i) => (i === 5 ? Infinity : 0)) };
    await expect(sampleBatch(job([3, 8], { denoiser }))).rejects.toThrow(/Infinity for sample 8 at time 999/);
  });

  it.each([[[]], [[0, 1, 2]]])("samples %j of 8 values", async (sampleIndices) => {
    const wrong = job([0, 1], { sampleIndices });
    await expect(sampleBatch(wrong)).rejects.toMatchObject({ code: "E_SHAPE" });
  });
});

describe("guidance", () => {
  const without: Denoiser = { predict: async (sample) => sample.map((x) => x / 2) };
  const at = (scale: number) => guideDenoiser(bend, without, scale).predict(Float32Array.of(1, 2, 3, 4), 100, [0]);

  it("is the unconditional prediction at 0, the conditional at 1, and goes on as far again at 2", async () => {
    const [none, one, two] = [await at(0), await at(1), await at(2)];
    expect(none).toEqual(Float32Array.of(0.5, 1, 1.5, 2));
    const conditional = await bend.predict(Float32Array.of(1, 2, 3, 4), 100, [0]);
    for (let i = 0; i < 4; i++) {
      expect(one[i]).toBeCloseTo(conditional[i] as number, 6);
      expect(two[i]).toBeCloseTo(2 * (conditional[i] as number) - (none[i] as number), 6);
    }
  });
});
