/** Euler's method on the probability flow in the variance-exploding form x = x₀ + σ·ε (arXiv 2206.00364). */
import type { DpmConfig, EulerAncestralConfig, EulerConfig, PredictionType } from "./config.js";
import { createNoiseLevels } from "./noise-schedule.js";
import { PREDICTION_READINGS, type SchedulerTable, type StepRule } from "./scheduler.js";
import { interpolateSigmas, locateSigma, spaceSigmas } from "./sigmas.js";
import { createTimestepGrid, roundHalfEven } from "./timestep-grid.js";

/** Euler as its own config says. */
export function createEuler(config: EulerConfig, steps: number): SchedulerTable {
  const table = createNoiseLevels(config);
  const grid = createTimestepGrid(config, steps, { fractional: true });
  const ends = { smallest: config.sigma_min, largest: config.sigma_max };
  const sigmas = spaceSigmas(config, interpolateSigmas(table, grid), ends).map(Math.fround);
  const isSpaced = config.use_karras_sigmas || config.use_exponential_sigmas;
  const isContinuous = config.timestep_type === "continuous" && config.prediction_type === "v_prediction";
  const last = config.final_sigmas_type === "sigma_min" ? (table[0] as number) : 0;
  const result = createEulerTable(config, sigmas, last, goStraight);
  return {
    ...result,
    name: "EulerDiscreteScheduler",
    initialScale: scaleStart(config, sigmas),
    // Models trained on σ itself take c_noise = ln(σ)/4 (arXiv 2206.00364, table 1).
    timesteps: isContinuous
      ? sigmas.map(logQuarter)
      : isSpaced
        ? sigmas.map((sigma) => Math.fround(locateSigma(table, sigma)))
        : grid,
    timeRange: isContinuous
      ? { start: logQuarter(sigmas[steps - 1] as number), end: logQuarter(sigmas[0] as number) }
      : { start: 0, end: config.num_train_timesteps },
  };
}

/** Each step goes below the level aimed at, and noise brings it back up (k-diffusion's Euler ancestral). */
export function createEulerAncestral(config: EulerAncestralConfig, steps: number): SchedulerTable {
  const table = createNoiseLevels(config);
  const timesteps = createTimestepGrid(config, steps, { fractional: true });
  const sigmas = interpolateSigmas(table, timesteps).map(Math.fround);
  const result = createEulerTable(config, sigmas, 0, (from, next) => {
    const added = Math.sqrt((next * next * (from * from - next * next)) / (from * from));
    return { to: Math.sqrt(next * next - added * added), added };
  });
  return {
    ...result,
    name: "EulerAncestralDiscreteScheduler",
    initialScale: scaleStart(config, sigmas),
    timesteps,
  };
}

/**
 * Stands in for the DPM-Solver family: its own timesteps and levels, first order. The model sees unit variance as
 * it does there, for those classes work in the variance-preserving form.
 */
export function createEulerOfDpm(
  config: DpmConfig & { prediction_type: PredictionType },
  steps: number,
): SchedulerTable {
  const table = createNoiseLevels(config);
  const grid = createTimestepGrid(config, steps, { open: true });
  const isSpaced = config.use_karras_sigmas || config.use_exponential_sigmas;
  // Spaced levels run over the whole table, not from the first timestep of the grid.
  const ends = {
    smallest: config.sigma_min ?? (table[0] as number),
    largest: config.sigma_max ?? (table[table.length - 1] as number),
  };
  const sigmas = spaceSigmas(config, interpolateSigmas(table, grid), ends).map(Math.fround);
  const last = config.final_sigmas_type === "sigma_min" ? (table[0] as number) : 0;
  return {
    ...createEulerTable(config, sigmas, last, goStraight),
    name: "EulerDiscreteScheduler",
    initialScale: withSignal(sigmas[0] as number),
    timesteps: isSpaced ? sigmas.map((sigma) => roundHalfEven(locateSigma(table, sigma))) : grid,
  };
}

/** Where a step from level `from` on the way to `next` goes by the flow, and the deviation of noise added then. */
type Aim = (from: number, next: number) => { readonly to: number; readonly added: number };

const goStraight: Aim = (_from, next) => ({ to: next, added: 0 });

/** x ← x + (σ' − σ)·(x − x₀)/σ, with σ' where `aim` says; the last step goes to `last`. */
function createEulerTable(
  config: { readonly num_train_timesteps: number; readonly prediction_type: PredictionType },
  sigmas: Float64Array,
  last: number,
  aim: Aim,
): Pick<SchedulerTable, "trainTimesteps" | "timeRange" | "inputScales" | "rules"> {
  return {
    trainTimesteps: config.num_train_timesteps,
    timeRange: { start: 0, end: config.num_train_timesteps },
    inputScales: sigmas.map((sigma) => 1 / withSignal(sigma)),
    rules: Array.from(sigmas, (sigma, i): StepRule => {
      const { to, added } = aim(sigma, sigmas[i + 1] ?? last);
      const alpha = 1 / withSignal(sigma);
      const { data } = PREDICTION_READINGS[config.prediction_type](alpha, sigma * alpha);
      return {
        // The reading is of the scaled sample, α·x.
        dataFromSample: data[0] * alpha,
        dataFromPrediction: data[1],
        clip: Infinity,
        fromData: 1 - to / sigma,
        fromSample: to / sigma,
        fromPrediction: 0,
        noise: added,
      };
    }),
  };
}

/** Where the first timestep is the last of training, σ alone; else the signal left there counts as noise, too. */
function scaleStart(config: { readonly timestep_spacing: string }, sigmas: Float64Array): number {
  const largest = sigmas[0] as number;
  return config.timestep_spacing === "leading" ? withSignal(largest) : largest;
}

/** Deviation of noise σ and a signal of variance 1 together. Math.hypot would differ between engines. */
function withSignal(sigma: number): number {
  return Math.sqrt(sigma * sigma + 1);
}

function logQuarter(sigma: number): number {
  return Math.fround(0.25 * Math.log(sigma));
}
