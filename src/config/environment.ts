/** Settings given by environment variables. */
import type { ConfigKey } from "./config.js";
import { createProblem, type Place, type Problem, suggest } from "./problem.js";
import { parseSetting } from "./text.js";
import type { GivenValue, ReadText } from "./yaml.js";

export const ENVIRONMENT_VARIABLES: Readonly<Record<string, ConfigKey>> = {
  ARROW_QUANT_BIT_WIDTH: "bit_width",
  ARROW_QUANT_NUM_TIME_GROUPS: "num_time_groups",
  ARROW_QUANT_GROUP_SIZE: "group_size",
  ARROW_QUANT_MIN_ACCURACY: "min_accuracy",
  ARROW_QUANT_CALIBRATION_SAMPLES: "calibration_samples",
  ARROW_QUANT_FAIL_FAST: "fail_fast",
  ARROW_QUANT_NUM_THREADS: "num_threads",
  ARROW_QUANT_ENABLE_STREAMING: "enable_streaming",
  ARROW_QUANT_CALIBRATION: "calibration",
  ARROW_QUANT_CALIBRATION_STEPS: "calibration_steps",
  ARROW_QUANT_SEED: "seed",
  ARROW_QUANT_ACTIVATION_BITS: "activation_bits",
  ARROW_QUANT_ENABLE_MIXED_PRECISION: "enable_mixed_precision",
  ARROW_QUANT_TARGET_BPW: "target_bpw",
  ARROW_QUANT_TARGET_MODEL_SIZE_MB: "target_model_size_mb",
  ARROW_QUANT_MAX_ERROR: "max_error",
  ARROW_QUANT_MEAN_GROUP_SIZE: "mean_group_size",
  ARROW_QUANT_SENSITIVITY: "sensitivity",
  ARROW_QUANT_SEARCH: "search",
  ARROW_QUANT_SMOOTHNESS_THRESHOLD: "thermodynamic.validation.smoothness_threshold",
  ARROW_QUANT_BOUNDARY_WINDOW: "thermodynamic.boundary_smoothing.window",
  ARROW_QUANT_BOUNDARY_INTERPOLATION: "thermodynamic.boundary_smoothing.interpolation",
  ARROW_QUANT_TRANSITION_WEIGHT: "thermodynamic.transition_optimization.weight",
};

const PREFIX = "ARROW_QUANT_";

/**
 * The settings of `environment`. An empty variable counts as not set, as shells have no other way to unset
 * one for a single command; an unknown `ARROW_QUANT_…` is a problem, as it would silently do nothing.
 */
export function readEnvironment(environment: Readonly<Record<string, string | undefined>>): ReadText {
  const given: GivenValue[] = [];
  const problems: Problem[] = [];
  for (const [variable, text] of Object.entries(environment)) {
    if (!variable.startsWith(PREFIX) || text === undefined || text === "") continue;
    const place: Place = { source: "environment", text: variable, file: null, line: null, column: null };
    const key = Object.hasOwn(ENVIRONMENT_VARIABLES, variable) ? ENVIRONMENT_VARIABLES[variable] : undefined;
    if (key === undefined) {
      const known = Object.keys(ENVIRONMENT_VARIABLES);
      const likely = suggest(variable, known);
      const rest = likely === null ? `the variables are ${known.join(", ")}` : `did you mean ${likely}?`;
      problems.push(createProblem(place, `unknown variable: ${rest}`, { allowed: known.join(", ") }));
      continue;
    }
    const value = parseSetting(key, text);
    given.push({ key, value, detail: variable, keyPlace: place, placeOf: () => place });
  }
  return { given, problems };
}
