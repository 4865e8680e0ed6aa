/** The resolved configuration: every value and where it came from. */
import type { z } from "zod";
import type { Nested } from "./nested.js";
import type { ConfigKey, configSchema } from "./schema.js";

export type { ConfigKey } from "./schema.js";
export type Config = Readonly<z.output<typeof configSchema>>;
/** Settings as they are written, each optional; `arrowquant config schema` describes them. */
export type ConfigSettings = Readonly<Nested<z.input<typeof configSchema>>>;

/** From the strongest to the weakest; `object` is a configuration given through the API or a batch job. */
export const ORIGIN_SOURCES = ["flag", "object", "environment", "file", "profile", "default"] as const;
export type OriginSource = (typeof ORIGIN_SOURCES)[number];

export interface Origin {
  readonly source: OriginSource;
  /** `--bit-width`, `ARROW_QUANT_BIT_WIDTH`, `quant.yaml:12`, `profiles/local.yaml`, … */
  readonly detail: string;
}

export interface ResolvedConfig {
  readonly values: Config;
  readonly origins: Readonly<Record<ConfigKey, Origin>>;
}

/** Whether somebody set `key` by hand; values of profiles and defaults give way where they must. */
export function isExplicit(config: ResolvedConfig, key: ConfigKey): boolean {
  const { source } = config.origins[key];
  return source !== "profile" && source !== "default";
}

/** An origin in words: `flag --bit-width`, `file quant.yaml:12`, `default`. */
export function describeOrigin(origin: Origin): string {
  if (origin.source === "default") return "default";
  // What these say of themselves is plain enough: `jobs.yaml job 3: bit_width`, `profiles/local.yaml`.
  if (origin.source === "object" || origin.source === "profile") return origin.detail;
  return `${origin.source} ${origin.detail}`;
}

/** Flags that are not `--` and the key with hyphens; a pair is the flag for true and the one for false. */
const FLAG_NAMES: Partial<Record<ConfigKey, string | readonly [string, string]>> = {
  preserve_gain: ["--preserve-gain", "--no-preserve-gain"],
  enable_time_aware: ["--enable-time-aware", "--disable-time-aware"],
  enable_spatial: ["--enable-spatial", "--disable-spatial"],
  enable_mixed_precision: ["--enable-mixed-precision", "--disable-mixed-precision"],
  target_model_size_mb: "--target-size",
  num_threads: "--threads",
  layer_bit_widths: "--layer-bits",
  "thermodynamic.validation.smoothness_threshold": "--smoothness-threshold",
  "thermodynamic.boundary_smoothing.window": "--boundary-window",
  "thermodynamic.boundary_smoothing.interpolation": "--boundary-interpolation",
  "thermodynamic.transition_optimization.weight": "--transition-weight",
  "evolution.population": "--population",
  "evolution.generations": "--generations",
  "evolution.mutation": "--mutation",
  "evolution.crossover": "--crossover",
  "evolution.elite": "--elite",
  "evolution.evaluations": "--evaluations",
};

/** The command-line flag that gives `key` the value `value`. */
export function flagName(key: string, value: unknown): string {
  const name = (FLAG_NAMES as Record<string, string | readonly [string, string]>)[key];
  if (name === undefined) return `--${key.replaceAll("_", "-")}`;
  return typeof name === "string" ? name : value === false ? name[1] : name[0];
}
