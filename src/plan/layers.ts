/**
 * Which tensors of a component are kept, which quantized and how, and which rule said so. The first rule that
 * speaks decides:
 *
 * 1. Always kept: fewer than two dimensions, no elements, no float type.
 * 2. `layer_bit_widths`: the first pattern that matches; a width un-keeps what the rules below would keep.
 * 3. `exclude` keeps.
 * 4. `include`, where given: what no pattern matches is kept. It does not un-keep what the rules below keep.
 * 5. `sensitive_layer_names`, `sensitive_layer_patterns` keep.
 * 6. The architecture's keep table, unless `skip_sensitive_layers` is false.
 * 7. Everything else is quantized.
 */
import { distance } from "fastest-levenshtein";
import { type ConfigKey, describeOrigin, type ResolvedConfig } from "../config/config.js";
import { ArrowQuantError } from "../errors.js";
import { DTYPES, isFloat, keptDtype } from "../tensor/dtype.js";
import type { TensorInfo } from "../tensor/info.js";
import { type BitWidth, countElements } from "../tensor/layout.js";
import type { Architecture } from "./keep.js";
import { compilePattern, type NamePattern } from "./pattern.js";
import type { LayerPlan } from "./plan.js";
import type { LayerTreatment } from "./strategy.js";

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

/** The layer rules of a configuration, ready to test names. They count what they match. */
export interface LayerRules {
  readonly widths: readonly (CountedPattern & { readonly bits: BitWidth | "none" })[];
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
  return {
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
  readonly skipSensitive: boolean;
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
    const { bits, reason, pinned } = decide(tensor, names[index] as string, rules, context);
    // The source's scale is applied on reading, and its product is no float8 any more.
    const storedDtype = tensor.sourceScale === null ? keptDtype(tensor.dtype) : "F32";
    const common = { tensor, storedDtype, pinned: pinned ?? false };
    if (bits === "none") {
      return { ...common, reason, spec: null, candidates: [], calibrated: false, spatial: null, activations: null };
    }
    const { note, ...treatment } = context.treat(tensor.name, bits);
    return { ...common, ...treatment, reason: note === null ? reason : `${reason}; ${note}` };
  });
}

interface LayerDecision {
  /** null: the width of all; none: kept. */
  readonly bits: BitWidth | "none" | null;
  readonly reason: string;
  readonly pinned?: boolean;
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
  if (named !== null) return { bits: "none", reason: `sensitive_layer_names "${named}"` };
  if (sensitive !== null) {
    return { bits: "none", reason: `sensitive_layer_patterns "${sensitive.pattern.source}"` };
  }
  if (context.skipSensitive) {
    const { keeps, name: architecture } = context.architecture;
    const rule = keeps.find(({ pattern }) => pattern.test(name));
    if (rule !== undefined) {
      return { bits: "none", reason: `keep ${architecture} "${rule.pattern.source}" (${rule.what})` };
    }
  }
  const reason = included === null ? "quantized by default" : `include "${included.pattern.source}"`;
  return { bits: null, reason };
}

function alwaysKept({ shape, dtype }: TensorInfo): string | null {
  if (shape.length < 2) return "always kept: fewer than 2 dimensions";
  if (!isFloat(dtype)) return `always kept: ${DTYPES[dtype].kind} type ${dtype}`;
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
  const patterns = [...rules.widths, ...rules.exclude, ...rules.include, ...rules.sensitivePatterns];
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
