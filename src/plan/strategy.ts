/**
 * How a model of a modality is quantized where nobody says otherwise, and what gives way to what was said.
 *
 * Values set by hand stand; values of profiles and defaults give way to them. Two settings set by hand that
 * contradict each other never come here (config/conflict.ts).
 */
import { type ConfigKey, describeOrigin, isExplicit, type ResolvedConfig } from "../config/config.js";
import { ArrowQuantError } from "../errors.js";
import type { TensorInfo } from "../tensor/info.js";
import { type BitWidth, MIN_GROUP_SIZE, type QuantSpec, viewAs2d } from "../tensor/layout.js";
import { type ActivationChoice, chooseActivations, NEEDS_CALIBRATION } from "./activations.js";
import { type Calibration, knowledgeOf, knowsAll, type LayerKnowledge } from "./calibration.js";
import type { Choice } from "./defaults.js";
import { chooseMethods } from "./method.js";
import type { Decision, LayerPlan, Modality, NotApplied, PlanCalibration } from "./plan.js";
import {
  boundWidths,
  distinctGroupSizes,
  listChoices,
  readTarget,
  TARGET_DEPENDENTS,
  type Target,
  type TargetChoices,
  type WidthBounds,
} from "./targets.js";

export interface Strategy extends Pick<ActivationChoice, "activations" | "spatial"> {
  readonly modality: Modality;
  readonly config: ResolvedConfig;
  /** How a layer is quantized that no rule singles out and of which nothing is missing. */
  readonly baseSpec: QuantSpec;
  /** null: nothing was measured. */
  readonly calibration: Calibration | null;
  /** What bits and group sizes are chosen for; null: nothing, `baseSpec` is for all. */
  readonly target: (Target & TargetChoices) | null;
  readonly decisions: readonly Decision[];
  readonly notApplied: readonly NotApplied[];
}

/** The strategy for a model of `modality` under `config`. Throws `E_CONFLICT` where nothing can give way. */
export function chooseStrategy(modality: Modality, config: ResolvedConfig, calibration: Calibration | null): Strategy {
  const { values } = config;
  const bits = chooseBits(config);
  const methods = chooseMethods(modality, bits.value, config, calibration !== null, knowsAll(calibration));
  const [method] = methods.value;
  const storage = chooseStorage(config);
  const baseSpec: QuantSpec = {
    bits: bits.value,
    groupSize: storage.groupSize,
    symmetric: values.symmetric,
    method,
    scaleBits: values.scale_bits === "none" ? null : values.scale_bits,
    zeroPointBits: values.zero_point_bits === "none" ? null : values.zero_point_bits,
    superGroupSize: storage.superGroupSize,
    weighting: values.weighting,
    preserveGain: values.preserve_gain,
  };
  const wanted = readTarget(config);
  const target = wanted === null ? null : { ...wanted, ...listChoices(config, wanted, baseSpec) };
  const { activations, spatial, ...choice } = chooseActivations(modality, config, calibration);
  const asGiven = (...keys: ConfigKey[]): Decision[] =>
    keys.map((key) => ({ what: key, value: String(values[key]), rule: originRule(config, key) }));
  const tries = (name: QuantSpec["method"]): boolean => methods.value.includes(name);
  const hasZeroPoints = !values.symmetric && methods.value.some((name) => name !== "r2q");
  return {
    modality,
    config,
    baseSpec,
    calibration,
    target,
    activations,
    spatial,
    decisions: [
      ...(target === null
        ? [{ what: "bit_width", value: String(bits.value), rule: bits.rule }]
        : describeTarget(config, target)),
      { what: "method", value: describeMethods(methods.value), rule: methods.rule },
      ...asGiven("symmetric"),
      ...(target === null ? [{ what: "group_size", value: String(storage.groupSize), rule: storage.groupRule }] : []),
      ...asGiven("scale_bits"),
      ...(storage.superGroupSize === null
        ? []
        : [{ what: "super_group_size", value: String(storage.superGroupSize), rule: storage.superRule }]),
      ...(hasZeroPoints ? asGiven("zero_point_bits") : []),
      ...(tries("mse") ? asGiven("weighting", "preserve_gain") : []),
      ...(tries("gptq") ? asGiven("gptq_damp", "gptq_order") : []),
      ...asGiven("min_accuracy"),
      ...choice.decisions,
    ],
    notApplied: [
      ...choice.notApplied,
      ...listUnused(config, methods.value, { activations, spatial }, calibration !== null),
      ...(target === null ? listWithoutTarget(config) : listWithTarget(config)),
    ],
  };
}

