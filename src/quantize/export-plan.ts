/** What an export writes, decided in full before anything is written. */
import { join } from "node:path";
import { ArrowQuantError } from "../errors.js";
import { describePacking, QUANTIZATION_CONFIG_KEY } from "../formats/compressed-tensors.js";
import { editConfigText } from "../formats/config-text.js";
import { parseJsonObject, quoteName } from "../formats/json.js";
import type { NativeFile } from "../formats/parquet/reader.js";
import { DEFAULT_SHARD_BYTES, indexText, type Shard, splitIntoShards } from "../formats/safetensors/shards.js";
import type { OutputTensor } from "../formats/safetensors/writer.js";
import type { Component } from "../tensor/info.js";
import { type ComponentForms, planForms, tensorsOf } from "./export-forms.js";
import type { ExportDtype, ExportJob } from "./export-job.js";
import { type CopiedFile, openOriginal, type ReplacedComponent } from "./export-source.js";

const NATIVE_CONFIG_KEY = "arrowquant.component_config";

const CONFIG_NAME = "config.json";

/** How transformers names types in config.json, under the first key since version 5, before that under the second. */
const DTYPE_KEYS = ["dtype", "torch_dtype"] as const;
const TORCH_DTYPES: Readonly<Record<ExportDtype, string>> = { F32: "float32", F16: "float16", BF16: "bfloat16" };

/** Under this key older versions of compressed-tensors kept the settings. */
const OLD_CONFIG_KEY = "compression_config";

export interface PlannedComponent extends ComponentForms {
  /** Within the output folder; empty where the component is all there is. */
  readonly folder: string;
  /** File names within `folder`; of a file output the only one is empty. */
  readonly shards: readonly Shard[];
}

export interface ExportPlan {
  readonly kind: "file" | "folder";
  readonly components: readonly PlannedComponent[];
  /** Small files written anew, by name within the output folder. */
  readonly texts: ReadonlyMap<string, string>;
  readonly copied: readonly CopiedFile[];
  readonly leftOut: readonly string[];
  /** Files and folders that are read. */
  readonly inputs: readonly string[];
  readonly warnings: readonly string[];
}

/** @throws E_MISMATCH where the original has other tensors; what `openOriginal` and `planForms` throw; E_USAGE */
export async function planExport(job: ExportJob, natives: readonly NativeFile[]): Promise<ExportPlan> {
  const components: ComponentForms[] = [];
  for (const native of natives)
    components.push(await planForms(native, { dtype: job.dtype, packed: job.packed ?? false }));
  const inputs = natives.map(({ path }) => path);
  const none = { texts: new Map<string, string>(), copied: [], leftOut: [], inputs, warnings: [] };
  if (job.like !== undefined) return planLike(job, job.like, components, inputs);
  const [first, second] = components as [ComponentForms, ...ComponentForms[]];
  if (second !== undefined) {
    throw new ArrowQuantError("E_USAGE", `"${job.input}" holds ${components.length} components, which need --like`, {
      hint: "name the pipeline folder that they were quantized from, or export one of the files",
      details: { input: job.input, components: natives.map(({ component }) => component) },
    });
  }
  if (job.output.endsWith(".safetensors")) {
    const tensors = [...first.forms.values()].flatMap(tensorsOf);
    return { kind: "file", components: [{ ...first, folder: "", shards: [{ fileName: "", tensors }] }], ...none };
  }
  const sourceConfig = first.native.metadata.get(NATIVE_CONFIG_KEY) ?? null;
  const base = weightBase(sourceConfig);
  const tensors = [...first.forms.values()].flatMap(tensorsOf);
  const shards = splitIntoShards(tensors, base, job.maxShardBytes ?? DEFAULT_SHARD_BYTES);
  const texts = new Map<string, string>();
  if (shards.length > 1) texts.set(`${base}.safetensors.index.json`, indexText(shards));
  const warnings: string[] = [];
  const configText = exportedConfig(sourceConfig, first, job, warnings);
  if (configText === null) warnings.push(`"${first.native.path}" holds no config.json: the folder has none`);
  else texts.set(CONFIG_NAME, configText);
  return { ...none, kind: "folder", components: [{ ...first, folder: "", shards }], texts, warnings };
}

/** transformers' classes are told by what diffusers' configurations never have. */
function weightBase(configText: string | null): string {
  if (configText === null) return "diffusion_pytorch_model";
  const config = parseConfig(configText);
  const isTransformers = !config.has("_class_name") && (config.has("architectures") || config.has("model_type"));
  return isTransformers ? "model" : "diffusion_pytorch_model";
}

