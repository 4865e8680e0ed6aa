/**
 * Plan files: what would be done with each tensor, as YAML that people edit and `quantize --plan` follows.
 *
 *     arrowquant_plan: 1
 *     settings: {profile: local, calibration: sampling}      what the layers below do not settle
 *     components:
 *       - component: transformer
 *         fingerprint: 3f0c…                                 of the source the plan was made for
 *         symmetric: false                                   of all layers that do not say otherwise
 *         scale_bits: 6
 *         layers:
 *           - {name: blocks.0.attn.to_q.weight, shape: [64, 64], bits: 3, group_size: 32, method: hqq, …}
 *
 * Listed is every tensor that could be quantized; what is never quantized (fewer than two dimensions, integers) is
 * not. `bytes`, `error` and `reason` are there to be read.
 */
import { z } from "zod";
import { readYaml } from "../config/yaml.js";
import { ArrowQuantError } from "../errors.js";
import { BIT_WIDTHS, MAX_GROUP_SIZE, METHOD_NAMES, MIN_GROUP_SIZE, type QuantSpec } from "../tensor/layout.js";
import { isQuantizable } from "./layers.js";
import type { ComponentPlan, LayerPlan } from "./plan.js";
import { estimateLayerBytes } from "./size.js";
import { wholeGroups } from "./strategy.js";

export const PLAN_VERSION = 1;
/** A layer takes a line of 300 characters; 50,000 of them are more than any model has. */
export const MAX_PLAN_BYTES = 16 * 1024 ** 2;

/** One layer as the file has it; `place` is where, for messages. */
export interface PlanFileLayer {
  readonly name: string;
  readonly shape: readonly number[];
  /** null: kept. */
  readonly spec: QuantSpec | null;
  /** `method: auto`; the method of `spec` means nothing then. */
  readonly isAuto: boolean;
  readonly error: number | null;
  readonly reason: string | null;
  readonly place: string;
}

export interface PlanFileComponent {
  readonly component: string;
  readonly fingerprint: string | null;
  readonly layers: readonly PlanFileLayer[];
  readonly place: string;
}

export interface PlanFile {
  readonly path: string;
  /** By configuration key, not checked. */
  readonly settings: Readonly<Record<string, unknown>>;
  readonly components: readonly PlanFileComponent[];
}

const codeBits = z.union([z.int().min(2).max(8), z.literal("none")]);
const storage = {
  symmetric: z.boolean().optional(),
  scale_bits: codeBits.optional(),
  zero_point_bits: codeBits.optional(),
  super_group_size: z.int().min(MIN_GROUP_SIZE).max(65_536).optional(),
  weighting: z.enum(["none", "magnitude"]).optional(),
  preserve_gain: z.boolean().optional(),
};

const layerSchema = z.strictObject({
  name: z.string(),
  shape: z.array(z.int().min(0)),
  bits: z.union([z.literal([...BIT_WIDTHS]), z.literal("none")], {
    error: `expected ${BIT_WIDTHS.join(", ")} or none`,
  }),
  group_size: z.int().min(MIN_GROUP_SIZE).max(MAX_GROUP_SIZE).optional(),
  method: z.enum([...METHOD_NAMES, "auto"]).optional(),
  ...storage,
  bytes: z.number().optional(),
  error: z.number().nullable().optional(),
  reason: z.string().optional(),
});

const componentSchema = z.strictObject({
  component: z.string().min(1),
  fingerprint: z
    .string()
    .regex(/^[0-9a-f]{64}$/)
    .optional(),
  ...storage,
  layers: z.array(layerSchema).min(1),
});

const fileSchema = z.strictObject({
  arrowquant_plan: z.literal(PLAN_VERSION),
  model: z.string().optional(),
  target: z.string().optional(),
  settings: z.record(z.string(), z.unknown()).default({}),
  components: z.array(componentSchema).min(1),
});

type LayerEntry = z.output<typeof layerSchema>;
type Storage = Pick<LayerEntry, keyof typeof storage>;

/** More than these help nobody. */
const MAX_PROBLEMS_SHOWN = 20;

/** `E_PLAN` with every problem, each a sentence with its place. */
export function refusePlan(path: string, problems: readonly string[], hint: string): ArrowQuantError {
  const shown = problems.slice(0, MAX_PROBLEMS_SHOWN);
  if (problems.length > shown.length) shown.push(`and ${problems.length - shown.length} more`);
  const message =
    problems.length === 1 ? (shown[0] as string) : `${problems.length} problems in ${path}:\n  ${shown.join("\n  ")}`;
  return new ArrowQuantError("E_PLAN", message, {
    hint,
    details: { path, problems: problems.slice(0, MAX_PROBLEMS_SHOWN), count: problems.length },
  });
}

