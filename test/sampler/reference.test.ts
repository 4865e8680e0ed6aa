/** The table of schedulers against diffusers' own (reference/generate.py made the figures). */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { sampleBatch } from "../../dist/sampler/sample.js";
import { createScheduler } from "../../dist/sampler/schedulers.js";

interface ReferenceRun {
  config: Record<string, unknown>;
  steps: number;
  options: { eta?: number; mu?: number };
  timesteps: number[] | null;
  initialScale: number;
  sample: number[];
}

const reference = JSON.parse(readFileSync(new URL("reference/schedulers.json", import.meta.url), "utf8")) as {
  runs: ReferenceRun[];
  grids: Pick<ReferenceRun, "config" | "steps" | "timesteps">[];
};

/** The noise that anyone can count (generate.py). */
function countNoise() {
  let count = 0;
  return {
    fill(into: Float32Array) {
      for (let i = 0; i < into.length; i++, count++) into[i] = ((count * 7919 + 13) % 1009) / 504 - 1;
    },
  };
}

const toyDenoiser = {
  predict: async (sample: Float32Array, time: number) =>
    sample.map((x, i) => 0.4 * x + ((i - 3.5) / 7) * (time / 1000)),
};

const titleOf = ({
  config: { _class_name: name, ...rest },
  steps,
}: {
  config: Record<string, unknown>;
  steps: number;
}) => `${name} in ${steps} steps, ${JSON.stringify(rest).slice(0, 120)}`;

describe("a scheduler's samples, timesteps and start are those of diffusers", () => {
  it.each(reference.runs.map((run) => ({ title: titleOf(run), run })))("$title", async ({ run }) => {
    const scheduler = createScheduler(run.config, run.steps, run.options);
    expect(scheduler.substitutedFor).toBeNull();
    expect(scheduler.name).toBe(run.config["_class_name"]);
    // diffusers keeps levels and times in float32.
    expect(Math.abs(scheduler.initialScale / run.initialScale - 1)).toBeLessThan(1e-6);
    if (run.timesteps !== null) {
      expect(scheduler.timesteps).toHaveLength(run.timesteps.length);
      const largest = Math.max(...run.timesteps.map(Math.abs));
      run.timesteps.forEach((timestep, i) => {
        expect(Math.abs((scheduler.timesteps[i] as number) - timestep)).toBeLessThan(1e-6 * largest);
      });
    }
    const noise = countNoise();
    const sample = new Float32Array(run.sample.length);
    noise.fill(sample);
    await sampleBatch({ denoiser: toyDenoiser, scheduler, sample, sampleIndices: [0], noise });
    const largest = Math.max(...run.sample.map(Math.abs));
    const worst = Math.max(...run.sample.map((value, i) => Math.abs(value - (sample[i] as number))));
    // Its steps are float32, ours float64: what is left is its rounding, step after step.
    expect(worst).toBeLessThan(largest * Math.max(1e-5, 1e-7 * run.steps));
  });
});

describe("a stand-in says so and visits the timesteps of the class that it stands in for", () => {
  it.each(reference.grids.map((grid) => ({ title: titleOf(grid), grid })))("$title", ({ grid }) => {
    const scheduler = createScheduler(grid.config, grid.steps);
    expect(scheduler.substitutedFor).toBe(grid.config["_class_name"]);
    expect(scheduler.name).not.toBe(scheduler.substitutedFor);
    expect(scheduler.timesteps).toHaveLength(grid.steps);
    const largest = Math.max(...(grid.timesteps as number[]));
    grid.timesteps?.forEach((timestep, i) => {
      expect(Math.abs((scheduler.timesteps[i] as number) - timestep)).toBeLessThan(1e-6 * largest);
    });
  });
});
