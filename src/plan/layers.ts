/**
 * Which tensors of a component are kept, which quantized and how, and which rule said so. The first rule that
 * speaks decides:
 *
 * 1. Always kept: fewer than two dimensions, no elements, no float type, what a graph shows to be no weight.
 * 2. `layer_bit_widths`: the first pattern that matches; a width un-keeps what the rules below would keep.
 * 3. `exclude` keeps.
 * 4. `include`, where given: what no pattern matches is kept. It does not un-keep what the rules below keep.
 * 5. `sensitive_layer_names`, `sensitive_layer_patterns` keep.
 * 6. The architecture's keep table, unless `skip_sensitive_layers` is false.
 * 7. Everything else is quantized.
 *
 * With a target, 5 and 6 give a least width instead where `sensitive_min_bits` says so, and what is quantized may have
 * the widths between `layer_min_bits` and `layer_max_bits`. A plan file stands in the place of 2 to 7.
 */
import { distance } from "fastest-levenshtein";
import { type ConfigKey, describeOrigin, type ResolvedConfig } from "../config/config.js";
import { ArrowQuantError } from "../errors.js";
import { DTYPES, isFloat, keptDtype } from "../tensor/dtype.js";
import type { TensorInfo } from "../tensor/info.js";
import { type BitWidth, countElements, type QuantSpec } from "../tensor/layout.js";
import type { Architecture } from "./keep.js";
import { compilePattern, type NamePattern } from "./pattern.js";
import type { LayerPlan } from "./plan.js";
import type { LayerTreatment } from "./strategy.js";
import type { WidthBounds } from "./targets.js";

interface CountedPattern {
  readonly setting: ConfigKey;
  readonly pattern: NamePattern;
  /** Tensors the pattern matches, over all components. */
  matched: number;
  /** Tensors it decided about, over all components. */
  decided: number;
}

interface CountedName {
  readonly name: string;
  matched: number;
}

interface CountedWidth extends CountedPattern {
  readonly bits: BitWidth;
}

/** What a plan file says of a tensor. */
export interface SettledTensor {
  /** null: kept. */
  readonly spec: QuantSpec | null;
  /** The method is to be chosen from those of the layer, as `auto` does. */
  readonly isAuto: boolean;
  readonly reason: string;
}

/** By name. */
export type SettledLayers = ReadonlyMap<string, SettledTensor>;

/** The layer rules of a configuration, ready to test names. They count what they match. */
export interface LayerRules {
  readonly widths: readonly (CountedPattern & { readonly bits: BitWidth | "none" })[];
  readonly least: readonly CountedWidth[];
  readonly most: readonly CountedWidth[];
  readonly exclude: readonly CountedPattern[];
  readonly include: readonly CountedPattern[];
  readonly sensitivePatterns: readonly CountedPattern[];
  readonly sensitiveNames: ReadonlyMap<string, CountedName>;
}

/** Compiles the patterns of `config`; throws `E_PATTERN` for one that is no regular expression. */
export function compileLayerRules(config: ResolvedConfig): LayerRules {
  const { values } = config;
  const compile = (setting: ConfigKey, source: string): CountedPattern => ({
    setting,
    pattern: compilePattern(source, `${setting} (${describeOrigin(config.origins[setting])})`),
    matched: 0,
    decided: 0,
  });
  const compileBounds = (setting: "layer_min_bits" | "layer_max_bits"): CountedWidth[] =>
    Object.entries(values[setting]).map(([source, bits]) => ({ ...compile(setting, source), bits }));
  return {
    least: compileBounds("layer_min_bits"),
    most: compileBounds("layer_max_bits"),
    widths: Object.entries(values.layer_bit_widths).map(([source, bits]) => ({
      ...compile("layer_bit_widths", source),
      bits,
    })),
    exclude: values.exclude.map((source) => compile("exclude", source)),
    include: values.include.map((source) => compile("include", source)),
    sensitivePatterns: values.sensitive_layer_patterns.map((source) => compile("sensitive_layer_patterns", source)),
    sensitiveNames: new Map(values.sensitive_layer_names.map((name) => [name, { name, matched: 0 }])),
  };
}

/** What decides about layers of one component beside the rules. */
export interface LayerContext {
  readonly architecture: Architecture;
  /** How a tensor is quantized, at a width of its own or, for null, at that of all. */
  readonly treat: (name: string, bits: BitWidth | null) => LayerTreatment;
  /** What a target may choose for a tensor; null: there is no target. */
  readonly options: ((tensor: TensorInfo, bounds: WidthBounds) => readonly QuantSpec[]) | null;
  readonly skipSensitive: boolean;
  /** What a target gives sensitive layers at least; null: they are kept. */
  readonly sensitiveMinBits: BitWidth | null;
  /** null: there is no plan file. */
  readonly settled: SettledLayers | null;
}

