/** What samplers do with denoisers whose answer is known in closed form. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { seedNoise } from "../../dist/sampler/noise.js";
import { createNoiseLevels, createSignalLevels } from "../../dist/sampler/noise-schedule.js";
import { sampleBatch } from "../../dist/sampler/sample.js";
import { createScheduler } from "../../dist/sampler/schedulers.js";

type Config = Record<string, unknown> & { _class_name: string };

const silence = { fill: (into: Float32Array) => into.fill(0) };
const signalOf = (config: Config) => createSignalLevels(scheduleOf(config) as never);

/** A config's noise schedule, filled up with the defaults that the tests' classes share. */
function scheduleOf(config: Config) {
  return {
    num_train_timesteps: 1000,
    beta_start: 0.0001,
    beta_end: 0.02,
    beta_schedule: "linear",
    trained_betas: null,
    rescale_betas_zero_snr: false,
    ...config,
  };
}

const betaSchedules = fc.record({
  beta_schedule: fc.constantFrom("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"),
  timestep_spacing: fc.constantFrom("leading", "trailing", "linspace"),
  prediction_type: fc.constantFrom("epsilon", "v_prediction", "sample"),
});
const values = fc.array(fc.float({ min: -1, max: 1, noNaN: true }), { minLength: 1, maxLength: 6 });

/** What a perfect model predicts where x = α·x₀ + σ·ε. */
function predictPoint(type: string, x: ArrayLike<number>, point: readonly number[], alpha: number, sigma: number) {
  return Float32Array.from(point, (data, i) => {
    const epsilon = ((x[i] as number) - alpha * data) / sigma;
    if (type === "sample") return data;
    return type === "epsilon" ? epsilon : alpha * epsilon - sigma * data;
  });
}

function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  return Array.from(a).reduce((most, value, i) => Math.max(most, Math.abs(value - (b[i] as number))), 0);
}

