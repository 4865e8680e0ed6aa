/** Settings that contradict each other. */
import { type Config, type ConfigKey, describeOrigin, isExplicit, type ResolvedConfig } from "./config.js";
import { showValue } from "./problem.js";

interface Contradiction {
  readonly keys: readonly [ConfigKey, ConfigKey];
  readonly holds: (values: Config) => boolean;
  readonly because: string;
}

const isUnlessMse = ({ method }: Config): boolean => method !== null && method !== "mse" && method !== "auto";

const isUnlessGptq = ({ method }: Config): boolean => method !== null && method !== "gptq" && method !== "auto";
const isOff = ({ activation_bits }: Config): boolean => activation_bits === 16;
const isWithoutTime = ({ activation_mode }: Config): boolean =>
  activation_mode === "static" || activation_mode === "dynamic";
/** The targets that settle widths and group sizes; each alone says all. */
const TARGETS = ["target_bpw", "target_model_size_mb", "max_error", "mean_group_size"] as const;
const always = (): boolean => true;

/** Every setting that a target makes meaningless or that makes a target meaningless. */
const TARGET_CONTRADICTIONS: readonly Contradiction[] = TARGETS.flatMap((target, index): Contradiction[] => {
  const isSet = (values: Config): boolean => values[target] !== null;
  return [
    ...TARGETS.slice(index + 1).map(
      (other): Contradiction => ({
        keys: [target, other],
        holds: (values) => isSet(values) && values[other] !== null,
        because: "one target says it all",
      }),
    ),
    {
      keys: [target, "enable_mixed_precision"],
      holds: (values) => isSet(values) && values.enable_mixed_precision === false,
      because: "a target is met by mixed precision",
    },
    ...(target === "mean_group_size"
      ? []
      : [
          {
            keys: ["bit_width", target],
            holds: isSet,
            because: "a target chooses widths from candidate_bits",
          } as const,
        ]),
  ];
});

const OFF = "16 bits leave activations as they are";
const NO_GROUPS = "only mode time has timestep groups";

