/**
 * A diffusers pipeline folder: `model_index.json` names each component with its library and class, each
 * component lies in the folder of its name.
 * Source: https://huggingface.co/docs/diffusers/using-diffusers/other-formats
 */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { ArrowQuantError } from "../errors.js";
import { readSmallFile } from "../io/read.js";
import type { Component, Model } from "../tensor/info.js";
import { listFolder, MAX_CONFIG_BYTES, openComponentFolder } from "./component.js";
import { parseJsonObject } from "./json.js";
import { describeOtherWeights, hasWeights } from "./weight-files.js";

export const PIPELINE_INDEX = "model_index.json";

/** What is quantized unless other components are asked for: the networks that run once per step. */
export const DENOISERS: readonly string[] = ["transformer", "transformer_2", "unet"];

/** Folders of pipelines; a component folder of such a name, opened alone, keeps it as the component's. */
export const COMPONENT_NAMES: readonly string[] = [
  ...DENOISERS,
  "vae",
  "vqvae",
  "vqgan",
  "text_encoder",
  "text_encoder_2",
  "text_encoder_3",
  "text_encoder_4",
  "image_encoder",
  "audio_encoder",
  "prior",
  "decoder",
  "controlnet",
  "vocoder",
  "language_model",
  "connectors",
];

export interface PipelineIndex {
  readonly className: string | null;
  /** Component name to class name, in the order of the file. */
  readonly components: ReadonlyMap<string, string>;
}

/**
 * Opens the chosen components of a pipeline, by default its denoisers.
 * Throws `E_COMPONENT` for one that is not there or holds no weights, and what its reader throws.
 */
export async function openPipeline(
  folder: string,
  options: { readonly variant?: string; readonly components?: readonly string[] },
): Promise<Omit<Model, "format">> {
  const index = await readPipelineIndex(folder);
  const names = await chooseComponents(folder, index, options.components);
  const components: Component[] = [];
  const warnings: string[] = [];
  for (const name of names) {
    const className = index.components.get(name) ?? null;
    const opened = await openComponentFolder(join(folder, name), name, options.variant ?? null, className);
    components.push(opened.component);
    warnings.push(...opened.warnings.map((warning) => `${name}: ${warning}`));
  }
  return { path: folder, pipelineClassName: index.className, components, warnings };
}

/** `[library, class]` entries are components, `[null, null]` is switched off, anything else a setting. */
export async function readPipelineIndex(folder: string): Promise<PipelineIndex> {
  const path = join(folder, PIPELINE_INDEX);
  const index = parseJsonObject(await readSmallFile(path, MAX_CONFIG_BYTES), `"${path}"`, {
    allowNonFinite: true,
  });
  const components = new Map<string, string>();
  for (const [name, entry] of index) {
    if (!Array.isArray(entry)) continue;
    const [library, className] = entry as readonly unknown[];
    if (typeof library !== "string" || typeof className !== "string") continue;
    if (!/^[A-Za-z0-9_-][A-Za-z0-9_.-]*$/.test(name)) {
      const message = `"${path}": component ${JSON.stringify(name.slice(0, 200))} is no plain folder name`;
      throw new ArrowQuantError("E_PATH", message, { details: { path, component: name } });
    }
    components.set(name, className);
  }
  const className = index.get("_class_name");
  return { className: typeof className === "string" ? className : null, components };
}

async function chooseComponents(
  folder: string,
  index: PipelineIndex,
  wanted: readonly string[] | undefined,
): Promise<string[]> {
  const listed = [...index.components.keys()];
  if (wanted === undefined) {
    const denoisers = DENOISERS.filter((name) => index.components.has(name));
    if (denoisers.length > 0) return denoisers;
    throw await noComponent(folder, listed, `none of the denoisers ${DENOISERS.join(", ")}`);
  }
  for (const name of wanted) {
    if (!index.components.has(name)) throw await noComponent(folder, listed, `no component ${JSON.stringify(name)}`);
    if (!(await holdsSomething(join(folder, name)))) {
      throw await noComponent(folder, listed, `no weights in component ${JSON.stringify(name)}`);
    }
  }
  return listed.filter((name) => wanted.includes(name));
}

async function noComponent(folder: string, listed: readonly string[], problem: string): Promise<ArrowQuantError> {
  const available: string[] = [];
  for (const name of listed) if (await holdsWeights(join(folder, name))) available.push(name);
  const shown = available.length === 0 ? "none with weights" : available.join(", ");
  return new ArrowQuantError("E_COMPONENT", `"${folder}" has ${problem}; it has: ${shown}`, {
    ...(available.length === 0 ? {} : { hint: `choose with --components ${available.join(",")}` }),
    details: { folder, components: available },
  });
}

/** Weights of any kind: those that are not read get their own message when they are opened. */
async function holdsSomething(folder: string): Promise<boolean> {
  if (!(await isFolder(folder))) return false;
  const names = await listFolder(folder);
  return hasWeights(names) || describeOtherWeights(names).length > 0;
}

async function holdsWeights(folder: string): Promise<boolean> {
  return (await isFolder(folder)) && hasWeights(await listFolder(folder));
}

async function isFolder(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null))?.isDirectory() ?? false;
}