describe("where all data is one point", () => {
  it("DDIM keeps the noise that it started from, and ends at the point", () => {
    fc.assert(
      fc.property(betaSchedules, values, fc.integer({ min: 2, max: 30 }), (chosen, point, steps) => {
        const config = { _class_name: "DDIMScheduler", clip_sample: false, ...chosen };
        const scheduler = createScheduler(config, steps);
        const levels = signalOf(config);
        const start = Float32Array.from(point, (_, i) => 0.7 - i / 3);
        const level = levels[scheduler.timesteps[0] as number] as number;
        const noise = start.map((x, i) => (x - Math.sqrt(level) * (point[i] as number)) / Math.sqrt(1 - level));
        const sample = start.slice();
        let rounding = 0;
        scheduler.timesteps.forEach((timestep, i) => {
          const alpha = Math.sqrt(levels[timestep] as number);
          const sigma = Math.sqrt(1 - (levels[timestep] as number));
          scheduler.step(sample, predictPoint(chosen.prediction_type, sample, point, alpha, sigma), i, silence);
          const next = levels[scheduler.timesteps[i + 1] ?? -1] ?? 1;
          const line = point.map((x, k) => Math.sqrt(next) * x + Math.sqrt(1 - next) * (noise[k] as number));
          // The prediction's rounding is amplified where little signal is left, and stays in the noise from there.
          rounding = Math.max(rounding, (1e-6 * Math.sqrt(next)) / alpha);
          expect(largestDifference(sample, line)).toBeLessThan(rounding);
        });
        expect(largestDifference(sample, point)).toBeLessThan(1e-5);
      }),
      { numRuns: 60 },
    );
  });

  const sigmaSpacings = fc.constantFrom({}, { use_karras_sigmas: true }, { use_exponential_sigmas: true });
  it.each(["EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler"])(
    "%s ends at the point, with any noise on the way",
    (name) => {
      fc.assert(
        fc.property(
          betaSchedules,
          sigmaSpacings,
          values,
          fc.integer({ min: 2, max: 30 }),
          (chosen, spaced, point, steps) => {
            const config = { _class_name: name, ...chosen, ...spaced };
            const scheduler = createScheduler(config, steps);
            const noise = seedNoise(1);
            const sample = Float32Array.from(point, (_, i) => scheduler.initialScale * (0.7 - i / 3));
            for (let i = 0; i < steps; i++) {
              const input = sample.slice();
              scheduler.scaleInput(input, i);
              // The input is α·x with α² = 1/(1 + σ²), of which the model reads the level.
              const alpha = (input[0] as number) / (sample[0] as number);
              const prediction = predictPoint(chosen.prediction_type, input, point, alpha, Math.sqrt(1 - alpha ** 2));
              scheduler.step(sample, prediction, i, noise);
            }
            expect(largestDifference(sample, point)).toBeLessThan(1e-4);
          },
        ),
        { numRuns: 40 },
      );
    },
  );

  it("flow matching goes straight there, by whatever levels", () => {
    const flows = fc.record({
      shift: fc.double({ min: 0.1, max: 20, noNaN: true }),
      shift_terminal: fc.option(fc.double({ min: 0.01, max: 0.9, noNaN: true })),
      use_karras_sigmas: fc.boolean(),
      stochastic_sampling: fc.boolean(),
    });
    fc.assert(
      fc.property(flows, values, fc.integer({ min: 1, max: 30 }), (chosen, point, steps) => {
        const scheduler = createScheduler({ _class_name: "FlowMatchEulerDiscreteScheduler", ...chosen }, steps);
        const sample = Float32Array.from(point, (_, i) => 1.3 - i / 3);
        scheduler.timesteps.forEach((timestep, i) => {
          const sigma = timestep / 1000;
          // ε − x₀ of x = (1 − σ)·x₀ + σ·ε.
          const velocity = sample.map((x, k) => (x - (point[k] as number)) / sigma);
          scheduler.step(sample, velocity, i, seedNoise(2));
        });
        expect(largestDifference(sample, point)).toBeLessThan(1e-5);
      }),
      { numRuns: 60 },
    );
  });

  it("an inverted flow runs from level 0 to 1", () => {
    const scheduler = createScheduler({ _class_name: "FlowMatchEulerDiscreteScheduler", invert_sigmas: true }, 9);
    const sample = Float32Array.of(2, -1);
    const velocity = Float32Array.of(-1.5, 0.25);
    for (let i = 0; i < 9; i++) scheduler.step(sample, velocity, i, silence);
    expect(largestDifference(sample, [0.5, -0.75])).toBeLessThan(1e-6);
    expect(scheduler.timesteps[0]).toBe(0);
  });

  it.each(["epsilon", "v_prediction", "sample"])(
    "LCM of %s is at the point after every step but for its noise",
    (type) => {
      const config = { _class_name: "LCMScheduler", prediction_type: type };
      const scheduler = createScheduler(config, 4);
      const levels = signalOf({ ...config, beta_start: 0.00085, beta_end: 0.012, beta_schedule: "scaled_linear" });
      const point = [0.5, -0.9];
      const sample = Float32Array.of(1.5, 0.2);
      scheduler.timesteps.forEach((timestep, i) => {
        const level = levels[timestep] as number;
        const prediction = predictPoint(type, sample, point, Math.sqrt(level), Math.sqrt(1 - level));
        scheduler.step(sample, prediction, i, silence);
        const next = levels[scheduler.timesteps[i + 1] ?? -1] ?? 1;
        expect(
          largestDifference(
            sample,
            point.map((x) => Math.sqrt(next) * x),
          ),
        ).toBeLessThan(1e-5);
      });
    },
  );

  it("a consistency model is at the point after every step but for its noise", () => {
    const scheduler = createScheduler({ _class_name: "CMStochasticIterativeScheduler" }, 5);
    const point = [0.5, -0.9];
    const sample = Float32Array.of(60, -40);
    const levels = scheduler.timesteps.map((time) => Math.exp(time / 250));
    levels.forEach((sigma, i) => {
      const skip = 0.25 / ((sigma - 0.002) ** 2 + 0.25);
      const out = ((sigma - 0.002) * 0.5) / Math.sqrt(sigma ** 2 + 0.25);
      const network = sample.map((x, k) => ((point[k] as number) - skip * x) / out);
      scheduler.step(sample, network, i, silence);
      expect(largestDifference(sample, point)).toBeLessThan(1e-5);
      // Of the least noise, 0.002, there is enough in x₀ already.
      const added = Float32Array.of(0);
      scheduler.step(added, Float32Array.of(0), i, { fill: (into) => into.fill(1) });
      const next = levels[i + 1] ?? 0.002;
      expect(added[0]).toBeCloseTo(Math.sqrt(next ** 2 - 0.002 ** 2), 4);
    });
  });
});

