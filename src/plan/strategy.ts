/**
 * How a model of a modality is quantized where nobody says otherwise, and what gives way to what was said.
 *
 * Values set by hand stand; values of profiles and defaults give way to them. Two settings set by hand that
 * contradict each other never come here (config/conflict.ts).
 */
import { type ConfigKey, describeOrigin, isExplicit, type ResolvedConfig } from "../config/config.js";
import { ArrowQuantError } from "../errors.js";
import { type BitWidth, type MethodName, MIN_GROUP_SIZE, type QuantSpec } from "../tensor/layout.js";
import { methodAtWidth } from "./fallback.js";
import type { Decision, Modality, NotApplied } from "./plan.js";

/** Statistics of a calibration run; there are none yet. */
export type Calibration = null;

interface ModalityStrategy {
  /** The method of a width without calibration. */
  readonly methods: Readonly<Record<BitWidth, MethodName>>;
  /** The method of every width once there is calibration; null: the same. */
  readonly calibratedMethod: MethodName | null;
  readonly timeAware: boolean;
  readonly spatial: boolean;
}

const TEXT: ModalityStrategy = {
  methods: { 2: "r2q", 4: "hqq", 8: "hqq" },
  calibratedMethod: null,
  timeAware: true,
  spatial: false,
};
const SIGNAL: ModalityStrategy = {
  methods: { 2: "hqq", 4: "hqq", 8: "hqq" },
  calibratedMethod: "gptq",
  timeAware: false,
  spatial: true,
};

const STRATEGIES: Readonly<Record<Modality, ModalityStrategy>> = {
  text: TEXT,
  code: TEXT,
  image: SIGNAL,
  audio: SIGNAL,
  video: SIGNAL,
};

export interface Strategy {
  readonly baseSpec: QuantSpec;
  readonly decisions: readonly Decision[];
  readonly notApplied: readonly NotApplied[];
}

/** The strategy for a model of `modality` under `config`. Throws `E_CONFLICT` where nothing can give way. */
export function chooseStrategy(modality: Modality, config: ResolvedConfig, calibration: Calibration): Strategy {
  const { values } = config;
  const bits = chooseBits(config);
  const method = chooseMethod(modality, bits.value, config, calibration);
  const storage = chooseStorage(config);
  const baseSpec: QuantSpec = {
    bits: bits.value,
    groupSize: storage.groupSize,
    symmetric: values.symmetric,
    method: method.value,
    scaleBits: values.scale_bits === "none" ? null : values.scale_bits,
    zeroPointBits: values.zero_point_bits === "none" ? null : values.zero_point_bits,
    superGroupSize: storage.superGroupSize,
    weighting: values.weighting,
    preserveGain: values.preserve_gain,
  };
  const activations = chooseActivations(modality, config);
  const asGiven = (...keys: ConfigKey[]): Decision[] =>
    keys.map((key) => ({ what: key, value: String(values[key]), rule: originRule(config, key) }));
  const hasZeroPoints = !values.symmetric && method.value !== "r2q";
  return {
    baseSpec,
    decisions: [
      { what: "bit_width", value: String(bits.value), rule: bits.rule },
      { what: "method", value: method.value, rule: method.rule },
      ...asGiven("symmetric"),
      { what: "group_size", value: String(storage.groupSize), rule: storage.groupRule },
      ...asGiven("scale_bits"),
      ...(storage.superGroupSize === null
        ? []
        : [{ what: "super_group_size", value: String(storage.superGroupSize), rule: storage.superRule }]),
      ...(hasZeroPoints ? asGiven("zero_point_bits") : []),
      ...(method.value === "mse" ? asGiven("weighting", "preserve_gain") : []),
      ...asGiven("min_accuracy"),
      ...activations.decisions,
    ],
    notApplied: [...activations.notApplied, ...listUnused(config, method.value)],
  };
}

/** The spec of a layer whose width is pinned to `bits`, with the rule that chose its method. */
export function pinnedSpec(
  strategy: Strategy,
  bits: BitWidth,
  modality: Modality,
  config: ResolvedConfig,
  calibration: Calibration,
): QuantSpec {
  if (bits === strategy.baseSpec.bits) return strategy.baseSpec;
  return { ...strategy.baseSpec, bits, method: chooseMethod(modality, bits, config, calibration).value };
}