/**
 * One plan per tensor, in order.
 * @param names the tensors' names without the denoiser's prefix, for the keep table
 */
export function planLayers(
  tensors: readonly TensorInfo[],
  names: readonly string[],
  rules: LayerRules,
  context: LayerContext,
): LayerPlan[] {
  return tensors.map((tensor, index): LayerPlan => {
    const decision = decide(tensor, names[index] as string, rules, context);
    const { bits, reason, pinned } = decision;
    const bounds = boundsOf(tensor.name, rules, decision);
    // The source's scale is applied on reading, and its product is no float8 any more.
    const storedDtype = tensor.sourceScale === null ? keptDtype(tensor.dtype) : "F32";
    const common = { tensor, storedDtype, pinned: pinned ?? false };
    const kept = { spec: null, candidates: [], options: [], calibrated: false, spatial: null, activations: null };
    const settled = context.settled?.get(tensor.name);
    if (settled !== undefined) {
      const { spec, isAuto, reason: said } = settled;
      if (spec === null) return { ...common, ...kept, reason: said };
      const { note: _, ...treatment } = context.treat(tensor.name, spec.bits);
      const candidates = isAuto ? treatment.candidates.map(({ method }) => ({ ...spec, method })) : [];
      const first = candidates[0] ?? (isAuto ? { ...spec, method: treatment.spec.method } : spec);
      return { ...common, ...treatment, spec: first, candidates, options: [], pinned: true, reason: said };
    }
    if (bits === "none") return { ...common, ...kept, reason };
    const { note, ...treatment } = context.treat(tensor.name, bits);
    const options = context.options?.(tensor, bounds) ?? [];
    return { ...common, ...treatment, options, reason: note === null ? reason : `${reason}; ${note}` };
  });
}

/** What the options of a tensor are held to; every pattern is tested on every tensor. */
function boundsOf(name: string, rules: LayerRules, { bits, least }: LayerDecision): WidthBounds {
  const [min, max] = [rules.least, rules.most].map((bounds): WidthBounds["least"] => {
    const first = firstMatch(bounds, name);
    return first === null ? null : { bits: first.bits, rule: `${first.setting} "${first.pattern.source}"` };
  }) as [WidthBounds["least"], WidthBounds["most"]];
  const isSensitive = least != null && least.bits > (min?.bits ?? 0);
  return { pinned: bits === "none" ? null : bits, least: isSensitive ? least : min, most: max };
}

interface LayerDecision {
  /** null: the width of all; none: kept. */
  readonly bits: BitWidth | "none" | null;
  readonly reason: string;
  readonly pinned?: boolean;
  /** Of a sensitive layer that is not kept. */
  readonly least?: WidthBounds["least"];
}

function decide(tensor: TensorInfo, name: string, rules: LayerRules, context: LayerContext): LayerDecision {
  // Every pattern is tested on every tensor, so that one that matches nothing is found.
  const width = firstMatch(rules.widths, tensor.name);
  const excluded = firstMatch(rules.exclude, tensor.name);
  const included = firstMatch(rules.include, tensor.name);
  const sensitive = firstMatch(rules.sensitivePatterns, tensor.name);
  const named = findNamed(rules.sensitiveNames, tensor.name);

  const always = alwaysKept(tensor);
  if (always !== null) return { bits: "none", reason: always };
  if (width !== null) {
    width.decided += 1;
    const reason = `layer_bit_widths "${width.pattern.source}": ${width.bits}`;
    return { bits: width.bits, reason: width.bits === "none" ? reason : `${reason} bits`, pinned: true };
  }
  if (excluded !== null) return { bits: "none", reason: `exclude "${excluded.pattern.source}"` };
  if (rules.include.length > 0 && included === null) return { bits: "none", reason: "include: no pattern matches" };
  const spare = (rule: string): LayerDecision => {
    const { sensitiveMinBits, options } = context;
    if (sensitiveMinBits === null || options === null) return { bits: "none", reason: rule };
    const reason = `${rule}: at least ${sensitiveMinBits} bits (sensitive_min_bits)`;
    return { bits: null, reason, least: { bits: sensitiveMinBits, rule: "sensitive_min_bits" } };
  };
  if (named !== null) return spare(`sensitive_layer_names "${named}"`);
  if (sensitive !== null) return spare(`sensitive_layer_patterns "${sensitive.pattern.source}"`);
  if (context.skipSensitive) {
    const { keeps, name: architecture } = context.architecture;
    const rule = keeps.find(({ pattern }) => pattern.test(name));
    if (rule !== undefined) {
      return spare(`keep ${architecture} "${rule.pattern.source}" (${rule.what})`);
    }
  }
  const reason = included === null ? "quantized by default" : `include "${included.pattern.source}"`;
  return { bits: null, reason };
}