function describeTarget(config: ResolvedConfig, { key, text, widths, groupSizes }: Target & TargetChoices): Decision[] {
  const groupKey = config.values.candidate_group_sizes === null ? "group_size" : "candidate_group_sizes";
  const groupRule = groupSizes.length === 1 || groupKey !== "group_size" ? originRule(config, groupKey) : key;
  return [
    { what: key, value: text, rule: originRule(config, key) },
    { what: "candidate_bits", value: widths.join(", "), rule: originRule(config, "candidate_bits") },
    { what: "candidate_group_sizes", value: groupSizes.join(", "), rule: groupRule },
    { what: "tie_layers", value: config.values.tie_layers, rule: originRule(config, "tie_layers") },
  ];
}

function describeMethods(methods: readonly QuantSpec["method"][]): string {
  return methods.length === 1 ? (methods[0] as string) : `auto: ${methods.join(", ")}`;
}

/** How a layer is treated, by what is known of it. */
export type LayerTreatment = Pick<LayerPlan, "candidates" | "calibrated" | "spatial" | "activations"> & {
  readonly spec: QuantSpec;
  /** What its own lack of statistics changed; null: nothing. */
  readonly note: string | null;
};

/** The treatment of tensor `name`, at `bits` where its width is pinned. */
export function treatLayer(strategy: Strategy, name: string, bits: BitWidth | null): LayerTreatment {
  const { modality, config, calibration, baseSpec, activations, spatial } = strategy;
  const width = bits ?? baseSpec.bits;
  const knowledge = knowledgeOf(calibration, name);
  const isCalibrated = calibration !== null;
  const methods = chooseMethods(modality, width, config, isCalibrated, knowledge);
  const specs = methods.value.map((method): QuantSpec => ({ ...baseSpec, bits: width, method }));
  const [spec] = specs as [QuantSpec];
  const quantizesActivations = activations !== null && (activations.mode === "dynamic" || knowledge.hasRanges);
  const canEqualize = spatial !== null && knowledge.hasHeldBack;
  return {
    // Most layers share the plan's own, so that a plan of thousands stays small.
    spec: isSame(spec, baseSpec) ? baseSpec : spec,
    candidates: specs.length === 1 ? [] : specs,
    calibrated: knowledge.isMeasured,
    spatial: canEqualize ? spatial : null,
    activations: quantizesActivations ? activations : null,
    note: isCalibrated ? describeLack(knowledge, strategy, spec) : null,
  };
}

/**
 * Every spec that the target may choose for a tensor, by rising width, then group size; none without a target. Layers
 * of one kind share one list, so that a plan of thousands stays small.
 * @throws E_CONFLICT where no width is left
 */
export function layerOptions(
  strategy: Strategy,
): ((tensor: TensorInfo, bounds: WidthBounds) => readonly QuantSpec[]) | null {
  const { target, calibration } = strategy;
  if (target === null) return null;
  const known = new Map<string, readonly QuantSpec[]>();
  return ({ name, shape }, bounds) => {
    const widths = boundWidths(name, target.widths, bounds);
    const groupSizes = distinctGroupSizes(target.groupSizes, viewAs2d(shape).cols);
    const key = JSON.stringify([widths, groupSizes, knowledgeOf(calibration, name)]);
    const shared = known.get(key);
    if (shared !== undefined) return shared;
    const options = widths.flatMap((bits) => {
      const { spec } = treatLayer(strategy, name, bits);
      return groupSizes.map((groupSize) => withGroupSize(spec, groupSize, strategy));
    });
    known.set(key, options);
    return options;
  };
}

