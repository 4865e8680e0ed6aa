/**
 * What is read of a `scheduler_config.json`: keys, values and defaults as diffusers documents them per class.
 * Keys that a class does not know are left alone, as diffusers does: a config converted from another class keeps
 * that one's.
 */
import { z } from "zod";
import { ArrowQuantError } from "../errors.js";
import { TIMESTEP_SPACINGS } from "./timestep-grid.js";

/**
 * Largest table of training timesteps that is built. Models train with 1,000, a few with 4,000; a config is
 * somebody else's file and must not choose how much memory is taken.
 */
export const MAX_TRAIN_TIMESTEPS = 100_000;

const trainTimesteps = z.int().min(2).max(MAX_TRAIN_TIMESTEPS);
const beta = z.number().gt(0).lt(1);
/** Any shift, scale or level that was ever used, and nothing that float32 takes for 0. */
const positive = z.number().min(1e-6).max(1e6);
const flag = z
  .boolean()
  .nullish()
  .transform((value) => value ?? false);
const clipRange = positive.default(1);

/** An option of the class that changes what is sampled and that this program does not do. */
function refuse(what: string) {
  return flag.refine((value) => !value, { error: `${what} is not done by this program` });
}

const thresholding = refuse("dynamic thresholding");
/** Their spacing takes the inverse of the incomplete beta function. */
const betaSigmas = refuse("spacing the noise levels by a beta distribution");

const VARIANCE_TYPES = ["fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"] as const;
const PREDICTION_TYPES = ["epsilon", "v_prediction", "sample"] as const;
/** What the model predicts: the noise ε, the velocity v = sqrt(ᾱ)·ε − sqrt(1 − ᾱ)·x₀, or x₀ itself. */
export type PredictionType = (typeof PREDICTION_TYPES)[number];

const noiseSchedule = z.object({
  num_train_timesteps: trainTimesteps.default(1000),
  beta_start: beta.default(0.0001),
  beta_end: beta.default(0.02),
  beta_schedule: z.enum(["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"]).default("linear"),
  trained_betas: z.array(z.number().gt(0).max(1)).max(MAX_TRAIN_TIMESTEPS).nullable().default(null),
  rescale_betas_zero_snr: flag,
});
export type NoiseScheduleConfig = z.infer<typeof noiseSchedule>;

const discrete = noiseSchedule.extend({
  prediction_type: z.enum(PREDICTION_TYPES).default("epsilon"),
  timestep_spacing: z.enum(TIMESTEP_SPACINGS).default("leading"),
  steps_offset: z.int().min(0).max(MAX_TRAIN_TIMESTEPS).default(0),
});

const clipped = discrete.extend({
  clip_sample: z.boolean().default(true),
  clip_sample_range: clipRange,
  thresholding,
});

export const ddimConfig = clipped.extend({ set_alpha_to_one: z.boolean().default(true) });
export const ddpmConfig = clipped.extend({
  variance_type: z
    .enum(VARIANCE_TYPES, { error: "a variance that the model predicts is not done by this program" })
    .default("fixed_small"),
});
/** Never clips, whatever `clip_sample` says: its class does not read that key. */
export const pndmConfig = discrete.extend({ set_alpha_to_one: z.boolean().default(false) });
export const lcmConfig = clipped.extend({
  beta_start: beta.default(0.00085),
  beta_end: beta.default(0.012),
  beta_schedule: noiseSchedule.shape.beta_schedule.unwrap().default("scaled_linear"),
  clip_sample: z.boolean().default(false),
  original_inference_steps: z.int().min(1).max(MAX_TRAIN_TIMESTEPS).default(50),
  timestep_scaling: positive.default(10),
});

const sigmaSpacing = {
  use_karras_sigmas: flag,
  use_exponential_sigmas: flag,
  use_beta_sigmas: betaSigmas,
};
const sigmaRange = { sigma_min: positive.nullable().default(null), sigma_max: positive.nullable().default(null) };
const ONE_SIGMA_SPACING = { error: "use_karras_sigmas and use_exponential_sigmas exclude each other" };
const linspace = z.enum(TIMESTEP_SPACINGS).default("linspace");
const shiftTerminal = z.number().min(1e-6).lt(1).nullable().default(null);
const finalSigmas = z.enum(["zero", "sigma_min"]).default("zero");

const eulerShape = discrete.extend({
  ...sigmaSpacing,
  // Older files say original_sample for sample.
  prediction_type: z
    .enum([...PREDICTION_TYPES, "original_sample"])
    .default("epsilon")
    .transform((type): PredictionType => (type === "original_sample" ? "sample" : type)),
  timestep_spacing: linspace,
});

export const eulerConfig = eulerShape
  .extend({
    ...sigmaRange,
    timestep_type: z.enum(["discrete", "continuous"]).default("discrete"),
    interpolation_type: z.literal("linear", { error: "only linear interpolation is done here" }).default("linear"),
    final_sigmas_type: finalSigmas,
  })
  .refine(oneSigmaSpacing, ONE_SIGMA_SPACING);
export type EulerConfig = Omit<z.infer<typeof eulerConfig>, "interpolation_type">;

