/** What becomes of each tensor in a GGUF file, and which rule said so. From headers alone. */
import { isExplicit, type ResolvedConfig } from "../../config/config.js";
import { ArrowQuantError } from "../../errors.js";
import { detectGgufArchitecture, type GgufArchitecture } from "../../formats/gguf/architecture.js";
import { ggufTensorBytes } from "../../formats/gguf/writer.js";
import { quoteName } from "../../formats/json.js";
import type { Calibration } from "../../plan/calibration.js";
import { detectArchitecture, stripNames } from "../../plan/keep.js";
import { checkLayerRules, compileLayerRules, planLayers } from "../../plan/layers.js";
import { compilePattern, type NamePattern } from "../../plan/pattern.js";
import type { LayerPlan } from "../../plan/plan.js";
import { checkRequantization } from "../../plan/requantize.js";
import { type Dtype, isBlockQuantized } from "../../tensor/dtype.js";
import type { Component, TensorInfo } from "../../tensor/info.js";
import { countElements, type QuantSpec } from "../../tensor/layout.js";
import type { GgufOptions, GgufPlan, GgufTensorPlan, TensorTypeRule } from "./job.js";
import { joinedRows, wholeRows } from "./row-view.js";
import { chooseStorage, type TensorCase } from "./tensor-storage.js";

/** Longest names in bytes: of GGUF's specification, and of ComfyUI-GGUF's build of ggml (GGML_MAX_NAME 128). */
const MAX_NAME_BYTES = 64;
const MAX_COMFY_NAME_BYTES = 127;

/** ggml's reader takes one byte less than the specification allows: it counts the NUL that ends a name. */
const MAX_GGML_NAME_BYTES = 63;

/** Names listed in an error's message. */
const MAX_NAMED = 3;

/** Settings of the native format's storage, and of what GGUF has no place for. */
const FOREIGN_SETTINGS = [
  "bit_width",
  "group_size",
  "method",
  "symmetric",
  "scale_bits",
  "zero_point_bits",
  "super_group_size",
  "weighting",
  "preserve_gain",
  "layer_bit_widths",
  "layer_min_bits",
  "layer_max_bits",
  "sensitive_min_bits",
  "target_bpw",
  "target_model_size_mb",
  "max_error",
  "mean_group_size",
  "enable_mixed_precision",
  "enable_time_aware",
  "enable_spatial",
  "activation_bits",
] as const;

/** Any: where layers are planned, only whether there is one counts. */
const SOME_SPEC = { method: "rtn", bits: 8 } as QuantSpec;

export interface GgufPlanInput {
  readonly input: string;
  readonly format: string;
  readonly component: Component;
  readonly config: ResolvedConfig;
  readonly options: GgufOptions;
  /** null: nothing was measured. */
  readonly calibration: Calibration | null;
  /** Of a native file's tensors: those that it kept, by name, with their types. What it quantized is quantized. */
  readonly keptDtypes?: ReadonlyMap<string, Dtype> | undefined;
  /** Tensors that hold what their type cannot, by name, with the reason; they become float32. */
  readonly unstorable?: ReadonlyMap<string, string> | undefined;
  readonly warnings: readonly string[];
}

/** @throws E_CONFLICT for settings of the native format, or what ComfyUI-GGUF cannot load */
export function checkGgufOptions(config: ResolvedConfig, { type, comfy, maxFileBytes }: GgufOptions): void {
  const foreign = FOREIGN_SETTINGS.filter((key) => isExplicit(config, key) && config.values[key] !== null);
  if (foreign.length > 0) {
    const message = `type ${type} contradicts ${foreign.join(", ")}: a GGUF type settles bits, groups and scales`;
    throw new ArrowQuantError("E_CONFLICT", message, {
      hint: "leave them out, or write a .parquet file; --tensor-type gives tensors types of their own",
      details: { type, settings: foreign },
    });
  }
  if (comfy && maxFileBytes !== undefined) {
    throw new ArrowQuantError("E_CONFLICT", "ComfyUI-GGUF reads one file, --split-max-size makes several", {
      hint: "give one of --comfy and --split-max-size",
      details: { maxFileBytes },
    });
  }
}

/**
 * @throws E_PATTERN for a pattern that is no regular expression or matches nothing, E_LIMIT for names that loaders
 *   do not take, E_SHAPE for dimensions, E_DTYPE for types that GGUF has not, E_DUPLICATE, E_PREQUANTIZED, E_CONFLICT
 */