/** `spec` with groups of another size, and super-groups that hold a whole number of them. */
function withGroupSize(spec: QuantSpec, groupSize: number, { config }: Strategy): QuantSpec {
  const superGroupSize = spec.superGroupSize === null ? null : wholeGroups(config.values.super_group_size, groupSize);
  return { ...spec, groupSize, superGroupSize };
}

/** The largest multiple of `groupSize` up to `superGroupSize`, at least one. */
export function wholeGroups(superGroupSize: number, groupSize: number): number {
  return Math.max(1, Math.floor(superGroupSize / groupSize)) * groupSize;
}

function isSame(one: QuantSpec, other: QuantSpec): boolean {
  return one.bits === other.bits && one.method === other.method;
}

/** What of the strategy a layer does without, and why. */
function describeLack(knowledge: LayerKnowledge, { calibration, baseSpec }: Strategy, spec: QuantSpec): string | null {
  if (!knowledge.isMeasured) return `no statistics: ${spec.method}, weights only`;
  const all = knowsAll(calibration);
  if (all.hasHessian && !knowledge.hasHessian && spec.method !== baseSpec.method) return `no Hessian: ${spec.method}`;
  return all.hasHeldBack && !knowledge.hasHeldBack ? "no held-back samples" : null;
}

/** What of the calibration changes tensors. */
export function planCalibration({ calibration, config: { values } }: Strategy): PlanCalibration | null {
  if (calibration === null || calibration.layerNames.size === 0) return null;
  const { label, fingerprint } = calibration;
  return { label, fingerprint, gptq: { damp: values.gptq_damp, order: values.gptq_order } };
}

function originRule(config: ResolvedConfig, key: ConfigKey): string {
  return describeOrigin(config.origins[key]);
}

function chooseBits(config: ResolvedConfig): Choice<BitWidth> {
  const { method, bit_width } = config.values;
  if (method === "r2q" && bit_width !== 2) {
    return { value: 2, rule: `r2q is a method of 2 bits (${originRule(config, "method")})` };
  }
  return { value: bit_width, rule: originRule(config, "bit_width") };
}

interface Storage {
  readonly groupSize: number;
  readonly groupRule: string;
  readonly superGroupSize: number | null;
  readonly superRule: string;
}

/** Group and super-group sizes that fit: what was not set by hand gives way. */
function chooseStorage(config: ResolvedConfig): Storage {
  const { group_size: groupSize, super_group_size: superGroupSize, scale_bits } = config.values;
  const groupRule = originRule(config, "group_size");
  const superRule = originRule(config, "super_group_size");
  if (scale_bits === "none") return { groupSize, groupRule, superGroupSize: null, superRule };
  if (superGroupSize % groupSize === 0) return { groupSize, groupRule, superGroupSize, superRule };
  if (!isExplicit(config, "super_group_size")) {
    const whole = wholeGroups(superGroupSize, groupSize);
    const rule = `largest multiple of group_size ${groupSize} up to ${superGroupSize} (${superRule})`;
    return { groupSize, groupRule, superGroupSize: whole, superRule: rule };
  }
  for (let size = groupSize - 1; size >= MIN_GROUP_SIZE; size--) {
    if (superGroupSize % size !== 0) continue;
    const rule = `largest divisor of super_group_size ${superGroupSize} up to ${groupSize} (${groupRule})`;
    return { groupSize: size, groupRule: rule, superGroupSize, superRule };
  }
  throw new ArrowQuantError(
    "E_CONFLICT",
    `super_group_size ${superGroupSize} (${superRule}) contradicts group_size ${groupSize} (${groupRule}): ` +
      `no group size from ${MIN_GROUP_SIZE} to ${groupSize} divides it`,
    {
      hint: "give --group-size as well",
      details: { group_size: groupSize, super_group_size: superGroupSize },
    },
  );
}

