/** Samplers that visit training timesteps in the variance-preserving form x = sqrt(ᾱ)·x₀ + sqrt(1 − ᾱ)·ε. */
import { ArrowQuantError } from "../errors.js";
import type { DdimConfig, DdpmConfig, PredictionType } from "./config.js";
import { createSignalLevels } from "./noise-schedule.js";
import { PREDICTION_READINGS, type PredictionReading, type SchedulerTable, type StepRule } from "./scheduler.js";
import { createTimestepGrid } from "./timestep-grid.js";

/**
 * DDIM (arXiv 2010.02502, equations 12 and 16); `eta` is the share of the ancestral noise, 0 to 1. A step goes to
 * the next timestep of the grid and the last one to `final` (1, or ᾱ₀). diffusers goes to t − T // steps instead:
 * the same for `leading` and where steps divides T, but under `linspace` a noise level that is visited by nobody.
 */
export function createDdim(config: DdimConfig, steps: number, eta: number): SchedulerTable {
  const levels = createSignalLevels(config);
  const final = config.set_alpha_to_one ? 1 : (levels[0] as number);
  const clip = config.clip_sample ? config.clip_sample_range : Infinity;
  return createDiscreteTable("DDIMScheduler", config, levels, steps, final, (level, next, reading) => {
    const variance = ((1 - next) / (1 - level)) * (1 - level / next);
    const noise = eta * Math.sqrt(variance);
    // The direction is that of the prediction as it came, even where x₀ was clipped.
    const direction = Math.sqrt(Math.max(1 - next - noise * noise, 0));
    return {
      dataFromSample: reading.data[0],
      dataFromPrediction: reading.data[1],
      clip,
      fromData: Math.sqrt(next),
      fromSample: direction * reading.noise[0],
      fromPrediction: direction * reading.noise[1],
      noise,
    };
  });
}

/** Ancestral sampling (arXiv 2006.11239, equation 7, for the steps visited); no noise at the last step. */
export function createDdpm(config: DdpmConfig, steps: number): SchedulerTable {
  const clip = config.clip_sample ? config.clip_sample_range : Infinity;
  const isLarge = config.variance_type.startsWith("fixed_large");
  return createDiscreteTable("DDPMScheduler", config, createSignalLevels(config), steps, 1, (level, next, reading) => {
    const beta = 1 - level / next;
    const posterior = (beta * (1 - next)) / (1 - level);
    const isLast = next === 1;
    return {
      dataFromSample: reading.data[0],
      dataFromPrediction: reading.data[1],
      clip,
      fromData: (Math.sqrt(next) * beta) / (1 - level),
      fromSample: (Math.sqrt(level / next) * (1 - next)) / (1 - level),
      fromPrediction: 0,
      noise: isLast ? 0 : Math.sqrt(isLarge ? beta : posterior),
    };
  });
}

interface DiscreteConfig {
  readonly num_train_timesteps: number;
  readonly timestep_spacing: DdimConfig["timestep_spacing"];
  readonly steps_offset: number;
  readonly prediction_type: PredictionType;
}

/** One rule per timestep of the grid, from its ᾱ and the next one's (`final` after the last). */
function createDiscreteTable(
  name: string,
  config: DiscreteConfig,
  levels: Float32Array,
  steps: number,
  final: number,
  ruleOf: (level: number, next: number, reading: PredictionReading) => StepRule,
): SchedulerTable {
  const timesteps = createTimestepGrid(config, steps);
  const visited = Array.from(timesteps, (timestep) => levels[timestep] as number);
  refuseNoSignal(config, timesteps, visited);
  return {
    name,
    timesteps,
    initialScale: 1,
    trainTimesteps: config.num_train_timesteps,
    timeRange: { start: 0, end: config.num_train_timesteps },
    inputScales: null,
    rules: visited.map((level, i) =>
      ruleOf(
        level,
        visited[i + 1] ?? final,
        PREDICTION_READINGS[config.prediction_type](Math.sqrt(level), Math.sqrt(1 - level)),
      ),
    ),
  };
}

/** Where nothing is left of the image, its noise does not tell what it was. */
export function refuseNoSignal(
  { prediction_type: type }: { readonly prediction_type: PredictionType },
  timesteps: ArrayLike<number>,
  visited: readonly number[],
): void {
  const at = visited.indexOf(0);
  if (at === -1 || type !== "epsilon") return;
  const message = `no signal is left at timestep ${timesteps[at]} (rescale_betas_zero_snr), and the model predicts noise`;
  throw new ArrowQuantError("E_SCHEDULER", message, {
    hint: "prediction_type is v_prediction or sample in such models; or use a timestep_spacing that leaves out the last",
    details: { timestep: timesteps[at], predictionType: type },
  });
}
