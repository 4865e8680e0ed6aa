/** Consistency models: every step predicts x₀ outright and adds noise of the next level (arXiv 2303.01469). */
import { ArrowQuantError } from "../errors.js";
import type { ConsistencyConfig, LcmConfig } from "./config.js";
import { refuseNoSignal } from "./ddim.js";
import { createSignalLevels } from "./noise-schedule.js";
import { PREDICTION_READINGS, type SchedulerTable, type StepRule } from "./scheduler.js";
import { karrasSigma } from "./sigmas.js";

/** σ of the data that latent consistency models assume (arXiv 2310.04378, section 4.1). */
const LCM_DATA_SIGMA = 0.5;

/** Multistep latent consistency sampling over the timesteps that the student was distilled on. */
export function createLcm(config: LcmConfig, steps: number): SchedulerTable {
  const trainCount = config.num_train_timesteps;
  const distilled = config.original_inference_steps;
  if (steps > distilled || distilled > trainCount) {
    const message = `${steps} steps of ${distilled} distilled steps of ${trainCount} training timesteps`;
    throw new ArrowQuantError("E_SCHEDULER", message, {
      hint: "steps ≤ original_inference_steps ≤ num_train_timesteps must hold",
      details: { steps, distilledSteps: distilled, trainTimesteps: trainCount },
    });
  }
  const ratio = Math.floor(trainCount / distilled);
  const timesteps = Float64Array.from(
    { length: steps },
    (_, i) => (distilled - Math.floor(i * (distilled / steps))) * ratio - 1,
  );
  const levels = createSignalLevels(config);
  const visited = Array.from(timesteps, (timestep) => levels[timestep] as number);
  refuseNoSignal(config, timesteps, visited);
  return {
    name: "LCMScheduler",
    timesteps,
    initialScale: 1,
    trainTimesteps: trainCount,
    timeRange: { start: 0, end: trainCount },
    inputScales: null,
    rules: visited.map((level, i): StepRule => {
      const { data } = PREDICTION_READINGS[config.prediction_type](Math.sqrt(level), Math.sqrt(1 - level));
      const time = (timesteps[i] as number) * config.timestep_scaling;
      const norm = time * time + LCM_DATA_SIGMA ** 2;
      // The last step ends at x₀.
      const next = visited[i + 1] ?? 1;
      return {
        dataFromSample: data[0],
        dataFromPrediction: data[1],
        clip: config.clip_sample ? config.clip_sample_range : Infinity,
        fromData: (Math.sqrt(next) * time) / Math.sqrt(norm),
        fromSample: (Math.sqrt(next) * LCM_DATA_SIGMA ** 2) / norm,
        fromPrediction: 0,
        noise: Math.sqrt(1 - next),
      };
    }),
  };
}

/** Algorithm 1 of arXiv 2303.01469 over Karras' levels; the model sees 250·ln σ and an input of unit variance. */
export function createConsistency(config: ConsistencyConfig, steps: number): SchedulerTable {
  const { num_train_timesteps: trainCount, sigma_min: least, sigma_max: largest, sigma_data: data } = config;
  if (steps > trainCount) {
    throw new ArrowQuantError("E_SCHEDULER", `${steps} steps are more than ${trainCount} training timesteps allow`, {
      hint: `use at most ${trainCount} steps`,
      details: { steps, trainTimesteps: trainCount },
    });
  }
  const ratio = Math.floor(trainCount / steps);
  const sigmas = Float64Array.from({ length: steps }, (_, i) =>
    karrasSigma((i * ratio) / (trainCount - 1), least, largest, config.rho),
  );
  const timeOf = (sigma: number) => 250 * Math.log(sigma);
  return {
    name: "CMStochasticIterativeScheduler",
    timesteps: sigmas.map(timeOf),
    initialScale: largest,
    trainTimesteps: trainCount,
    timeRange: { start: timeOf(least), end: timeOf(largest) },
    inputScales: sigmas.map((sigma) => 1 / Math.sqrt(sigma * sigma + data * data)),
    rules: Array.from(sigmas, (sigma, i): StepRule => {
      // Appendix C: the output is the input itself at the least level.
      const beyond = sigma - least;
      const next = sigmas[i + 1] ?? least;
      return {
        dataFromSample: (data * data) / (beyond * beyond + data * data),
        dataFromPrediction: (beyond * data) / Math.sqrt(sigma * sigma + data * data),
        clip: config.clip_denoised ? 1 : Infinity,
        fromData: 1,
        fromSample: 0,
        fromPrediction: 0,
        noise: config.s_noise * Math.sqrt(Math.max(next * next - least * least, 0)),
      };
    }),
  };
}
