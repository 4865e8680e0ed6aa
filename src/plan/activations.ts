/** What happens to activations: their own quantization, and the equalization between them and weights. */
import { type ConfigKey, describeOrigin, isExplicit, type ResolvedConfig } from "../config/config.js";
import { type Calibration, knowsAll } from "./calibration.js";
import { type Choice, MODALITY_DEFAULTS } from "./defaults.js";
import type { ActivationSettings, Decision, Modality, NotApplied, SpatialSettings } from "./plan.js";

export const NEEDS_CALIBRATION = "needs calibration";

/** Bits that time-aware quantization takes where nobody says: the widest that has parameters at all. */
const TIME_AWARE_BITS = 8;

/** What `spatial_alpha: auto` tries. Each costs a quantization of the layer, and the error is flat around its least. */
const ALPHAS: readonly number[] = [0, 0.25, 0.5, 0.75, 1];

export interface ActivationChoice {
  readonly activations: ActivationSettings | null;
  readonly spatial: SpatialSettings | null;
  readonly decisions: readonly Decision[];
  readonly notApplied: readonly NotApplied[];
}

/** What will happen to activations of a model of `modality`. */
export function chooseActivations(
  modality: Modality,
  config: ResolvedConfig,
  calibration: Calibration | null,
): ActivationChoice {
  const { values } = config;
  const timeAware = chooseTimeAware(modality, config);
  const spatial = chooseSpatial(modality, config);
  const mode = values.activation_mode ?? (timeAware.value ? "time" : "static");
  const { hasRanges } = knowsAll(calibration);
  const bits = chooseBits(config, timeAware.value, hasRanges);
  const missing =
    mode === "dynamic" || hasRanges
      ? null
      : calibration === null
        ? NEEDS_CALIBRATION
        : `${calibration.label} holds no ranges of activations`;
  const wanted = bits.value < 16;
  const activations = wanted && missing === null ? settle(mode, bits.value, config, calibration) : null;
  const canEqualize = calibration !== null && calibration.heldBackNames.size > 0;
  return {
    activations,
    spatial: spatial.value && canEqualize ? { alphas: listAlphas(values.spatial_alpha) } : null,
    decisions: [
      { what: "enable_time_aware", value: show(timeAware.value), rule: timeAware.rule },
      ...(activations === null ? [] : describeActivations(activations, bits.rule, config, calibration)),
      { what: "enable_spatial", value: show(spatial.value), rule: spatial.rule },
      ...(spatial.value && canEqualize
        ? [{ what: "spatial_alpha", value: String(values.spatial_alpha), rule: origin(config, "spatial_alpha") }]
        : []),
    ],
    notApplied: [
      ...(timeAware.value && missing !== null ? [{ setting: "enable_time_aware", reason: missing }] : []),
      ...(!timeAware.value && wanted && missing !== null ? [{ setting: "activation_bits", reason: missing }] : []),
      ...(spatial.value && !canEqualize
        ? [
            {
              setting: "enable_spatial",
              reason: calibration === null ? NEEDS_CALIBRATION : `${calibration.label} holds no held-back samples`,
            },
          ]
        : []),
    ],
  };
}

/** The settings that act in `mode`; what does not act stands at one value, so that equal outcomes read alike. */
function settle(
  mode: ActivationSettings["mode"],
  bits: number,
  config: ResolvedConfig,
  calibration: Calibration | null,
): ActivationSettings {
  const { values } = config;
  const isOverTime = mode === "time";
  const window = isOverTime ? values["thermodynamic.boundary_smoothing.window"] : 0;
  const binCount = Math.max(1, calibration?.timeBinCount ?? 1);
  return {
    bits,
    mode,
    groups: isOverTime ? values.time_groups : "uniform",
    groupCount: isOverTime ? Math.min(values.num_time_groups, binCount) : 1,
    range: mode === "dynamic" ? "minmax" : (values.activation_range ?? (bits < 8 ? "mse" : "minmax")),
    percentile: values.activation_percentile,
    boundarySmoothing:
      window === 0 ? null : { window, interpolation: values["thermodynamic.boundary_smoothing.interpolation"] },
    transitionWeight: isOverTime ? chooseTransition(config) : null,
    smoothnessThreshold: values["thermodynamic.validation.smoothness_threshold"],
  };
}

