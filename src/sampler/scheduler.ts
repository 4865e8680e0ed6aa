/**
 * A scheduler is a table: which times the model sees, and per step the coefficients of
 *
 *   x₀ = clamp(dataFromSample·x + dataFromPrediction·p, ±clip)
 *   x  ← fromData·x₀ + fromSample·x + fromPrediction·p + noise·n
 *
 * with sample x, prediction p, fresh normals n. Every sampler here is of that form; they differ in the numbers.
 */
import type { PredictionType } from "./config.js";
import type { NoiseSource } from "./noise.js";

export interface StepRule {
  readonly dataFromSample: number;
  readonly dataFromPrediction: number;
  /** Largest magnitude of x₀; Infinity: no clipping. */
  readonly clip: number;
  readonly fromData: number;
  readonly fromSample: number;
  readonly fromPrediction: number;
  /** Standard deviation of the noise added; 0: none is drawn. */
  readonly noise: number;
}

export interface Scheduler {
  /** Class whose formula runs, as diffusers names it. */
  readonly name: string;
  /** Class that the config names, where `name` stands in for it: same noise schedule, another solver; else null. */
  readonly substitutedFor: string | null;
  /** As fed to the model, in visiting order. */
  readonly timesteps: Float64Array;
  /** Standard deviation of the start noise. */
  readonly initialScale: number;
  readonly trainTimesteps: number;
  /** Times that the model was trained on, from the least to the largest. */
  readonly timeRange: { readonly start: number; readonly end: number };
  /** Makes of `sample` what the model takes at that step, in place. */
  scaleInput(sample: Float32Array, stepIndex: number): void;
  /** Takes `sample` one step on, in place. Both have the same length; draws noise only where the step needs it. */
  step(sample: Float32Array, prediction: Float32Array, stepIndex: number, noise: NoiseSource): void;
}

export interface SchedulerTable {
  readonly name: string;
  readonly timesteps: Float64Array;
  readonly initialScale: number;
  readonly trainTimesteps: number;
  readonly timeRange: { readonly start: number; readonly end: number };
  /** Factors of the model's input, one per step; null: the sample itself. */
  readonly inputScales: Float64Array | null;
  readonly rules: readonly StepRule[];
}

/** What a caller can choose beside the config. */
export interface SchedulerOptions {
  /** DDIM: share of the ancestral noise, 0 (default, deterministic) to 1. */
  readonly eta?: number;
  /** Flow matching with dynamic shifting: the shift itself … */
  readonly mu?: number;
  /** … or the tokens of the image (latent height × width / patch²), from which the config's line gives it. */
  readonly imageTokens?: number;
}

export function createTableScheduler(table: SchedulerTable, substitutedFor: string | null): Scheduler {
  const { rules, inputScales, ...shown } = table;
  return {
    ...shown,
    substitutedFor,
    scaleInput(sample, stepIndex) {
      if (inputScales === null) return;
      const scale = inputScales[stepIndex] as number;
      for (let i = 0; i < sample.length; i++) sample[i] = (sample[i] as number) * scale;
    },
    step(sample, prediction, stepIndex, noise) {
      applyRule(rules[stepIndex] as StepRule, sample, prediction, noise);
    },
  };
}

/** In float64, rounded once. */
function applyRule(rule: StepRule, sample: Float32Array, prediction: Float32Array, noise: NoiseSource): void {
  const { dataFromSample, dataFromPrediction, clip, fromData, fromSample, fromPrediction } = rule;
  const drawn = rule.noise === 0 ? null : new Float32Array(sample.length);
  if (drawn !== null) noise.fill(drawn);
  for (let i = 0; i < sample.length; i++) {
    const x = sample[i] as number;
    const p = prediction[i] as number;
    const data = Math.min(Math.max(dataFromSample * x + dataFromPrediction * p, -clip), clip);
    const next = fromData * data + fromSample * x + fromPrediction * p;
    sample[i] = drawn === null ? next : next + rule.noise * (drawn[i] as number);
  }
}

/** Of x = α·x₀ + σ·ε, α² + σ² = 1: x₀ and ε as sums of x and the prediction, each [of x, of p]. */
export interface PredictionReading {
  readonly data: readonly [number, number];
  readonly noise: readonly [number, number];
}

export const PREDICTION_READINGS: Readonly<
  Record<PredictionType, (alpha: number, sigma: number) => PredictionReading>
> = {
  epsilon: (alpha, sigma) => ({ data: [1 / alpha, -sigma / alpha], noise: [0, 1] }),
  // arXiv 2202.00512, appendix D: v = α·ε − σ·x₀.
  v_prediction: (alpha, sigma) => ({ data: [alpha, -sigma], noise: [sigma, alpha] }),
  sample: (alpha, sigma) => ({ data: [0, 1], noise: [1 / sigma, -alpha / sigma] }),
};