async function planLike(
  job: ExportJob,
  like: string,
  components: readonly ComponentForms[],
  inputs: readonly string[],
): Promise<ExportPlan> {
  const names = components.map(({ native }) => native.component);
  const original = await openOriginal(like, names, job.variant);
  const texts = new Map<string, string>();
  const warnings = [...original.warnings];
  const planned = components.map((forms, index) => {
    const { component, folder, indexName } = original.replaced[index] as ReplacedComponent;
    const shards = shardLike(forms, component, like);
    if (indexName !== null) texts.set(join(folder, indexName), indexText(shards));
    const configText = exportedConfig(component.configText, forms, job, warnings);
    if (configText !== null) texts.set(join(folder, CONFIG_NAME), configText);
    return { ...forms, folder, shards };
  });
  const { copied, leftOut } = original;
  return {
    kind: "folder",
    components: planned,
    texts,
    copied,
    leftOut,
    inputs: [
      ...[...inputs, original.path, ...copied.map(({ from }) => from)],
      ...original.replaced.flatMap(({ component }) => component.files.map(({ path }) => path)),
    ],
    warnings,
  };
}

/** Each tensor into the file that holds it in the original. @throws E_MISMATCH */
function shardLike({ native, forms, shapes }: ComponentForms, component: Component, like: string): Shard[] {
  const missing: string[] = [];
  const misshapen: string[] = [];
  const shards = component.files.map(({ name }) => ({ fileName: name, tensors: [] as OutputTensor[] }));
  for (const { name, shape, location } of component.tensors) {
    const form = forms.get(name);
    if (form === undefined) missing.push(name);
    else if (shapes.get(name)?.join() !== shape.join()) misshapen.push(name);
    else shards[location.file]?.tensors.push(...tensorsOf(form));
  }
  const names = new Set(component.tensors.map(({ name }) => name));
  const extra = [...forms.keys()].filter((name) => !names.has(name));
  const found = Object.entries({ missing, extra, "of another shape": misshapen }).filter(([, list]) => list.length > 0);
  // A shard may have held nothing but scales of float8 weights, which are applied by now.
  if (found.length === 0) return shards.length === 1 ? shards : shards.filter(({ tensors }) => tensors.length > 0);
  const parts = found.map(([what, list]) => `${list.length} ${what} (${quoteName(list[0] as string)} …)`);
  throw new ArrowQuantError(
    "E_MISMATCH",
    `"${native.path}" and "${like}" differ in their tensors: ${parts.join("; ")}`,
    {
      hint: "is --like the model that the file was quantized from?",
      details: { missing, extra, misshapen },
    },
  );
}

function parseConfig(configText: string) {
  return parseJsonObject(Buffer.from(configText, "utf8"), CONFIG_NAME, { allowNonFinite: true });
}

/**
 * The config.json of a component: the original's, but for what it says of its weights that is no longer so.
 * @returns null where there is none and nothing to say
 */
function exportedConfig(
  configText: string | null,
  { native, forms }: ComponentForms,
  job: ExportJob,
  warnings: string[],
): string | null {
  const before = configText === null ? null : parseConfig(configText);
  const changes: Record<string, unknown> = {};
  for (const key of DTYPE_KEYS) {
    const said = before?.get(key);
    const dtype = TORCH_DTYPES[job.dtype];
    // Loaders would convert the weights to the type named here.
    if (typeof said === "string" && said !== dtype) changes[key] = dtype;
  }
  for (const key of [QUANTIZATION_CONFIG_KEY, OLD_CONFIG_KEY]) {
    if (!before?.has(key)) continue;
    changes[key] = undefined;
    warnings.push(`${native.component}: ${CONFIG_NAME} has lost its ${key}, which told of the original's weights`);
  }
  if (job.packed) changes[QUANTIZATION_CONFIG_KEY] = describeForms(forms);
  if (configText === null && Object.keys(changes).length === 0) return null;
  return editConfigText(configText, changes);
}

function describeForms(forms: ComponentForms["forms"]): object {
  const layers = [...forms.values()].flatMap((form) => (form.kind === "packed" ? [form.layer] : []));
  const ignored = [...forms.values()].flatMap((form) => {
    if (form.kind === "packed" || form.tensor.shape.length !== 2) return [];
    const module = /^(.+)\.weight$/.exec(form.tensor.name)?.[1];
    return module === undefined ? [] : [module];
  });
  return describePacking(layers, ignored);
}