/** The closed set of contradictions between two settings that were both given by hand. */
const CONTRADICTIONS: readonly Contradiction[] = [
  {
    keys: ["method", "bit_width"],
    holds: ({ method, bit_width }) => method === "r2q" && bit_width !== 2,
    because: "r2q is a method of 2 bits",
  },
  {
    keys: ["method", "scale_bits"],
    holds: ({ method, scale_bits }) => method === "r2q" && scale_bits === "none",
    because: "r2q stores both its scales as codes",
  },
  {
    keys: ["method", "zero_point_bits"],
    holds: ({ method, zero_point_bits }) => method === "r2q" && zero_point_bits !== "none",
    because: "r2q has no zero points",
  },
  {
    keys: ["method", "symmetric"],
    holds: ({ method, symmetric }) => method === "hqq" && symmetric,
    because: "hqq optimizes the zero points that symmetric leaves out",
  },
  {
    keys: ["method", "symmetric"],
    holds: ({ method, symmetric }) => method === "r2q" && symmetric,
    because: "r2q has no zero points to leave out",
  },
  {
    keys: ["zero_point_bits", "symmetric"],
    holds: ({ zero_point_bits, symmetric }) => symmetric && zero_point_bits !== "none",
    because: "symmetric leaves the zero points out",
  },
  {
    keys: ["super_group_size", "group_size"],
    holds: ({ super_group_size, group_size }) => super_group_size % group_size !== 0,
    because: "a super-group is a whole number of groups",
  },
  {
    keys: ["super_group_size", "scale_bits"],
    holds: ({ scale_bits }) => scale_bits === "none",
    because: "float32 scales have no super-groups",
  },
  {
    keys: ["weighting", "method"],
    holds: isUnlessMse,
    because: "only mse weights its error",
  },
  {
    keys: ["preserve_gain", "method"],
    holds: isUnlessMse,
    because: "only mse rescales rows",
  },
  {
    keys: ["include", "exclude"],
    holds: ({ include, exclude }) => include.length > 0 && include.every((pattern) => exclude.includes(pattern)),
    because: "everything included is excluded",
  },
  {
    keys: ["fail_fast", "min_accuracy"],
    holds: ({ fail_fast, min_accuracy }) => fail_fast && min_accuracy === 0,
    because: "no layer can be below an accuracy of 0",
  },
  {
    keys: ["num_time_groups", "enable_time_aware"],
    holds: ({ enable_time_aware }) => enable_time_aware === false,
    because: "without time-aware quantization there are no timestep groups",
  },
  {
    keys: ["time_groups", "enable_time_aware"],
    holds: ({ enable_time_aware }) => enable_time_aware === false,
    because: "without time-aware quantization there are no timestep groups",
  },
  {
    keys: ["gptq_damp", "method"],
    holds: isUnlessGptq,
    because: "only gptq has a Hessian to damp",
  },
  {
    keys: ["gptq_order", "method"],
    holds: isUnlessGptq,
    because: "only gptq orders columns",
  },
  {
    keys: ["activation_mode", "enable_time_aware"],
    holds: ({ activation_mode, enable_time_aware }) =>
      activation_mode !== null && enable_time_aware !== null && enable_time_aware !== (activation_mode === "time"),
    because: "time-aware quantization is mode time",
  },
  {
    keys: ["activation_bits", "enable_time_aware"],
    holds: (values) => isOff(values) && values.enable_time_aware === true,
    because: OFF,
  },
  {
    keys: ["activation_mode", "activation_bits"],
    holds: (values) => isOff(values) && values.activation_mode !== null,
    because: OFF,
  },
  {
    keys: ["activation_range", "activation_bits"],
    holds: (values) => isOff(values) && values.activation_range !== null,
    because: OFF,
  },
  { keys: ["activation_percentile", "activation_bits"], holds: isOff, because: OFF },
  { keys: ["num_time_groups", "activation_bits"], holds: isOff, because: OFF },
  { keys: ["time_groups", "activation_bits"], holds: isOff, because: OFF },
  { keys: ["num_time_groups", "activation_mode"], holds: isWithoutTime, because: NO_GROUPS },
  { keys: ["time_groups", "activation_mode"], holds: isWithoutTime, because: NO_GROUPS },
  {
    keys: ["activation_range", "activation_mode"],
    holds: ({ activation_mode, activation_range }) => activation_mode === "dynamic" && activation_range !== null,
    because: "mode dynamic takes every token's own minimum and maximum",
  },
  {
    keys: ["activation_percentile", "activation_range"],
    holds: ({ activation_range }) => activation_range !== null && activation_range !== "percentile",
    because: "only range percentile leaves values outside by their number",
  },
  {
    keys: ["spatial_alpha", "enable_spatial"],
    holds: ({ enable_spatial }) => enable_spatial === false,
    because: "without channel equalization nothing moves from activations to weights",
  },
  {
    keys: ["thermodynamic.transition_optimization.weight", "thermodynamic.transition_optimization.enabled"],
    holds: (values) => values["thermodynamic.transition_optimization.enabled"] === false,
    because: "nothing is fitted where it is off",
  },
  ...TARGET_CONTRADICTIONS,
  {
    keys: ["max_error", "sensitivity"],
    holds: ({ sensitivity }) => sensitivity === "entropy",
    because: "the entropy of weights is no error",
  },
  { keys: ["group_size", "candidate_group_sizes"], holds: always, because: "the candidates are all the group sizes" },
  {
    keys: ["super_group_size", "candidate_group_sizes"],
    holds: ({ super_group_size, candidate_group_sizes }) =>
      candidate_group_sizes?.some((size) => super_group_size % size !== 0) ?? false,
    because: "a super-group is a whole number of groups",
  },
];

export interface Conflict {
  readonly message: string;
  /** Both, as they were given: `method r2q (flag --method)`. */
  readonly settings: readonly [string, string];
  readonly keys: readonly [ConfigKey, ConfigKey];
}

/** Every contradiction between settings given by hand; values of profiles and defaults give way instead. */
export function findConflicts(config: ResolvedConfig): Conflict[] {
  return CONTRADICTIONS.filter(
    ({ keys, holds }) => keys.every((key) => isExplicit(config, key)) && holds(config.values),
  ).map(({ keys, because }) => describeConflict(config, keys, because));
}

/** The conflict of two settings, in words. */
function describeConflict(config: ResolvedConfig, keys: readonly [ConfigKey, ConfigKey], because: string): Conflict {
  const describe = (key: ConfigKey): string => {
    const value = config.values[key];
    const text = typeof value === "string" ? value : showValue(value);
    return `${key} ${text} (${describeOrigin(config.origins[key])})`;
  };
  const settings = [describe(keys[0]), describe(keys[1])] as const;
  return { message: `${settings[0]} contradicts ${settings[1]}: ${because}`, settings, keys };
}