/** A model whose answer bends: no two solvers agree on it by chance. */
const bend = (x: number, time: number) => Math.tanh(1.5 * x + time / 700) + 0.3 * Math.sin(4 * x);

it("DDIM and Euler are one method in two variables (x and x/sqrt(ᾱ))", () => {
  fc.assert(
    fc.property(
      fc.constantFrom("epsilon", "v_prediction", "sample"),
      fc.integer({ min: 2, max: 25 }),
      fc.float({ min: -2, max: 2, noNaN: true }),
      (type, steps, start) => {
        const shared = { prediction_type: type, timestep_spacing: "leading" };
        const ddim = createScheduler({ _class_name: "DDIMScheduler", clip_sample: false, ...shared }, steps);
        const euler = createScheduler({ _class_name: "EulerDiscreteScheduler", ...shared }, steps);
        expect(ddim.timesteps).toEqual(euler.timesteps);
        const preserving = Float32Array.of(start);
        const levels = signalOf({ _class_name: "" });
        const exploding = Float32Array.of(start / Math.sqrt(levels[ddim.timesteps[0] as number] as number));
        ddim.timesteps.forEach((time, i) => {
          ddim.step(
            preserving,
            preserving.map((x) => bend(x, time)),
            i,
            silence,
          );
          const input = exploding.slice();
          euler.scaleInput(input, i);
          euler.step(
            exploding,
            input.map((x) => bend(x, time)),
            i,
            silence,
          );
        });
        const scale = Math.max(1, Math.abs(preserving[0] as number));
        expect(largestDifference(preserving, exploding)).toBeLessThan(1e-3 * scale);
      },
    ),
    { numRuns: 40, seed: 5 },
  );
});

