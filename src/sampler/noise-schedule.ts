/**
 * How much signal is left at each training timestep: ᾱ_t = Π (1 − β_s) (DDPM, arXiv 2006.11239, section 2), in
 * float32 as diffusers keeps it: `alphas_cumprod` of a float32 linspace multiplied up in float64 comes out bit for
 * bit, and the last bits in which engines differ (Math.cos, Math.exp) are rounded away.
 */
import { ArrowQuantError } from "../errors.js";
import type { NoiseScheduleConfig } from "./config.js";

const { fround } = Math;

/** Largest β of the cosine schedule: it would reach 1, and no step could be inverted (arXiv 2102.09672). */
const MAX_COSINE_BETA = 0.999;
/** What is left of the signal at the last timestep where σ = sqrt((1 − ᾱ)/ᾱ) must stay finite (diffusers). */
const LEAST_SIGNAL = 2 ** -24;

type BetaSchedule = NoiseScheduleConfig["beta_schedule"];

/** β of every training timestep, before any rescaling. */
const BETAS: Readonly<Record<BetaSchedule, (count: number, start: number, end: number) => Float32Array>> = {
  linear: (count, start, end) => spaceEvenly(start, end, count),
  // Of latent diffusion: linear in sqrt(β).
  scaled_linear: (count, start, end) =>
    spaceEvenly(Math.sqrt(start), Math.sqrt(end), count).map((root) => fround(root * root)),
  squaredcos_cap_v2: (count) =>
    Float32Array.from({ length: count }, (_, t) =>
      Math.min(1 - cosineSignal((t + 1) / count) / cosineSignal(t / count), MAX_COSINE_BETA),
    ),
  sigmoid: (count, start, end) =>
    spaceEvenly(-6, 6, count).map((x) => fround(fround(1 / (1 + Math.exp(-x))) * (end - start) + start)),
};

/**
 * ᾱ of every training timestep, falling from below 1; only the last may be 0 (zero terminal SNR). `E_SCHEDULER`
 * where float32 cannot tell the levels apart.
 */
export function createSignalLevels(config: NoiseScheduleConfig): Float32Array {
  const count = config.num_train_timesteps;
  const trained = config.trained_betas;
  if (trained !== null && trained.length !== count) {
    const message = `trained_betas has ${trained.length} entries, num_train_timesteps is ${count}`;
    throw new ArrowQuantError("E_SCHEDULER", message, {
      details: { entryCount: trained.length, trainTimesteps: count },
    });
  }
  const betas =
    trained === null
      ? BETAS[config.beta_schedule](count, config.beta_start, config.beta_end)
      : Float32Array.from(trained);
  let product = 1;
  const levels = betas.map((beta) => {
    product *= fround(1 - beta);
    return product;
  });
  const result = config.rescale_betas_zero_snr ? rescaleToZeroSnr(levels) : levels;
  checkFalling(result);
  return result;
}

/** σ = sqrt((1 − ᾱ)/ᾱ) of every training timestep, rising (Karras et al., arXiv 2206.00364, variance exploding). */
export function createNoiseLevels(config: NoiseScheduleConfig): Float32Array {
  const levels = createSignalLevels(config);
  const last = levels.length - 1;
  if (levels[last] === 0) levels[last] = LEAST_SIGNAL;
  checkFalling(levels);
  return levels.map((level) => Math.sqrt((1 - level) / level));
}

function checkFalling(levels: Float32Array): void {
  const at = levels.findIndex((level, t) => !(level < (levels[t - 1] ?? 1)));
  if (at === -1) return;
  const message = `the betas leave ${levels[at]} of the signal at timestep ${at}, ${levels[at - 1] ?? 1} before it`;
  throw new ArrowQuantError("E_SCHEDULER", message, {
    hint: "betas below 1e-7 add no noise, and too many large ones leave nothing: correct scheduler_config.json",
    details: { timestep: at, level: levels[at], levelBefore: levels[at - 1] ?? 1 },
  });
}

/** sqrt(ᾱ) shifted to end at 0 and stretched to begin where it did (arXiv 2305.08891, algorithm 1). */
function rescaleToZeroSnr(levels: Float32Array): Float32Array {
  const roots = levels.map((level) => Math.sqrt(level));
  const first = roots[0] as number;
  const last = roots[roots.length - 1] as number;
  const stretch = fround(first / fround(first - last));
  return roots.map((root) => fround(fround(root - last) * stretch) ** 2);
}

/** ᾱ(t) of the cosine schedule, t from 0 to 1 (arXiv 2102.09672, equation 17). */
function cosineSignal(t: number): number {
  return Math.cos((((t + 0.008) / 1.008) * Math.PI) / 2) ** 2;
}

/** `count` (at least 2) values from `start` to `end`, each rounded once, counted from the nearer end as torch does. */
function spaceEvenly(start: number, end: number, count: number): Float32Array {
  const first = fround(start);
  const last = fround(end);
  const step = fround(fround(last - first) / (count - 1));
  return Float32Array.from({ length: count }, (_, i) =>
    i < count / 2 ? first + step * i : last - step * (count - 1 - i),
  );
}
