/** Targets of mixed precision, and the widths and group sizes that one chooses from. Pure. */
import { type ConfigKey, describeOrigin, isExplicit, type ResolvedConfig } from "../config/config.js";
import { ArrowQuantError } from "../errors.js";
import type { BitWidth } from "../tensor/layout.js";

/** Settings that are targets; each alone says all (config/conflict.ts). */
export const TARGET_KEYS = ["target_bpw", "target_model_size_mb", "max_error", "mean_group_size"] as const;
export type TargetKey = (typeof TARGET_KEYS)[number];

/** What bits and group sizes are chosen for, layer by layer. */
export interface Target {
  readonly key: TargetKey;
  /** As the setting has it. */
  readonly value: number;
  /** In words: `3 bits per weight`. */
  readonly text: string;
}

const TARGET_TEXTS: Readonly<Record<TargetKey, (value: number) => string>> = {
  target_bpw: (value) => `${value} bits per weight`,
  target_model_size_mb: (value) => `${value} MB`,
  max_error: (value) => `an error of ${value}`,
  mean_group_size: (value) => `a mean group size of ${value}`,
};

/** Settings that do nothing without a target. */
export const TARGET_DEPENDENTS: readonly ConfigKey[] = [
  "candidate_bits",
  "candidate_group_sizes",
  "sensitivity",
  "layer_min_bits",
  "layer_max_bits",
  "sensitive_min_bits",
  "tie_layers",
  "tie_patterns",
  "knapsack_gap",
  "search",
  "evolution.population",
  "evolution.generations",
  "evolution.mutation",
  "evolution.crossover",
  "evolution.elite",
  "evolution.evaluations",
];

/** null: all layers that no rule singles out get the same bits. @throws E_CONFLICT for a switch without a target */
export function readTarget(config: ResolvedConfig): Target | null {
  const { values } = config;
  if (values.enable_mixed_precision === false) return null;
  for (const key of TARGET_KEYS) {
    const value = values[key];
    if (value !== null) return { key, value, text: TARGET_TEXTS[key](value) };
  }
  if (values.enable_mixed_precision === null) return null;
  const origin = describeOrigin(config.origins.enable_mixed_precision);
  throw new ArrowQuantError("E_CONFLICT", `enable_mixed_precision (${origin}) needs a target`, {
    hint: "give --target-bpw, --target-size, --max-error or --mean-group-size",
    details: { targets: TARGET_KEYS },
  });
}

/** Group sizes between which a mean one is met where nobody says: below 16 there are none, beyond 256 little is saved. */
const MEAN_GROUP_SIZES: readonly number[] = [16, 32, 64, 128, 256];

/** Widths and group sizes that layers may get, by rising size. */
export interface TargetChoices {
  readonly widths: readonly BitWidth[];
  readonly groupSizes: readonly number[];
}

/** @param base what layers get that no target changes */
export function listChoices(
  config: ResolvedConfig,
  target: Target,
  base: { readonly bits: BitWidth; readonly groupSize: number },
): TargetChoices {
  const { candidate_bits, candidate_group_sizes } = config.values;
  // A mean group size says nothing of widths: with several, the widest would win everywhere.
  const isOfGroups = target.key === "mean_group_size";
  const widths = isOfGroups && !isExplicit(config, "candidate_bits") ? [base.bits] : candidate_bits;
  const groupSizes = candidate_group_sizes ?? (isOfGroups ? MEAN_GROUP_SIZES : [base.groupSize]);
  return { widths: sortNumbers(widths), groupSizes: sortNumbers(groupSizes) };
}

function sortNumbers<T extends number>(numbers: readonly T[]): T[] {
  return [...new Set(numbers)].sort((a, b) => a - b);
}

/** What a layer's options are held to. */
export interface WidthBounds {
  /** Its width is settled; null: it is not. */
  readonly pinned: BitWidth | null;
  readonly least: { readonly bits: BitWidth; readonly rule: string } | null;
  readonly most: { readonly bits: BitWidth; readonly rule: string } | null;
}

/** The widths within the bounds. @throws E_CONFLICT where there are none */
export function boundWidths(name: string, widths: readonly BitWidth[], bounds: WidthBounds): readonly BitWidth[] {
  const { pinned, least, most } = bounds;
  if (pinned !== null) return [pinned];
  const within = widths.filter((bits) => bits >= (least?.bits ?? 0) && bits <= (most?.bits ?? Infinity));
  if (within.length > 0) return within;
  const rules = [
    ...(least === null ? [] : [`at least ${least.bits} (${least.rule})`]),
    ...(most === null ? [] : [`at most ${most.bits} (${most.rule})`]),
  ];
  throw new ArrowQuantError(
    "E_CONFLICT",
    `"${name}" may have ${rules.join(" and ")} bits, candidate_bits are ${widths.join(", ")}`,
    { hint: "change --candidate-bits or the bound", details: { tensor: name, candidate_bits: widths } },
  );
}

/**
 * Group sizes that differ for rows of `cols` weights: of those that take a whole row as one group the smallest stands
 * for all.
 */
export function distinctGroupSizes(groupSizes: readonly number[], cols: number): readonly number[] {
  const whole = groupSizes.findIndex((size) => size >= cols);
  return whole < 0 ? groupSizes : groupSizes.slice(0, whole + 1);
}
