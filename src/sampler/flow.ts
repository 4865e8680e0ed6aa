/**
 * Flow matching: x = (1 − σ)·x₀ + σ·ε, the model predicts the velocity ε − x₀ and sees σ·T (arXiv 2210.02747;
 * 2403.03206 for the shift).
 */
import { ArrowQuantError } from "../errors.js";
import type { DpmConfig, FlowConfig } from "./config.js";
import type { SchedulerOptions, SchedulerTable, StepRule } from "./scheduler.js";
import { spaceSigmas } from "./sigmas.js";

/** Euler's steps along the flow. */
export function createFlow(config: FlowConfig, steps: number, options: SchedulerOptions): SchedulerTable {
  const trainCount = config.num_train_timesteps;
  const shift = config.use_dynamic_shifting ? readDynamicShift(config, options) : config.shift;
  // Pipelines that shift dynamically (Flux, Qwen-Image, LTX) divide 1 into `steps` levels; the others leave it to
  // the scheduler, which ends at the shifted level of the first training timestep.
  const least = config.use_dynamic_shifting ? 1 / steps : shiftSigma(1 / trainCount, shift);
  const even = Float64Array.from({ length: steps }, (_, i) => (steps === 1 ? 1 : 1 + ((least - 1) * i) / (steps - 1)));
  const shifted = stretchToTerminal(
    even.map((sigma) => shiftSigma(sigma, shift)),
    config.shift_terminal,
  );
  const falling = spaceSigmas(config, shifted, { smallest: null, largest: null });
  const sigmas = falling.map((sigma) => Math.fround(config.invert_sigmas ? 1 - sigma : sigma));
  return createFlowTable(sigmas, config.invert_sigmas ? 1 : 0, trainCount, config.stochastic_sampling);
}

/** Stands in for the DPM-Solver family where its levels are those of a flow (Wan, Sana). */
export function createFlowOfDpm(config: DpmConfig, steps: number, options: SchedulerOptions): SchedulerTable {
  const trainCount = config.num_train_timesteps;
  const shift = config.use_dynamic_shifting ? readGivenShift(config, options) : config.flow_shift;
  const step = (1 / trainCount - 1) / steps;
  const levels = stretchToTerminal(
    Float64Array.from({ length: steps }, (_, i) => shiftSigma(1 + i * step, shift)),
    config.shift_terminal,
  );
  return {
    ...createFlowTable(levels.map(Math.fround), 0, trainCount, false),
    // These classes take whole timesteps, the largest being trainCount − 1.
    timesteps: levels.map((sigma) => Math.min(Math.trunc(sigma * trainCount), trainCount - 1)),
  };
}

function createFlowTable(
  sigmas: Float64Array,
  last: number,
  trainCount: number,
  isStochastic: boolean,
): SchedulerTable {
  return {
    name: "FlowMatchEulerDiscreteScheduler",
    timesteps: sigmas.map((sigma) => Math.fround(sigma * trainCount)),
    initialScale: 1,
    trainTimesteps: trainCount,
    timeRange: { start: 0, end: trainCount },
    inputScales: null,
    rules: Array.from(sigmas, (sigma, i): StepRule => {
      const next = sigmas[i + 1] ?? last;
      const toData = { dataFromSample: 1, dataFromPrediction: -sigma, clip: Infinity };
      return isStochastic
        ? { ...toData, fromData: 1 - next, fromSample: 0, fromPrediction: 0, noise: next }
        : { ...toData, fromData: 0, fromSample: 1, fromPrediction: next - sigma, noise: 0 };
    }),
  };
}

/** shift·σ/(1 + (shift − 1)·σ): more of the steps where there is much noise (arXiv 2403.03206, equation 23). */
function shiftSigma(sigma: number, shift: number): number {
  return (shift * sigma) / (1 + (shift - 1) * sigma);
}

/** Stretches the distances from 1, so that the last level is `terminal` (LTX-Video). */
function stretchToTerminal(sigmas: Float64Array, terminal: number | null): Float64Array {
  const distance = 1 - (sigmas[sigmas.length - 1] as number);
  // A single level is 1 and stays there.
  if (terminal === null || distance === 0) return sigmas;
  return sigmas.map((sigma) => 1 - ((1 - sigma) * (1 - terminal)) / distance);
}

/** The shift that `mu` means, or the config's line at the number of image tokens. */
function readDynamicShift(config: FlowConfig, options: SchedulerOptions): number {
  if (options.mu !== undefined || options.imageTokens === undefined) return readGivenShift(config, options);
  const { base_shift: least, max_shift: most, base_image_seq_len: fewest, max_image_seq_len: largest } = config;
  const mu = least + ((most - least) * (options.imageTokens - fewest)) / (largest - fewest);
  return readGivenShift(config, { mu });
}

function readGivenShift(
  { time_shift_type: type }: { readonly time_shift_type: FlowConfig["time_shift_type"] },
  { mu }: SchedulerOptions,
): number {
  if (mu === undefined) {
    throw new ArrowQuantError("E_SCHEDULER", "use_dynamic_shifting: the shift depends on the size of the image", {
      hint: "give mu, or for flow matching imageTokens, or set use_dynamic_shifting to false and shift in scheduler_config.json",
    });
  }
  const shift = type === "exponential" ? Math.exp(mu) : mu;
  if (shift >= 1e-6 && shift <= 1e6) return shift;
  throw new ArrowQuantError("E_SCHEDULER", `mu ${mu} (${type}) shifts by ${shift}, which is not from 1e-6 to 1e6`, {
    details: { mu, type, shift },
  });
}