interface Choice<T> {
  readonly value: T;
  readonly rule: string;
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

function chooseMethod(
  modality: Modality,
  bits: BitWidth,
  config: ResolvedConfig,
  calibration: Calibration,
): Choice<MethodName> {
  const { method, symmetric, scale_bits } = config.values;
  if (method !== null) {
    if (method === "gptq" || method === "auto") throw refuseUncalibrated(config, method);
    const value = methodAtWidth(method, bits);
    const rule = originRule(config, "method");
    if (value === method) return { value, rule };
    if (symmetric) return { value: "rtn", rule: `${method} has no ${bits} bits, hqq no symmetric codes` };
    return { value, rule: `${rule}: ${value} at ${bits} bits, which ${method} does not have` };
  }
  const { methods, calibratedMethod } = STRATEGIES[modality];
  const chosen = methods[bits];
  const missing = calibratedMethod !== null && calibration === null ? ", no calibration" : "";
  if (symmetric) {
    const origin = originRule(config, "symmetric");
    const rule = `strategy ${modality}: rtn, as ${chosen} has no symmetric codes (${origin})`;
    return { value: "rtn", rule };
  }
  if (chosen === "r2q" && scale_bits === "none") {
    const rule = `strategy ${modality}: hqq, as r2q needs coded scales (${originRule(config, "scale_bits")})`;
    return { value: "hqq", rule };
  }
  return { value: chosen, rule: `strategy ${modality}: ${chosen} at ${bits} bits${missing}` };
}

function refuseUncalibrated(config: ResolvedConfig, method: string): ArrowQuantError {
  const rule = originRule(config, "method");
  return new ArrowQuantError("E_CONFLICT", `method ${method} (${rule}) needs calibration, and there is none`, {
    hint: "hqq is the best method without calibration; leave method out to have it chosen",
    details: { method, origin: rule },
  });
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
    const whole = Math.max(1, Math.floor(superGroupSize / groupSize)) * groupSize;
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

const NEEDS_CALIBRATION = "needs calibration";

/** What will happen to activations once there is calibration. */
function chooseActivations(
  modality: Modality,
  config: ResolvedConfig,
): { decisions: Decision[]; notApplied: NotApplied[] } {
  const { values } = config;
  const strategy = STRATEGIES[modality];
  const byStrategy = (isOn: boolean): string => `strategy ${modality}: ${isOn ? "on" : "off"}`;

  const timeAware: Choice<boolean> =
    values.enable_time_aware === null
      ? { value: strategy.timeAware, rule: byStrategy(strategy.timeAware) }
      : { value: values.enable_time_aware, rule: originRule(config, "enable_time_aware") };
  // A profile's `true` allows what the modality asks for; its `false` forbids it.
  const isLeft = values.enable_spatial === null || (values.enable_spatial && !isExplicit(config, "enable_spatial"));
  const spatial: Choice<boolean> = isLeft
    ? { value: strategy.spatial, rule: byStrategy(strategy.spatial) }
    : { value: values.enable_spatial === true, rule: originRule(config, "enable_spatial") };

  const show = (isOn: boolean): string => (isOn ? "on" : "off");
  return {
    decisions: [
      { what: "enable_time_aware", value: show(timeAware.value), rule: timeAware.rule },
      { what: "enable_spatial", value: show(spatial.value), rule: spatial.rule },
    ],
    notApplied: [
      ...(timeAware.value ? [{ setting: "enable_time_aware", reason: NEEDS_CALIBRATION }] : []),
      ...(spatial.value ? [{ setting: "enable_spatial", reason: NEEDS_CALIBRATION }] : []),
    ],
  };
}

/** Settings given by hand that nothing will use. */
function listUnused(config: ResolvedConfig, method: MethodName): NotApplied[] {
  const { values } = config;
  const unused: { key: ConfigKey; isUnused: boolean; reason: string }[] = [
    { key: "num_time_groups", isUnused: true, reason: NEEDS_CALIBRATION },
    { key: "calibration_samples", isUnused: true, reason: NEEDS_CALIBRATION },
    { key: "weighting", isUnused: method !== "mse", reason: `method ${method} weights nothing` },
    { key: "preserve_gain", isUnused: method !== "mse", reason: `method ${method} rescales no rows` },
    {
      key: "zero_point_bits",
      isUnused: method === "r2q" || values.symmetric,
      reason: method === "r2q" ? "method r2q has no zero points" : "symmetric codes have no zero points",
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
