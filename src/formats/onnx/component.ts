/** An ONNX model as a component: its weights, and the config.json that tells of it. */
import { stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { type OpenedComponent, openWeights, readConfigText } from "../component.js";
import { DENOISERS, PIPELINE_INDEX, readPipelineIndex } from "../diffusers.js";
import { openOnnxWeights } from "./weights.js";

/** Folder in which exporters put the graphs of a model. */
const GRAPH_FOLDER = "onnx";

/** `model.onnx`, `model_fp16.onnx` … as optimum and transformers.js name a model's graphs. */
const STANDARD_NAME = /^model(?:_\w+)?\.onnx$/;

/** What lies around a graph that tells of it. */
interface GraphConfig {
  readonly configText: string | null;
  readonly className: string | null;
}

/** Opens a graph as component `model`. Throws what `openOnnxWeights` does, and what reading its config.json does. */
export async function openOnnxComponent(path: string): Promise<OpenedComponent> {
  const weights = await openOnnxWeights(path);
  const { configText, className } = await findConfig(path);
  return openWeights("model", weights, configText, [], className);
}

/**
 * The config.json in the graph's folder, or in the one that its `onnx` folder lies in, or that of the one denoiser of
 * the pipeline there. Of a graph with a name of its own nothing tells: it may lie among others.
 */
async function findConfig(path: string): Promise<GraphConfig> {
  if (!STANDARD_NAME.test(basename(path))) return { configText: null, className: null };
  const folder = dirname(path);
  const outer = basename(folder) === GRAPH_FOLDER ? dirname(folder) : null;
  for (const candidate of [folder, ...(outer === null ? [] : [outer])]) {
    const config = join(candidate, "config.json");
    if (await isFile(config)) return { configText: await readConfigText(config), className: null };
  }
  return outer !== null && (await isFile(join(outer, PIPELINE_INDEX)))
    ? configOfDenoiser(outer)
    : { configText: null, className: null };
}

async function configOfDenoiser(pipeline: string): Promise<GraphConfig> {
  const { components } = await readPipelineIndex(pipeline);
  const [only, second] = DENOISERS.filter((name) => components.has(name));
  if (only === undefined || second !== undefined) return { configText: null, className: null };
  const config = join(pipeline, only, "config.json");
  const configText = (await isFile(config)) ? await readConfigText(config) : null;
  return { configText, className: components.get(only) ?? null };
}

async function isFile(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null))?.isFile() ?? false;
}