function describeActivations(
  activations: ActivationSettings,
  bitsRule: string,
  config: ResolvedConfig,
  calibration: Calibration | null,
): Decision[] {
  const { mode, bits, range, groupCount, boundarySmoothing, transitionWeight } = activations;
  const chosen = { what: "activation_bits", value: String(bits), rule: bitsRule };
  const modeRule =
    config.values.activation_mode === null ? "follows enable_time_aware" : origin(config, "activation_mode");
  const how = { what: "activation_mode", value: mode, rule: modeRule };
  if (mode === "dynamic") return [chosen, how];
  const rangeRule = config.values.activation_range === null ? `${bits} bits` : origin(config, "activation_range");
  const ranges = { what: "activation_range", value: range, rule: rangeRule };
  if (mode === "static") return [chosen, how, ranges];
  const isLess = groupCount < config.values.num_time_groups;
  const countRule = isLess ? `${calibration?.label} has ${groupCount} time bins` : origin(config, "num_time_groups");
  return [
    chosen,
    how,
    ranges,
    { what: "num_time_groups", value: String(groupCount), rule: countRule },
    { what: "time_groups", value: activations.groups, rule: origin(config, "time_groups") },
    ...(boundarySmoothing === null
      ? []
      : [
          {
            what: "thermodynamic.boundary_smoothing",
            value: `window ${boundarySmoothing.window}, ${boundarySmoothing.interpolation}`,
            rule: origin(config, "thermodynamic.boundary_smoothing.window"),
          },
        ]),
    ...(transitionWeight === null
      ? []
      : [
          {
            what: "thermodynamic.transition_optimization",
            value: `weight ${transitionWeight}`,
            rule: origin(config, "thermodynamic.transition_optimization.weight"),
          },
        ]),
  ];
}

/** By hand through any of the settings that say it, else as the modality has it. */
function chooseTimeAware(modality: Modality, config: ResolvedConfig): Choice<boolean> {
  const { enable_time_aware, activation_mode, activation_bits } = config.values;
  if (enable_time_aware !== null) return { value: enable_time_aware, rule: origin(config, "enable_time_aware") };
  if (activation_mode !== null) {
    return {
      value: activation_mode === "time",
      rule: `mode ${activation_mode} (${origin(config, "activation_mode")})`,
    };
  }
  if (activation_bits !== null) {
    const isOn = activation_bits < 16;
    const why = isOn ? "a range per timestep group beats one for all" : "activations stay as they are";
    return { value: isOn, rule: `${activation_bits} bits (${origin(config, "activation_bits")}): ${why}` };
  }
  const value = MODALITY_DEFAULTS[modality].timeAware;
  return { value, rule: `strategy ${modality}: ${show(value)}` };
}

/**
 * 16 where nobody asks for quantized activations: running them costs accuracy, and files without them serve all who
 * quantize weights alone.
 */
function chooseBits(config: ResolvedConfig, isTimeAware: boolean, hasRanges: boolean): Choice<number> {
  const { activation_bits, activation_mode } = config.values;
  if (activation_bits !== null) return { value: activation_bits, rule: origin(config, "activation_bits") };
  if (activation_mode !== null) {
    return {
      value: TIME_AWARE_BITS,
      rule: `mode ${activation_mode} without activation_bits: the most that has a range`,
    };
  }
  if (isTimeAware && (hasRanges || config.values.enable_time_aware === true)) {
    return { value: TIME_AWARE_BITS, rule: "time-aware without activation_bits: the most that has a range" };
  }
  return { value: 16, rule: "weights only" };
}

/** A profile's `true` allows what the modality asks for; its `false` forbids it. */
function chooseSpatial(modality: Modality, config: ResolvedConfig): Choice<boolean> {
  const { enable_spatial } = config.values;
  const isLeft = enable_spatial === null || (enable_spatial && !isExplicit(config, "enable_spatial"));
  if (!isLeft) return { value: enable_spatial === true, rule: origin(config, "enable_spatial") };
  // Which layers gain by scales shows while they are quantized: a file that must fit would have to leave room for all.
  if (config.values.target_model_size_mb !== null && config.values.enable_mixed_precision !== false) {
    return { value: false, rule: "target_model_size_mb: no room is left for scales that may not come" };
  }
  const value = MODALITY_DEFAULTS[modality].spatial;
  return { value, rule: `strategy ${modality}: ${show(value)}` };
}

function chooseTransition(config: ResolvedConfig): number | null {
  const { values } = config;
  const isWeightGiven = isExplicit(config, "thermodynamic.transition_optimization.weight");
  const isOn = values["thermodynamic.transition_optimization.enabled"] ?? isWeightGiven;
  const weight = values["thermodynamic.transition_optimization.weight"];
  return isOn && weight > 0 ? weight : null;
}

/** 0 is always among them: channels of weights made equal, whatever the activations are. */
function listAlphas(alpha: number | "auto"): readonly number[] {
  if (alpha === "auto") return ALPHAS;
  return alpha === 0 ? [0] : [0, alpha];
}

function origin(config: ResolvedConfig, key: ConfigKey): string {
  return describeOrigin(config.origins[key]);
}

function show(isOn: boolean): string {
  return isOn ? "on" : "off";
}
