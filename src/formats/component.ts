/** One component on disk: a folder with weights and a config.json, or a lone file. */
import { readdir } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { ArrowQuantError } from "../errors.js";
import { readError, readSmallFile } from "../io/read.js";
import type { Component } from "../tensor/info.js";
import { openGguf } from "./gguf/reader.js";
import { parseJsonObject } from "./json.js";
import { openShards } from "./safetensors/index.js";
import { openSafetensors, type WeightSet } from "./safetensors/reader.js";
import { attachSourceScales } from "./scale.js";
import { chooseWeightFile, isStandardName, shardNumber } from "./weight-files.js";

/** Largest config.json or model_index.json: the largest public ones are a few hundred KiB. */
export const MAX_CONFIG_BYTES = 4 * 1024 * 1024;

export interface OpenedComponent {
  readonly component: Component;
  readonly warnings: readonly string[];
}

/** Names of a folder's entries. */
export async function listFolder(path: string): Promise<string[]> {
  try {
    return await readdir(path);
  } catch (error) {
    throw readError(error, path, "open");
  }
}

/**
 * Opens a component's folder: diffusers' or transformers' (config.json and weights), or just weights.
 * `fallbackClassName` stands in where config.json names no class.
 */
export async function openComponentFolder(
  folder: string,
  name: string,
  variant: string | null,
  fallbackClassName: string | null = null,
): Promise<OpenedComponent> {
  const names = await listFolder(folder);
  const { chosen, warnings } = chooseWeightFile(folder, names, variant);
  const path = join(folder, chosen.fileName);
  const weights = chosen.kind === "index" ? await openShards(path) : await openSafetensors(path, chosen.fileName);
  const configText = names.includes("config.json") ? await readConfigText(join(folder, "config.json")) : null;
  return openWeights(name, weights, configText, warnings, fallbackClassName);
}

/**
 * Opens a lone file as component `model`. A config.json beside it belongs to it where the file has the name
 * that diffusers or transformers gives (`diffusion_pytorch_model*`, `model*`); beside any other file, say in
 * a folder of checkpoints, it says nothing about it.
 */
export async function openComponentFile(path: string): Promise<OpenedComponent> {
  const fileName = basename(path);
  const weights = await openSafetensors(path, fileName);
  const part = shardNumber(fileName);
  const warnings = part === null ? [] : [`${fileName} is shard ${part}: the other shards' tensors will be missing`];
  return openWeights("model", weights, await configBeside(path, isStandardName(fileName)), warnings, null);
}

/** Opens the sharded set of an index as component `model`, with the config.json beside it. */
export async function openIndexFile(path: string): Promise<OpenedComponent> {
  return openWeights("model", await openShards(path), await configBeside(path, true), [], null);
}

/** Opens a GGUF file, or the split it belongs to, as component `model`; its architecture stands in for a class name. */
export async function openGgufComponent(path: string): Promise<OpenedComponent> {
  const weights = await openGguf(path);
  return openWeights("model", weights, null, [], weights.architecture);
}

async function configBeside(path: string, isWanted: boolean): Promise<string | null> {
  const config = join(dirname(path), "config.json");
  return isWanted && (await listFolder(dirname(path))).includes("config.json") ? readConfigText(config) : null;
}

/** A component of weights whose headers have been read, with the scales of float8 ones attached. */
export async function openWeights(
  name: string,
  weights: WeightSet,
  configText: string | null,
  warnings: readonly string[],
  fallbackClassName: string | null,
): Promise<OpenedComponent> {
  const scaled = await attachSourceScales(weights);
  const className = (configText === null ? null : readClassName(configText)) ?? fallbackClassName;
  return {
    component: { name, files: weights.files, tensors: scaled.tensors, configText, className },
    warnings: [...warnings, ...weights.warnings, ...scaled.warnings],
  };
}

/** Reads a config.json and makes sure that it is JSON, as Python writes it, and an object. */
export async function readConfigText(path: string): Promise<string> {
  const bytes = await readSmallFile(path, MAX_CONFIG_BYTES);
  parseJsonObject(bytes, `"${path}"`, { allowNonFinite: true });
  return bytes.toString("utf8");
}

/** `_class_name` (diffusers) or the first of `architectures` (transformers). */
function readClassName(configText: string): string | null {
  const config = parseJsonObject(Buffer.from(configText, "utf8"), "config.json", { allowNonFinite: true });
  const className = config.get("_class_name");
  if (typeof className === "string") return className;
  const architectures = config.get("architectures");
  const first = Array.isArray(architectures) ? (architectures[0] as unknown) : undefined;
  return typeof first === "string" ? first : null;
}

/** For models of one component: throws `E_COMPONENT` where others were asked for. */
export function checkOnlyComponent(path: string, name: string, wanted: readonly string[] | undefined): void {
  const other = wanted?.find((component) => component !== name);
  if (other === undefined) return;
  const message = `"${path}" has no component ${JSON.stringify(other)}; it is one component, "${name}"`;
  throw new ArrowQuantError("E_COMPONENT", message, {
    hint: "--components is for pipeline folders: leave it out",
    details: { path, wanted, components: [name] },
  });
}