export const eulerAncestralConfig = discrete.extend({ timestep_spacing: linspace });
export type EulerAncestralConfig = z.infer<typeof eulerAncestralConfig>;

/** Euler's neighbours, which know fewer keys. */
function eulerNeighbour(betaStart: number, betaEnd: number) {
  return eulerShape
    .extend({
      beta_start: beta.default(betaStart),
      beta_end: beta.default(betaEnd),
      clip_sample: refuse("clipping in a scheduler that Euler stands in for"),
    })
    .refine(oneSigmaSpacing, ONE_SIGMA_SPACING)
    .transform(
      (config): EulerConfig => ({
        ...config,
        sigma_min: null,
        sigma_max: null,
        timestep_type: "discrete",
        final_sigmas_type: "zero",
      }),
    );
}

/** Heun and DPM2. */
export const heunConfig = eulerNeighbour(0.00085, 0.012);
export const lmsConfig = eulerNeighbour(0.0001, 0.02);

/** DPM-Solver, UniPC, DEIS, SA-Solver. */
export const dpmConfig = discrete
  .extend({
    ...sigmaSpacing,
    ...sigmaRange,
    prediction_type: z.enum([...PREDICTION_TYPES, "flow_prediction"]).default("epsilon"),
    timestep_spacing: linspace,
    final_sigmas_type: finalSigmas,
    thresholding,
    use_lu_lambdas: refuse("spacing the noise levels by use_lu_lambdas"),
    use_flow_sigmas: flag,
    flow_shift: positive.default(1),
    shift_terminal: shiftTerminal,
    use_dynamic_shifting: flag,
    time_shift_type: z.enum(["exponential", "linear"]).default("exponential"),
  })
  .refine(oneSigmaSpacing, ONE_SIGMA_SPACING)
  .refine((config) => config.use_flow_sigmas === (config.prediction_type === "flow_prediction"), {
    error: "prediction_type flow_prediction and use_flow_sigmas go together",
  })
  .refine((config) => !(config.use_flow_sigmas && (config.use_karras_sigmas || config.use_exponential_sigmas)), {
    error: "use_flow_sigmas with another spacing of the noise levels is not done by this program",
  });
export type DpmConfig = z.infer<typeof dpmConfig>;

export const flowConfig = z
  .object({
    num_train_timesteps: trainTimesteps.default(1000),
    shift: positive.default(1),
    use_dynamic_shifting: flag,
    base_shift: z.number().min(-100).max(100).default(0.5),
    max_shift: z.number().min(-100).max(100).default(1.15),
    base_image_seq_len: z.int().min(1).default(256),
    max_image_seq_len: z.int().min(1).default(4096),
    time_shift_type: z.enum(["exponential", "linear"]).default("exponential"),
    shift_terminal: shiftTerminal,
    invert_sigmas: flag,
    stochastic_sampling: flag,
    ...sigmaSpacing,
  })
  .refine(oneSigmaSpacing, ONE_SIGMA_SPACING)
  .refine((config) => config.max_image_seq_len > config.base_image_seq_len, {
    error: "max_image_seq_len is not above base_image_seq_len",
  })
  .refine((config) => !(config.invert_sigmas && config.stochastic_sampling), {
    error: "invert_sigmas and stochastic_sampling exclude each other",
  });
export type FlowConfig = z.infer<typeof flowConfig>;

export const consistencyConfig = z
  .object({
    num_train_timesteps: trainTimesteps.default(40),
    sigma_min: positive.default(0.002),
    sigma_max: positive.default(80),
    sigma_data: positive.default(0.5),
    s_noise: z.number().min(0).max(1e6).default(1),
    rho: z.number().min(1).max(100).default(7),
    clip_denoised: z.boolean().default(true),
  })
  .refine((config) => config.sigma_min < config.sigma_max, { error: "sigma_min is not below sigma_max" });

export type DdimConfig = z.infer<typeof ddimConfig>;
export type DdpmConfig = z.infer<typeof ddpmConfig>;
export type LcmConfig = z.infer<typeof lcmConfig>;
export type ConsistencyConfig = z.infer<typeof consistencyConfig>;

/** More help nobody; a list of noise in place of betas would give thousands. */
const MAX_PROBLEMS_SHOWN = 10;

function oneSigmaSpacing(config: { use_karras_sigmas: boolean; use_exponential_sigmas: boolean }): boolean {
  return !(config.use_karras_sigmas && config.use_exponential_sigmas);
}

/** `config` as `schema` reads it; `E_SCHEDULER` with its faults and their keys. */
export function readConfig<T>(schema: z.ZodType<T>, config: unknown, className: string): T {
  const parsed = schema.safeParse(config);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues
    .slice(0, MAX_PROBLEMS_SHOWN)
    .map(({ path, message }) => ({ key: path.join("."), message }));
  const sentences = problems.map(({ key, message }) => (key === "" ? message : `${key}: ${message}`));
  throw new ArrowQuantError("E_SCHEDULER", `${className}: ${sentences.join("; ")}`, {
    hint: "correct scheduler_config.json, or name another scheduler in it",
    details: { scheduler: className, problems },
  });
}