describe("ancestral steps", () => {
  const spacings = fc.record({
    timestep_spacing: fc.constantFrom("leading", "trailing", "linspace"),
    prediction_type: fc.constantFrom("epsilon", "v_prediction", "sample"),
  });

  it("DDPM's mean is that of x' given x and x₀, by Bayes' rule", () => {
    fc.assert(
      fc.property(spacings, fc.integer({ min: 2, max: 50 }), values, (chosen, steps, point) => {
        const config = { _class_name: "DDPMScheduler", clip_sample: false, ...chosen };
        const scheduler = createScheduler(config, steps);
        const levels = signalOf(config);
        scheduler.timesteps.forEach((timestep, i) => {
          const level = levels[timestep] as number;
          const next = levels[scheduler.timesteps[i + 1] ?? -1] ?? 1;
          const kept = level / next;
          const sample = Float32Array.from(point, (_, k) => 0.4 * k - 1);
          // Prior N(sqrt(ᾱ')·x₀, 1 − ᾱ'), likelihood N(x; sqrt(kept)·x', 1 − kept): means weighed by precision.
          const mean = Array.from(sample, (x, k) => {
            if (next === 1) return point[k] as number;
            const prior = 1 / (1 - next);
            const likelihood = kept / (1 - kept);
            return (
              (prior * Math.sqrt(next) * (point[k] as number) + (likelihood * x) / Math.sqrt(kept)) /
              (prior + likelihood)
            );
          });
          const prediction = predictPoint(
            chosen.prediction_type,
            sample,
            point,
            Math.sqrt(level),
            Math.sqrt(1 - level),
          );
          scheduler.step(sample, prediction, i, silence);
          expect(largestDifference(sample, mean)).toBeLessThan(2e-6 / Math.sqrt(level));
        });
      }),
      { numRuns: 30 },
    );
  });

  it("DDIM with all of the noise is DDPM", () => {
    fc.assert(
      fc.property(spacings, fc.integer({ min: 2, max: 30 }), values, (chosen, steps, start) => {
        const shared = { clip_sample: false, ...chosen };
        const ddim = createScheduler({ _class_name: "DDIMScheduler", ...shared }, steps, { eta: 1 });
        const ddpm = createScheduler({ _class_name: "DDPMScheduler", ...shared }, steps);
        for (let i = 0; i < steps; i++) {
          const a = Float32Array.from(start);
          const b = Float32Array.from(start);
          const prediction = Float32Array.from(start, (x) => bend(x, i));
          ddim.step(a, prediction, i, seedNoise(i));
          ddpm.step(b, prediction, i, seedNoise(i));
          expect(largestDifference(a, b)).toBeLessThan(1e-6 * Math.max(1, ...a.map(Math.abs)));
        }
      }),
      { numRuns: 30 },
    );
  });

  // Of data N(0, 1) every x is N(0, 1), the best prediction of ε is sqrt(1 − ᾱ)·x, and one ancestral step makes
  // sqrt(1 − β)·x + sqrt(β)·n of it: as many, as wide.
  it("DDPM with the large variance keeps the variance of normal data", async () => {
    const config: Config = { _class_name: "DDPMScheduler", variance_type: "fixed_large", clip_sample: false };
    const levels = signalOf(config);
    const scheduler = createScheduler(config, 25);
    const count = 40_000;
    const noise = seedNoise(11);
    const sample = new Float32Array(count);
    noise.fill(sample);
    const variances: number[] = [];
    await sampleBatch({
      denoiser: {
        predict: async (x, time) => x.map((value) => Math.sqrt(1 - (levels[time] as number)) * value),
      },
      scheduler,
      sample,
      sampleIndices: [0],
      noise,
      onStep: ({ input }) => {
        variances.push(input.reduce((sum, x) => sum + x * x, 0) / count);
      },
    });
    // A variance estimated from n normals has the standard error sqrt(2/n); five of them.
    for (const variance of variances) expect(Math.abs(variance - 1)).toBeLessThan(5 * Math.sqrt(2 / count));
  });

  it("Euler ancestral adds as much noise as it took more than the next level asks", () => {
    const config = { _class_name: "EulerAncestralDiscreteScheduler" };
    const scheduler = createScheduler(config, 12);
    const levels = createNoiseLevels(scheduleOf(config) as never);
    scheduler.timesteps.forEach((time, i) => {
      // Along ε = 1 a step without noise goes from level σ to where x has fallen to; the noise then makes up for
      // what is missing in variance.
      const left = Float32Array.of(1);
      scheduler.step(left, Float32Array.of(1), i, silence);
      const sigma = levelAt(levels, time);
      const below = sigma + (left[0] as number) - 1;
      const added = Float32Array.of(0);
      scheduler.step(added, Float32Array.of(0), i, { fill: (into) => into.fill(1) });
      const next = scheduler.timesteps[i + 1];
      const target = next === undefined ? 0 : levelAt(levels, next);
      const found = Math.hypot(below, added[0] as number);
      expect(Math.abs(found - target)).toBeLessThan(1e-6 * Math.max(1, sigma));
    });
  });
});

function levelAt(levels: Float32Array, time: number): number {
  const below = Math.floor(time);
  const low = levels[below] as number;
  return low + ((levels[below + 1] ?? low) - low) * (time - below);
}

describe("clipping", () => {
  it("keeps x₀ in its range, whatever the model says", () => {
    const config = { _class_name: "DDIMScheduler", clip_sample_range: 0.5 };
    const scheduler = createScheduler(config, 10);
    const sample = Float32Array.of(5, -5, 0.1);
    // The last step of DDIM is x₀.
    scheduler.step(sample, Float32Array.of(-3, 3, 0), 9, silence);
    expect(Array.from(sample)).toEqual([0.5, -0.5, expect.closeTo(0.1, 4)]);
  });
});
