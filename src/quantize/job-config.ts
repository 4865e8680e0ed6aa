/** The configuration of a job, with what a plan file adds to it. */
import { type ConfigKey, describeOrigin, isExplicit, type Origin, type ResolvedConfig } from "../config/config.js";
import { resolveConfig } from "../config/resolve.js";
import { ArrowQuantError } from "../errors.js";
import type { PlanFile } from "../plan/plan-file.js";
import { TARGET_DEPENDENTS, TARGET_KEYS } from "../plan/targets.js";
import type { QuantizeJob } from "./result.js";

/** The whole configuration of a job. @throws E_CONFIG, E_CONFLICT */
export async function resolveJob(config: QuantizeJob["config"]): Promise<ResolvedConfig> {
  return isResolvedConfig(config) ? config : resolveConfig({ config: config ?? {} });
}

function isResolvedConfig(config: QuantizeJob["config"]): config is ResolvedConfig {
  return config !== undefined && "values" in config && "origins" in config;
}

/** Settings of how the work is done: they change no tensor. */
const ENGINE_KEYS: readonly ConfigKey[] = ["num_threads", "memory", "enable_streaming"];

/** What chose the bits and group sizes that a plan file has. */
const TARGET_SETTINGS: readonly ConfigKey[] = [...TARGET_KEYS, ...TARGET_DEPENDENTS, "enable_mixed_precision"];

/** What else the layers of a plan file settle. */
const SETTLED_KEYS: readonly ConfigKey[] = [
  ...TARGET_SETTINGS,
  "profile",
  "bit_width",
  "group_size",
  "method",
  "symmetric",
  "scale_bits",
  "zero_point_bits",
  "super_group_size",
  "weighting",
  "preserve_gain",
  "min_accuracy",
  "fail_fast",
  "include",
  "exclude",
  "skip_sensitive_layers",
  "sensitive_layer_names",
  "sensitive_layer_patterns",
  "layer_bit_widths",
];

/** Whether a plan file's settings have the key: beside what its layers settle, what a file of them says it is made by. */
function isPlanSetting(key: ConfigKey): boolean {
  return !ENGINE_KEYS.includes(key) && !TARGET_SETTINGS.includes(key);
}

/** What a plan file must say for the same to be done again: the profile and what was set by hand. */
export function settingsOfPlan(config: ResolvedConfig): Record<string, unknown> {
  const keys = (Object.keys(config.values) as ConfigKey[]).filter(
    (key) => isPlanSetting(key) && (key === "profile" || isExplicit(config, key)),
  );
  return Object.fromEntries(keys.map((key) => [key, config.values[key]]));
}

/**
 * The configuration with the settings of a plan file, which give way to what was set by hand.
 * @throws E_CONFLICT where something was set by hand that the file settles; E_PLAN for settings that there are not
 */
export async function withPlanSettings(config: ResolvedConfig, file: PlanFile): Promise<ResolvedConfig> {
  for (const key of SETTLED_KEYS) {
    if (!isExplicit(config, key)) continue;
    const origin = describeOrigin(config.origins[key]);
    throw new ArrowQuantError("E_CONFLICT", `${key} (${origin}) contradicts the plan file ${file.path}`, {
      hint: "the plan file settles every layer: edit it, or make another with `arrowquant plan`",
      details: { key, plan: file.path },
    });
  }
  const [{ configSchema, isConfigKey }, { readProfile }, { refusePlan }] = await Promise.all([
    import("../config/schema.js"),
    import("../config/profile.js"),
    import("../plan/plan-file.js"),
  ]);
  const values: Record<string, unknown> = { ...config.values };
  const origins: Record<string, Origin> = { ...config.origins };
  const problems: string[] = [];
  const profile = configSchema.shape.profile.safeParse(file.settings.profile);
  if (profile.success) {
    for (const { key, value, detail } of (await readProfile(profile.data)).given) {
      if (!isConfigKey(key) || isExplicit(config, key)) continue;
      values[key] = configSchema.shape[key].parse(value);
      origins[key] = { source: "profile", detail };
    }
  }
  for (const [key, value] of Object.entries(file.settings)) {
    if (!isConfigKey(key) || !isPlanSetting(key)) {
      problems.push(`${file.path}: settings: ${JSON.stringify(key)} is no setting of a plan file`);
      continue;
    }
    const parsed = configSchema.shape[key].safeParse(value);
    if (!parsed.success) problems.push(`${file.path}: settings: ${key}: ${parsed.error.issues[0]?.message}`);
    if (!parsed.success || isExplicit(config, key)) continue;
    values[key] = parsed.data;
    origins[key] = { source: "file", detail: file.path };
  }
  if (problems.length > 0) throw refusePlan(file.path, problems, "`arrowquant config schema` lists every setting");
  return { values, origins } as unknown as ResolvedConfig;
}