/**
 * What a plan file's text says.
 * @throws E_PLAN with every fault of its form
 */
export function parsePlanFile(text: string, path: string): PlanFile {
  const hint = "`arrowquant plan MODEL -o plan.yaml` writes a plan file to start from";
  const read = readYaml(text, path, "file", MAX_PLAN_BYTES);
  if (read.problems.length > 0) {
    throw refusePlan(
      path,
      read.problems.map(({ message }) => message),
      hint,
    );
  }
  const given = new Map(read.given.map((value) => [value.key, value]));
  const placeOf = (at: readonly PropertyKey[]): string => {
    const [root, ...below] = at;
    const value = given.get(String(root));
    return value === undefined ? path : value.placeOf(below).text;
  };
  const parsed = fileSchema.safeParse(Object.fromEntries([...given].map(([key, { value }]) => [key, value])));
  if (!parsed.success) {
    const problems = parsed.error.issues.map((issue) => {
      const at = issue.code === "unrecognized_keys" ? [...issue.path, issue.keys[0] as string] : issue.path;
      return `${placeOf(at)}: ${describePath(at)}: ${issue.message}`;
    });
    throw refusePlan(path, problems, hint);
  }
  const problems: string[] = [];
  const components = parsed.data.components.map((entry, index): PlanFileComponent => {
    const { component, fingerprint = null, layers, ...common } = entry;
    return {
      component,
      fingerprint,
      place: placeOf(["components", index]),
      layers: layers.map((layer, at): PlanFileLayer => {
        const place = placeOf(["components", index, "layers", at]);
        const { name, shape, error = null, reason = null } = layer;
        const made = readSpec(layer, { ...common, ...definedOf(layer) });
        if (typeof made === "string") problems.push(`${place}: "${name}": ${made}`);
        const spec = typeof made === "string" ? null : made;
        return { name, shape, spec, isAuto: layer.method === "auto", error, reason, place };
      }),
    };
  });
  problems.push(...findRepeated(components));
  if (problems.length > 0) throw refusePlan(path, problems, hint);
  return { path, settings: parsed.data.settings, components };
}

function describePath(path: readonly PropertyKey[]): string {
  return path
    .map((step, index) => (typeof step === "number" ? `[${step}]` : `${index > 0 ? "." : ""}${String(step)}`))
    .join("");
}

