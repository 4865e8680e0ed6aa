/** The model that an export stands in for: which of its files are replaced, which copied. */
import { readdir, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { ArrowQuantError } from "../errors.js";
import { listFolder } from "../formats/component.js";
import { PIPELINE_INDEX, readPipelineIndex } from "../formats/diffusers.js";
import { openModel } from "../formats/open.js";
import { chooseWeightFile, describeOtherWeights, hasWeights } from "../formats/weight-files.js";
import { confinePath } from "../io/confine.js";
import type { Component } from "../tensor/info.js";

/**
 * Larger files beside the weights are weights in some format that is not known here. The largest file that loaders
 * read besides weights, the vocabulary of a large tokenizer, has about 35 MB.
 */
const MAX_SMALL_FILE_BYTES = 64 * 1024 * 1024;

export interface CopiedFile {
  /** Absolute, links followed. */
  readonly from: string;
  /** Within the output folder. */
  readonly to: string;
  readonly byteLength: number;
}

/** One component of the original that a native file takes the place of. */
export interface ReplacedComponent {
  readonly component: Component;
  /** Within the output folder; empty where the output is the component's folder itself. */
  readonly folder: string;
  /** File name of the index, where the weights are sharded. */
  readonly indexName: string | null;
}

export interface OriginalModel {
  readonly path: string;
  /** In the order of the names asked for. */
  readonly replaced: readonly ReplacedComponent[];
  readonly copied: readonly CopiedFile[];
  /** What stands in the original's folder and is neither replaced nor copied. */
  readonly leftOut: readonly string[];
  readonly warnings: readonly string[];
}

/**
 * Opens the original: a pipeline folder, or the folder of one component.
 * @param names components of the native files
 * @throws E_USAGE for a file, E_COMPONENT for a component that is not there, E_PATH, errors of opening a model
 */
export async function openOriginal(
  path: string,
  names: readonly string[],
  variant: string | undefined,
): Promise<OriginalModel> {
  const folder = resolve(path);
  const isPipeline = (await stat(join(folder, PIPELINE_INDEX)).catch(() => null)) !== null;
  const options = variant === undefined ? {} : { variant };
  // A file or a component folder goes by the name "model", whatever the pipeline calls it.
  const isNamed = isPipeline && (names.length > 1 || names[0] !== "model");
  const model = await openModel(folder, isNamed ? { ...options, components: names } : options);
  if (!["diffusers-pipeline", "component-folder"].includes(model.format)) {
    throw new ArrowQuantError("E_USAGE", `--like ${path} is no folder of a pipeline or of a component`, {
      hint: "name the folder that the weights lie in",
      details: { path, format: model.format },
    });
  }
  const { components, warnings } = model;
  if (components.length !== names.length) {
    const found = components.map(({ name }) => name);
    throw new ArrowQuantError("E_COMPONENT", `"${folder}" has ${describeComponents(found)}, not ${names.join(", ")}`, {
      hint: "name the folder of the model that the file was quantized from",
      details: { folder, components: found, wanted: names },
    });
  }
  const ordered = components.length === 1 ? components : names.map((name) => findComponent(components, name));
  const replaced: ReplacedComponent[] = [];
  for (const component of ordered) {
    const inside = isPipeline ? component.name : "";
    replaced.push({ component, folder: inside, indexName: await findIndexName(join(folder, inside), variant) });
  }
  const { copied, leftOut } = isPipeline ? await listPipeline(folder, components) : await listComponent(folder, "");
  const written = new Set(
    replaced.flatMap(({ component, folder: inside, indexName }) =>
      [...component.files.map(({ name }) => name), ...(indexName === null ? [] : [indexName])].map((name) =>
        join(inside, name),
      ),
    ),
  );
  return { path: folder, replaced, copied, leftOut: leftOut.filter((name) => !written.has(name)), warnings };
}

function describeComponents(names: readonly string[]): string {
  return names.length === 1 ? `the component ${names[0]}` : `the components ${names.join(", ")}`;
}

function findComponent(components: readonly Component[], name: string): Component {
  return components.find((component) => component.name === name) as Component;
}

async function findIndexName(folder: string, variant: string | undefined): Promise<string | null> {
  const { chosen } = chooseWeightFile(folder, await listFolder(folder), variant ?? null);
  return chosen.kind === "index" ? chosen.fileName : null;
}

type FolderContents = Pick<OriginalModel, "copied" | "leftOut">;

/** What a loader reads of a pipeline: components by their folders, and files beside model_index.json. */
async function listPipeline(root: string, replaced: readonly Component[]): Promise<FolderContents> {
  const index = await readPipelineIndex(root);
  const top = await listFiles(root, "", { subfolders: [...index.components.keys()], weights: false });
  const parts: FolderContents[] = [top];
  for (const name of index.components.keys()) {
    if (!(await isFolder(join(root, name)))) continue;
    const isReplaced = replaced.some((component) => component.name === name);
    parts.push(isReplaced ? await listComponent(root, name) : await listWhole(root, name));
  }
  return { copied: parts.flatMap(({ copied }) => copied), leftOut: parts.flatMap(({ leftOut }) => leftOut) };
}

/** Files of a component beside its weights; config.json is written anew. */
async function listComponent(root: string, folder: string): Promise<FolderContents> {
  const { copied, leftOut } = await listFiles(root, folder, { subfolders: [], weights: false });
  const config = join(folder, "config.json");
  return { copied: copied.filter(({ to }) => to !== config), leftOut };
}

/** A folder as it is, with all below it. */
async function listWhole(root: string, folder: string): Promise<FolderContents> {
  const subfolders = (await readdir(join(root, folder), { withFileTypes: true }))
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name);
  const parts = [await listFiles(root, folder, { subfolders, weights: true })];
  for (const name of subfolders) parts.push(await listWhole(root, join(folder, name)));
  return { copied: parts.flatMap(({ copied }) => copied), leftOut: parts.flatMap(({ leftOut }) => leftOut) };
}

/**
 * The files of one folder.
 * @param options.subfolders those that somebody else lists; all others are left out
 * @param options.weights whether weights are copied too
 */
async function listFiles(
  root: string,
  folder: string,
  options: { readonly subfolders: readonly string[]; readonly weights: boolean },
): Promise<FolderContents> {
  const copied: CopiedFile[] = [];
  const leftOut: string[] = [];
  for (const name of (await listFolder(join(root, folder))).sort()) {
    const inside = join(folder, name);
    const found = await stat(join(root, inside)).catch(() => null);
    if (found?.isDirectory()) {
      if (!options.subfolders.includes(name)) leftOut.push(`${inside}/`);
    } else if (found === null || (!options.weights && !isSmallFile(name, found.size))) {
      leftOut.push(inside);
    } else {
      copied.push({ from: await confinePath(root, inside), to: inside, byteLength: found.size });
    }
  }
  return { copied, leftOut };
}

/** Whether a file is something else than weights, the index of weights, or what a version control keeps. */
function isSmallFile(name: string, byteLength: number): boolean {
  const isWeights =
    hasWeights([name]) || describeOtherWeights([name]).length > 0 || /\.index(\.[^.]+)?\.json$/.test(name);
  return !isWeights && !name.startsWith(".") && byteLength <= MAX_SMALL_FILE_BYTES;
}

async function isFolder(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null))?.isDirectory() ?? false;
}