export function planGgufTensors(plan: GgufPlanInput): GgufPlan {
  const { component, config, options, calibration } = plan;
  const { tensors } = component;
  const comfy = options.comfy ?? false;
  const detected = detectGgufArchitecture(tensors.map(({ name }) => name));
  const architecture = detected?.architecture ?? null;
  const prefix = detected?.isUniform ? detected.prefix : "";
  if (comfy && architecture !== null && !architecture.loadsInComfy) throw refuseDialect(architecture);
  const layers = planByConfig(plan);
  const rules = compileTypeRules(options.tensorTypes ?? []);
  const ownCalibration = calibration?.component === component.name ? calibration : null;
  const requantized: LayerPlan[] = [];
  const planned = layers.layers.map((layer): GgufTensorPlan => {
    const { tensor } = layer;
    const name = tensor.name.slice(prefix.length);
    const tensorCase: TensorCase = {
      tensor,
      name,
      type: options.type,
      asked: firstRule(rules, tensor.name),
      comfy,
      reshapes: comfy && (architecture?.reshapes ?? false),
      plainNames: architecture?.plainNames ?? [],
      keepReason: keepReasonOf(layer, plan.keptDtypes),
      keptDtype: plan.keptDtypes?.get(tensor.name) ?? null,
    };
    const unstorable = plan.unstorable?.get(tensor.name);
    const { dtype, shape, reason, vetoed } =
      unstorable === undefined
        ? chooseStorage(tensorCase)
        : { dtype: "F32" as const, shape: tensor.shape, reason: unstorable, vetoed: true };
    if (isBlockQuantized(dtype) && dtype !== tensor.dtype) requantized.push({ ...layer, spec: SOME_SPEC });
    const isReshaped = shape !== tensor.shape;
    const isSearched = isBlockQuantized(dtype) && dtype !== tensor.dtype;
    const hasColumns = wholeRows(tensor.shape, dtype) !== null || joinedRows(tensor.shape, dtype) !== null;
    return {
      tensor,
      name,
      dtype,
      shape,
      originalShape: isReshaped ? tensor.shape : null,
      byteLength: ggufTensorBytes({ dtype, shape }),
      calibrated: isSearched && hasColumns && (ownCalibration?.layerNames.has(tensor.name) ?? false),
      reason,
      vetoed,
    };
  });
  checkTypeRules(rules, tensors);
  const nameWarnings = checkNames(planned, comfy);
  return {
    input: plan.input,
    format: plan.format,
    component: component.name,
    type: options.type,
    architecture: architecture?.name ?? null,
    architectureRule:
      architecture === null
        ? "no set of tensor names that loaders know"
        : `tensor names of ${architecture.name} (${architecture.dialect})`,
    prefix,
    calibration: ownCalibration?.label ?? null,
    tensors: planned,
    warnings: [
      ...plan.warnings,
      ...layers.warnings,
      ...architectureWarnings(architecture, detected),
      ...nameWarnings,
      ...emptyWarnings(planned),
      ...coverageWarnings(planned, ownCalibration),
      ...checkRequantization(component.name, requantized, config.values.allow_requantize),
    ],
    sizes: sizesOf(planned),
  };
}

function keepReasonOf({ tensor, spec, reason }: LayerPlan, keptDtypes: GgufPlanInput["keptDtypes"]): string | null {
  if (keptDtypes === undefined) return spec === null ? reason : null;
  return keptDtypes.has(tensor.name) ? "kept in the quantized file" : null;
}

/** Which tensors the configuration and the architecture's keep table would have kept, and why. */
function planByConfig({ component, config, options }: GgufPlanInput) {
  const { tensors } = component;
  const rules = compileLayerRules(config);
  const names = stripNames(tensors);
  const isPlain = ["f16", "f32"].includes(options.type);
  const layers = planLayers(tensors, names, rules, {
    architecture: detectArchitecture(component, names).architecture,
    options: null,
    sensitiveMinBits: null,
    settled: null,
    treat: () => ({ spec: SOME_SPEC, candidates: [], calibrated: false, spatial: null, activations: null, note: null }),
    // No layer is sensitive to these; in bfloat16 the embeddings among them would be what not every loader reads.
    skipSensitive: config.values.skip_sensitive_layers && !isPlain,
  });
  return { layers, warnings: checkLayerRules(rules, tensors, config) };
}

interface CompiledRule extends TensorTypeRule {
  readonly compiled: NamePattern;
  matched: number;
}

function compileTypeRules(rules: readonly TensorTypeRule[]): CompiledRule[] {
  return rules.map((rule) => ({ ...rule, compiled: compilePattern(rule.pattern, "--tensor-type"), matched: 0 }));
}

/** The first that matches; all that match are counted. */
function firstRule(rules: readonly CompiledRule[], name: string): TensorTypeRule | null {
  const matching = rules.filter(({ compiled }) => compiled.test(name));
  for (const rule of matching) rule.matched += 1;
  return matching[0] ?? null;
}