function definedOf(layer: LayerEntry): Storage {
  const { symmetric, scale_bits, zero_point_bits, super_group_size, weighting, preserve_gain } = layer;
  const all = { symmetric, scale_bits, zero_point_bits, super_group_size, weighting, preserve_gain };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

/** The spec of an entry; null: kept; text: what is impossible about it. */
function readSpec(layer: LayerEntry, given: Storage): QuantSpec | null | string {
  const { bits, group_size: groupSize, method } = layer;
  if (bits === "none") return null;
  if (groupSize === undefined) return "group_size is missing";
  if (method === undefined) return "method is missing";
  const { symmetric = false, scale_bits = 6, zero_point_bits = 6, super_group_size = 1024 } = given;
  if (method === "r2q" && bits !== 2) return `r2q is a method of 2 bits, not ${bits}`;
  if (method === "r2q" && scale_bits === "none") return "r2q stores both its scales as codes";
  if (symmetric && (method === "hqq" || method === "r2q")) return `${method} has no symmetric codes`;
  const isSaid = layer.super_group_size !== undefined;
  if (isSaid && super_group_size % groupSize !== 0) {
    return `super_group_size ${super_group_size} is no multiple of group_size ${groupSize}`;
  }
  return {
    bits,
    groupSize,
    symmetric,
    method: method === "auto" ? "rtn" : method,
    scaleBits: scale_bits === "none" ? null : scale_bits,
    zeroPointBits: zero_point_bits === "none" ? null : zero_point_bits,
    superGroupSize: scale_bits === "none" ? null : wholeGroups(super_group_size, groupSize),
    weighting: given.weighting ?? "magnitude",
    preserveGain: given.preserve_gain ?? true,
  };
}

function findRepeated(components: readonly PlanFileComponent[]): string[] {
  const repeated = <T extends { readonly place: string }>(
    items: readonly T[],
    nameOf: (item: T) => string,
  ): string[] => {
    const seen = new Set<string>();
    return items.flatMap((item) => {
      const name = nameOf(item);
      if (seen.has(name)) return [`${item.place}: "${name}" stands twice`];
      seen.add(name);
      return [];
    });
  };
  return [
    ...repeated(components, ({ component }) => component),
    ...components.flatMap(({ layers }) => repeated(layers, ({ name }) => name)),
  ];
}

/** What is written beside the layers. */
export interface PlanHead {
  readonly model: string;
  readonly target: string | null;
  readonly settings: Readonly<Record<string, unknown>>;
  /** By component. */
  readonly fingerprints: Readonly<Record<string, string>>;
  /** Figures in words, a line each. */
  readonly figures: readonly string[];
}

/** The text of a plan file; `parsePlanFile` reads the same plan from it. */
export function writePlanFile(plans: readonly ComponentPlan[], head: PlanHead): string {
  const lines = [
    "# What arrowquant would do with each tensor. `arrowquant quantize MODEL --plan THIS_FILE -o OUT` does exactly that.",
    "# Edit bits (none keeps a tensor), group_size, method and, where a layer differs from its component, symmetric,",
    "# scale_bits, zero_point_bits, super_group_size. bytes, error (squared) and reason are there to be read.",
    ...head.figures.map((figure) => `# ${flatten(figure)}`),
    `arrowquant_plan: ${PLAN_VERSION}`,
    `model: ${quote(head.model)}`,
    ...(head.target === null ? [] : [`target: ${quote(head.target)}`]),
    `settings:${Object.keys(head.settings).length === 0 ? " {}" : ""}`,
    ...Object.entries(head.settings).map(([key, value]) => `  ${key}: ${JSON.stringify(value)}`),
    "components:",
  ];
  for (const plan of plans) {
    const errors = new Map(plan.mixed?.layers.map(({ name, error }) => [name, error]));
    const common = storageOf(plan.baseSpec);
    lines.push(`  - component: ${quote(plan.component)}`);
    const fingerprint = head.fingerprints[plan.component];
    if (fingerprint !== undefined) lines.push(`    fingerprint: ${fingerprint}`);
    lines.push(...Object.entries(common).map(([key, value]) => `    ${key}: ${value}`), "    layers:");
    for (const layer of plan.layers) {
      if (isQuantizable(layer.tensor)) lines.push(`      - {${describeEntry(layer, common, errors)}}`);
    }
  }
  return `${lines.join("\n")}\n`;
}

/** Keys whose texts are words of ours, which YAML reads without quotes. */
const WORD_KEYS: ReadonlySet<string> = new Set(["bits", "method", "scale_bits", "zero_point_bits", "weighting"]);

function describeEntry(
  layer: LayerPlan,
  common: Readonly<Record<string, unknown>>,
  errors: ReadonlyMap<string, number | null>,
): string {
  const { tensor, spec, reason } = layer;
  const entry: Record<string, unknown> = { name: tensor.name, shape: tensor.shape, bits: spec?.bits ?? "none" };
  if (spec !== null) {
    entry.group_size = spec.groupSize;
    entry.method = layer.candidates.length > 1 ? "auto" : spec.method;
    for (const [key, value] of Object.entries(storageOf(spec))) {
      const isFitted =
        key === "super_group_size" && value === wholeGroups(common.super_group_size as number, spec.groupSize);
      if (value !== common[key] && !isFitted) entry[key] = value;
    }
  }
  entry.bytes = estimateLayerBytes(layer);
  const error = errors.get(tensor.name) ?? null;
  if (error !== null) entry.error = Number(error.toPrecision(4));
  entry.reason = reason;
  return Object.entries(entry)
    .map(([key, value]) => `${key}: ${WORD_KEYS.has(key) ? value : JSON.stringify(value)}`)
    .join(", ");
}

function storageOf(spec: QuantSpec): Record<string, unknown> {
  return {
    symmetric: spec.symmetric,
    scale_bits: spec.scaleBits ?? "none",
    zero_point_bits: spec.zeroPointBits ?? "none",
    ...(spec.superGroupSize === null ? {} : { super_group_size: spec.superGroupSize }),
    weighting: spec.weighting,
    preserve_gain: spec.preserveGain,
  };
}

/** As YAML reads it back whatever it holds: JSON's texts are YAML's double-quoted ones. */
function quote(text: string): string {
  return JSON.stringify(text);
}

function flatten(text: string): string {
  return text.replace(/\s+/g, " ");
}