/** Settings of mixed precision, given by hand, where no target asks for it. */
function listWithoutTarget(config: ResolvedConfig): NotApplied[] {
  return TARGET_DEPENDENTS.filter((key) => isExplicit(config, key)).map((key) => ({
    setting: key,
    reason: "mixed precision needs a target",
  }));
}

/** Settings of quality, given by hand, where a target settles every width. */
function listWithTarget(config: ResolvedConfig): NotApplied[] {
  return (["min_accuracy", "fail_fast"] as const)
    .filter((key) => isExplicit(config, key))
    .map((key) => ({ setting: key, reason: "a target settles the width of every layer" }));
}

/** Settings given by hand that nothing will use. */
function listUnused(
  config: ResolvedConfig,
  methods: readonly QuantSpec["method"][],
  { activations, spatial }: Pick<ActivationChoice, "activations" | "spatial">,
  isCalibrated: boolean,
): NotApplied[] {
  const { values } = config;
  const [method] = methods;
  const tries = (name: QuantSpec["method"]): boolean => methods.includes(name);
  const hasOnlyR2q = methods.every((name) => name === "r2q");
  const weightsOnly = isCalibrated ? "activations are not quantized" : NEEDS_CALIBRATION;
  const isOverTime = activations?.mode === "time";
  const overTime = activations === null ? weightsOnly : `mode ${activations.mode} has no timestep groups`;
  const hasRange = activations !== null && activations.mode !== "dynamic";
  const unused: { key: ConfigKey; isUnused: boolean; reason: string }[] = [
    { key: "num_time_groups", isUnused: !isOverTime, reason: overTime },
    { key: "time_groups", isUnused: !isOverTime, reason: overTime },
    { key: "calibration_samples", isUnused: !isCalibrated, reason: NEEDS_CALIBRATION },
    {
      key: "calibration_steps",
      isUnused: values.calibration !== "sampling",
      reason: isCalibrated ? "only calibration by sampling takes steps" : NEEDS_CALIBRATION,
    },
    { key: "activation_range", isUnused: !hasRange, reason: weightsOnly },
    {
      key: "activation_percentile",
      isUnused: !hasRange || activations.range !== "percentile",
      reason: hasRange ? `range ${activations.range} takes no percentile` : weightsOnly,
    },
    {
      key: "spatial_alpha",
      isUnused: spatial === null,
      reason: isCalibrated ? "channels are not equalized" : NEEDS_CALIBRATION,
    },
    ...TIME_KEYS.map((key) => ({ key, isUnused: !isOverTime, reason: overTime })),
    { key: "gptq_damp", isUnused: !tries("gptq"), reason: `method ${method} has no Hessian` },
    { key: "gptq_order", isUnused: !tries("gptq"), reason: `method ${method} has no Hessian` },
    { key: "weighting", isUnused: !tries("mse"), reason: `method ${method} weights nothing` },
    { key: "preserve_gain", isUnused: !tries("mse"), reason: `method ${method} rescales no rows` },
    {
      key: "zero_point_bits",
      isUnused: hasOnlyR2q || values.symmetric,
      reason: hasOnlyR2q ? "method r2q has no zero points" : "symmetric codes have no zero points",
    },
    {
      key: "super_group_size",
      isUnused: values.scale_bits === "none",
      reason: "float32 scales have no super-groups",
    },
    { key: "enable_streaming", isUnused: !values.enable_streaming, reason: "tensors are always streamed" },
  ];
  return unused
    .filter(({ key, isUnused }) => isUnused && isExplicit(config, key))
    .map(({ key, reason }) => ({ setting: key, reason }));
}

/** Settings of the sequence of timestep groups. */
const TIME_KEYS: readonly ConfigKey[] = [
  "thermodynamic.validation.smoothness_threshold",
  "thermodynamic.boundary_smoothing.window",
  "thermodynamic.boundary_smoothing.interpolation",
  "thermodynamic.transition_optimization.enabled",
  "thermodynamic.transition_optimization.weight",
];