function checkTypeRules(rules: readonly CompiledRule[], tensors: readonly TensorInfo[]): void {
  const unmatched = rules.find(({ matched }) => matched === 0);
  if (unmatched === undefined) return;
  const { pattern, type } = unmatched;
  const example = tensors.find(({ shape }) => shape.length > 1)?.name ?? tensors[0]?.name;
  const message = `--tensor-type: "${pattern}" matches none of ${tensors.length} tensors`;
  throw new ArrowQuantError("E_PATTERN", message, {
    hint: example === undefined ? "the model has no tensors" : `a tensor is called ${quoteName(example)}`,
    details: { pattern, type },
  });
}

function refuseDialect({ name, dialect }: GgufArchitecture): ArrowQuantError {
  return new ArrowQuantError("E_CONFLICT", `ComfyUI-GGUF does not load ${name} under the names of ${dialect}`, {
    hint: "convert the checkpoint of the original repository, or leave --comfy out",
    details: { architecture: name, dialect },
  });
}

/** @throws E_LIMIT, E_DUPLICATE, E_HEADER */
function checkNames(tensors: readonly GgufTensorPlan[], comfy: boolean): string[] {
  const limit = comfy ? MAX_COMFY_NAME_BYTES : MAX_NAME_BYTES;
  const names = new Set<string>();
  const long: string[] = [];
  for (const { name, tensor } of tensors) {
    if (names.has(name)) throw new ArrowQuantError("E_DUPLICATE", `${quoteName(name)} would stand twice`);
    names.add(name);
    if (name === "" || name.includes("\0")) {
      throw new ArrowQuantError("E_HEADER", `${quoteName(tensor.name)} is no name that ggml can hold`, {
        details: { tensor: tensor.name },
      });
    }
    if (Buffer.byteLength(name) > limit) long.push(name);
  }
  if (long.length > 0) {
    const shown = long.slice(0, MAX_NAMED).map((name) => `${quoteName(name)} (${Buffer.byteLength(name)})`);
    const rest = long.length > shown.length ? ` and ${long.length - shown.length} more` : "";
    const who = comfy ? "ComfyUI-GGUF takes" : "GGUF allows";
    throw new ArrowQuantError(
      "E_LIMIT",
      `${who} names of ${limit} bytes, these have more: ${shown.join(", ")}${rest}`,
      {
        hint: comfy
          ? "rename the tensors"
          : "--comfy allows 127 bytes, which ComfyUI-GGUF, stable-diffusion.cpp and diffusers read, ggml itself does not",
        details: { limit, names: long },
      },
    );
  }
  const longest = [...names].filter((name) => Buffer.byteLength(name) > MAX_GGML_NAME_BYTES).length;
  return longest === 0
    ? []
    : [
        `${longest} names have more than ${MAX_GGML_NAME_BYTES} bytes: ggml takes them only where it is built for longer ones`,
      ];
}

function architectureWarnings(
  architecture: GgufArchitecture | null,
  detected: ReturnType<typeof detectGgufArchitecture>,
): string[] {
  if (architecture === null || detected === null) {
    return ["no architecture that loaders know: general.architecture is left out, names are kept"];
  }
  const { prefix, isUniform } = detected;
  return [
    ...(architecture.loadsInComfy
      ? []
      : [`ComfyUI-GGUF does not load ${architecture.name} under the names of ${architecture.dialect}`]),
    ...(prefix === "" || isUniform
      ? []
      : [`names are kept as not all begin with "${prefix}": ComfyUI-GGUF reads of such files only those that do`]),
  ];
}

function emptyWarnings(tensors: readonly GgufTensorPlan[]): string[] {
  const empty = tensors.filter(({ shape }) => countElements(shape) === 0).length;
  return empty === 0 ? [] : [`${empty} tensors have no elements, which ggml's reader may refuse`];
}

function coverageWarnings(tensors: readonly GgufTensorPlan[], calibration: Calibration | null): string[] {
  if (calibration === null) return [];
  const searched = tensors.filter(({ dtype, tensor }) => isBlockQuantized(dtype) && dtype !== tensor.dtype);
  const covered = searched.filter(({ calibrated }) => calibrated).length;
  return covered === searched.length
    ? []
    : [`${calibration.label} covers ${covered} of ${searched.length} quantized tensors, the others are weights only`];
}

function sizesOf(tensors: readonly GgufTensorPlan[]): GgufPlan["sizes"] {
  const sum = (of: readonly GgufTensorPlan[], value: (tensor: GgufTensorPlan) => number) =>
    of.reduce((total, tensor) => total + value(tensor), 0);
  const blocks = tensors.filter(({ dtype }) => isBlockQuantized(dtype));
  const weights = sum(blocks, ({ shape }) => countElements(shape));
  const bytesIn = sum(tensors, ({ tensor }) => tensor.location.byteLength);
  const bytesOut = sum(tensors, ({ byteLength }) => byteLength);
  return {
    bytesIn,
    bytesOut,
    compressionRatio: bytesIn / bytesOut,
    bitsPerWeight: weights === 0 ? null : (8 * sum(blocks, ({ byteLength }) => byteLength)) / weights,
  };
}
