/** What createScheduler makes of configs: timesteps by hand, and no bad number gets through. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArrowQuantError } from "../../dist/errors.js";
import { createScheduler, SCHEDULERS } from "../../dist/sampler/schedulers.js";

const times = (config: unknown, steps: number, options = {}) =>
  Array.from(createScheduler(config, steps, options).timesteps);

describe("timesteps, by hand", () => {
  it.each([
    // k·(1000 // 4) and an offset; 1000 − k·1000/3 rounded, less 1; k·999/4, halves to even.
    ["DDIMScheduler", { timestep_spacing: "leading" }, 4, [750, 500, 250, 0]],
    ["DDIMScheduler", { timestep_spacing: "leading", steps_offset: 1 }, 3, [667, 334, 1]],
    ["DDPMScheduler", { timestep_spacing: "trailing" }, 3, [999, 666, 332]],
    ["DDIMScheduler", { timestep_spacing: "linspace" }, 5, [999, 749, 500, 250, 0]],
    ["EulerDiscreteScheduler", { timestep_spacing: "linspace" }, 5, [999, 749.25, 499.5, 249.75, 0]],
    // The published four of latent consistency models: 20·(50, 38, 25, 13) − 1.
    ["LCMScheduler", {}, 4, [999, 759, 499, 259]],
    // σ·1000: 1, 2/3, 1/3, 0.001; shifted by 3, σ → 3σ/(1 + 2σ), twice at the end.
    ["FlowMatchEulerDiscreteScheduler", { num_train_timesteps: 10, shift: 3 }, 2, [10, 5]],
    // Without a shift (mu 0) the four of Flux schnell.
    ["FlowMatchEulerDiscreteScheduler", { use_dynamic_shifting: true }, 4, [1000, 750, 500, 250]],
    // DPM-Solver leaves the last of steps + 1 out.
    ["DPMSolverMultistepScheduler", { timestep_spacing: "leading" }, 3, [750, 500, 250]],
    ["PNDMScheduler", { timestep_spacing: "leading" }, 4, [750, 500, 250, 0]],
  ])("%s %j in %d steps", (name, config, steps, expected) => {
    expect(times({ _class_name: name, ...config }, steps, { mu: 0 })).toEqual(expected);
  });

  it("of a consistency model are 250·ln σ, from 80 to 0.002", () => {
    const scheduler = createScheduler({ _class_name: "CMStochasticIterativeScheduler" }, 40);
    expect(scheduler.timesteps[0]).toBeCloseTo(1095.5066, 3);
    expect(scheduler.timesteps[39]).toBeCloseTo(-1553.652, 3);
    expect(scheduler.initialScale).toBe(80);
  });

  it("fall, and lie in the range that the model was trained on", () => {
    for (const name of Object.keys(SCHEDULERS)) {
      const { timesteps, timeRange } = createScheduler({ _class_name: name }, 20);
      for (const [i, time] of timesteps.entries()) {
        expect(time).toBeLessThan(timesteps[i - 1] ?? Infinity);
        expect(time).toBeGreaterThanOrEqual(timeRange.start);
        expect(time).toBeLessThanOrEqual(timeRange.end);
      }
    }
  });
});

it("the shift of a flow follows the size of the image, along the config's line", () => {
  const flux = { _class_name: "FlowMatchEulerDiscreteScheduler", use_dynamic_shifting: true };
  // base_shift 0.5 at 256 tokens, max_shift 1.15 at 4096.
  expect(times(flux, 6, { imageTokens: 256 })).toEqual(times(flux, 6, { mu: 0.5 }));
  expect(times(flux, 6, { imageTokens: 4096 })).toEqual(times(flux, 6, { mu: 1.15 }));
  expect(() => createScheduler(flux, 6)).toThrow(expect.objectContaining({ code: "E_SCHEDULER" }));
});

describe("refused with E_SCHEDULER", () => {
  const ddim = { _class_name: "DDIMScheduler" };
  it.each([
    ["no object", null, 20],
    ["no class", { beta_start: 0.1 }, 20],
    ["an unknown class", { _class_name: "DreamScheduler" }, 20],
    ["a property of all objects", { _class_name: "constructor" }, 20],
    ["no steps", ddim, 0],
    ["half a step", ddim, 2.5],
    ["more steps than timesteps", ddim, 1001],
    ["timesteps past the last", { ...ddim, steps_offset: 1 }, 1000],
    ["one step of linspace", { ...ddim, timestep_spacing: "linspace" }, 1],
    ["an unknown spacing", { ...ddim, timestep_spacing: "karras" }, 20],
    ["an unknown beta schedule", { ...ddim, beta_schedule: "laplace" }, 20],
    ["betas out of range", { ...ddim, beta_end: 1.5 }, 20],
    ["betas that add nothing", { ...ddim, beta_start: 1e-12, beta_end: 1e-12 }, 20],
    ["betas that leave nothing", { ...ddim, beta_start: 0.5, beta_end: 0.9 }, 20],
    ["betas that are no numbers", { ...ddim, beta_start: "0.1" }, 20],
    ["too few trained betas", { ...ddim, trained_betas: [0.1, 0.2] }, 20],
    ["a table that would fill memory", { ...ddim, num_train_timesteps: 1e12 }, 20],
    ["dynamic thresholding", { ...ddim, thresholding: true }, 20],
    ["a variance that the model predicts", { _class_name: "DDPMScheduler", variance_type: "learned_range" }, 20],
    ["noise predicted where no signal is", { ...ddim, rescale_betas_zero_snr: true, timestep_spacing: "trailing" }, 20],
    [
      "levels the wrong way round",
      { _class_name: "EulerDiscreteScheduler", use_karras_sigmas: true, sigma_min: 999 },
      20,
    ],
    [
      "two spacings",
      { _class_name: "EulerDiscreteScheduler", use_karras_sigmas: true, use_exponential_sigmas: true },
      20,
    ],
    ["beta sigmas", { _class_name: "FlowMatchEulerDiscreteScheduler", use_beta_sigmas: true }, 20],
    ["a flow without its levels", { _class_name: "UniPCMultistepScheduler", prediction_type: "flow_prediction" }, 20],
    ["more steps than were distilled", { _class_name: "LCMScheduler" }, 51],
    ["levels that do not fall", { _class_name: "CMStochasticIterativeScheduler", sigma_min: 80 }, 2],
  ])("%s", (_, config, steps) => {
    expect(() => createScheduler(config, steps)).toThrow(expect.objectContaining({ code: "E_SCHEDULER" }));
  });

  it.each([-0.1, 1.1, Number.NaN])("eta %d", (eta) => {
    expect(() => createScheduler(ddim, 20, { eta })).toThrow(expect.objectContaining({ code: "E_SCHEDULER" }));
  });

  it("and the key at fault is named", () => {
    expect(() => createScheduler({ ...ddim, beta_start: -1, clip_sample: 3 }, 20)).toThrow(
      /beta_start: .*clip_sample: /s,
    );
  });
});

it("whatever a config holds, a scheduler has finite numbers or there is none", () => {
  const number = fc.oneof(
    fc.double({ min: 0, max: 1 }),
    fc.double(),
    fc.integer({ min: -2, max: 60 }),
    fc.constantFrom(1e-300, 1e-7, 0.9999999, 1e6, 2 ** 53),
  );
  const values = {
    num_train_timesteps: fc.oneof(fc.integer({ min: 1, max: 200 }), number),
    beta_start: number,
    beta_end: number,
    beta_schedule: fc.constantFrom("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"),
    trained_betas: fc.oneof(fc.constant(null), fc.array(number, { maxLength: 4 })),
    rescale_betas_zero_snr: fc.boolean(),
    prediction_type: fc.constantFrom("epsilon", "v_prediction", "sample", "flow_prediction"),
    timestep_spacing: fc.constantFrom("leading", "trailing", "linspace"),
    timestep_type: fc.constantFrom("discrete", "continuous"),
    steps_offset: fc.integer({ min: 0, max: 5 }),
    set_alpha_to_one: fc.boolean(),
    clip_sample: fc.boolean(),
    use_karras_sigmas: fc.boolean(),
    use_exponential_sigmas: fc.boolean(),
    use_flow_sigmas: fc.boolean(),
    use_dynamic_shifting: fc.boolean(),
    invert_sigmas: fc.boolean(),
    stochastic_sampling: fc.boolean(),
    final_sigmas_type: fc.constantFrom("zero", "sigma_min"),
    variance_type: fc.constantFrom("fixed_small", "fixed_large"),
    sigma_min: fc.oneof(fc.constant(null), number),
    sigma_max: fc.oneof(fc.constant(null), number),
    sigma_data: number,
    shift: number,
    flow_shift: number,
    shift_terminal: fc.oneof(fc.constant(null), number),
    rho: number,
    timestep_scaling: number,
    original_inference_steps: fc.integer({ min: 1, max: 60 }),
  };
  // Few keys at once: most configs of many random values break at the first.
  const entry = fc.oneof(
    ...Object.entries(values).map(([key, value]) => value.map((chosen: unknown) => ({ [key]: chosen }))),
  );
  const config = fc.array(entry, { maxLength: 5 }).map((entries): object => Object.assign({}, ...entries));
  const options = fc.record({ eta: fc.constantFrom(0, 0.5, 1), mu: fc.oneof(fc.constantFrom(0, 1), number) });
  let built = 0;
  fc.assert(
    fc.property(
      fc.constantFrom(...Object.keys(SCHEDULERS)),
      config,
      fc.integer({ min: 1, max: 40 }),
      options,
      (name, rest, steps, chosen) => {
        try {
          const scheduler = createScheduler({ _class_name: name, ...rest }, steps, chosen);
          built++;
          expect(scheduler.timesteps).toHaveLength(steps);
          expect(Number.isFinite(scheduler.initialScale) && scheduler.initialScale > 0).toBe(true);
          for (let i = 0; i < steps; i++) {
            expect(Number.isFinite(scheduler.timesteps[i])).toBe(true);
            const sample = Float32Array.of(1, 0, 0, 1);
            scheduler.scaleInput(sample, i);
            expect(sample.every(Number.isFinite)).toBe(true);
            scheduler.step(sample, Float32Array.of(0, 1, 0, -1), i, { fill: (into) => into.fill(1) });
            expect(sample.every(Number.isFinite)).toBe(true);
          }
        } catch (error) {
          if (!(error instanceof ArrowQuantError)) throw error;
          expect(error.code).toBe("E_SCHEDULER");
        }
      },
    ),
    { numRuns: 1500 },
  );
  expect(built).toBeGreaterThan(100);
});