/** Whether anything could quantize the tensor: it has rows of float weights. */
export function isQuantizable(tensor: TensorInfo): boolean {
  return alwaysKept(tensor) === null;
}

function alwaysKept({ shape, dtype, notWeight }: TensorInfo): string | null {
  if (shape.length < 2) return "always kept: fewer than 2 dimensions";
  if (!isFloat(dtype)) return `always kept: ${DTYPES[dtype].kind} type ${dtype}`;
  if (notWeight !== undefined) return `always kept: no weight of a layer, ${notWeight}`;
  return countElements(shape) === 0 ? "always kept: no elements" : null;
}

/** The first pattern that matches; all that match are counted. */
function firstMatch<T extends CountedPattern>(patterns: readonly T[], name: string): T | null {
  let first: T | null = null;
  for (const counted of patterns) {
    if (!counted.pattern.test(name)) continue;
    counted.matched += 1;
    first ??= counted;
  }
  return first;
}

/** The layer of a tensor: `blocks.0.attn.to_q` of `blocks.0.attn.to_q.weight`. */
export function layerName(tensorName: string): string {
  return tensorName.replace(/\.weight$/, "");
}

function findNamed(names: LayerRules["sensitiveNames"], tensorName: string): string | null {
  if (names.size === 0) return null;
  const found = [...new Set([tensorName, layerName(tensorName)])].map((name) => names.get(name));
  let first: string | null = null;
  for (const counted of found) {
    if (counted === undefined) continue;
    counted.matched += 1;
    first ??= counted.name;
  }
  return first;
}

/**
 * Holds the rules to what they matched in `tensors`: throws `E_PATTERN` for a pattern or name that matched
 * nothing, returns warnings for patterns that matched and still decided nothing.
 */
export function checkLayerRules(rules: LayerRules, tensors: readonly TensorInfo[], config: ResolvedConfig): string[] {
  const { widths, least, most, exclude, include, sensitivePatterns } = rules;
  const patterns = [...widths, ...least, ...most, ...exclude, ...include, ...sensitivePatterns];
  const example = tensors.find(({ shape }) => shape.length > 1)?.name ?? tensors[0]?.name;
  for (const { setting, pattern, matched } of patterns) {
    if (matched > 0) continue;
    const origin = describeOrigin(config.origins[setting]);
    throw new ArrowQuantError(
      "E_PATTERN",
      `${setting} (${origin}): "${pattern.source}" matches none of ${tensors.length} tensors`,
      {
        ...(example === undefined ? {} : { hint: `tensor names look like "${example}"` }),
        details: { setting, pattern: pattern.source, tensors: tensors.length },
      },
    );
  }
  for (const { name, matched } of rules.sensitiveNames.values()) {
    if (matched === 0) throw refuseName(name, tensors, config);
  }
  return rules.widths
    .filter(({ decided }) => decided === 0)
    .map(
      ({ pattern, matched }) =>
        `layer_bit_widths "${pattern.source}" matches ${matched} tensors and decides about none: ` +
        "an earlier pattern does, or they are always kept",
    );
}

function refuseName(name: string, tensors: readonly TensorInfo[], config: ResolvedConfig): ArrowQuantError {
  let nearest: string | null = null;
  let least = Infinity;
  for (const tensor of tensors) {
    const candidate = layerName(tensor.name);
    const steps = distance(layerName(name), candidate.slice(0, name.length + 100));
    if (steps < least) [nearest, least] = [candidate, steps];
  }
  const origin = describeOrigin(config.origins.sensitive_layer_names);
  const message = `sensitive_layer_names (${origin}): "${name}" is none of ${tensors.length} tensors or their layers`;
  return new ArrowQuantError("E_PATTERN", message, {
    ...(nearest === null ? {} : { hint: `did you mean "${nearest}"?` }),
    details: { setting: "sensitive_layer_names", name, tensors: tensors.length, nearest },
  });
}
