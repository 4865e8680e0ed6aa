/** Where the graph of a model lies. */
import { stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { ArrowQuantError } from "../errors.js";
import { COMPONENT_NAMES, DENOISERS, PIPELINE_INDEX } from "../formats/diffusers.js";
import { statOrThrow } from "../io/read.js";

const GRAPH_NAME = "model.onnx";
/** optimum and others put the graph into a folder of its own. */
const GRAPH_FOLDER = "onnx";

/**
 * The graph of the model at `input`: `given` where there is one (a file, or a folder with `model.onnx`), else
 * `input` itself if it is a graph, else the first of these that is there: `model.onnx` and `onnx/model.onnx`
 * beside or in it, those of a pipeline's denoisers, and `onnx/model.onnx` of the pipeline a component lies in.
 * null where there is none. Paths are absolute.
 * Throws `E_NOT_FOUND` where `given` or `input` is not there, `E_GRAPH` where several denoisers have a graph.
 */
export async function locateGraph(input: string, given: string | null): Promise<string | null> {
  if (given !== null) return locateGiven(resolve(given));
  const path = resolve(input);
  const isFolder = (await statOrThrow(path)).isDirectory();
  if (!isFolder && path.endsWith(".onnx")) return path;
  const folder = isFolder ? path : dirname(path);
  const [beside] = await existing([join(folder, GRAPH_NAME), join(folder, GRAPH_FOLDER, GRAPH_NAME)]);
  if (beside !== undefined) return beside;
  if (await isFile(join(folder, PIPELINE_INDEX))) return locateOfDenoiser(folder);
  if (!COMPONENT_NAMES.includes(basename(folder))) return null;
  const [ofPipeline] = await existing([join(dirname(folder), GRAPH_FOLDER, GRAPH_NAME)]);
  return ofPipeline ?? null;
}

/** `locateGraph` where there must be one. Throws `E_GRAPH` where there is none. */
export async function requireGraph(input: string, given: string | null): Promise<string> {
  const path = await locateGraph(input, given);
  if (path !== null) return path;
  throw new ArrowQuantError("E_GRAPH", `there is no ONNX graph beside "${input}" to run the model by`, {
    hint: "export one (optimum-cli export onnx, or torch.onnx.export) and name it with --graph model.onnx",
    details: { input },
  });
}

async function locateGiven(path: string): Promise<string> {
  if (!(await statOrThrow(path)).isDirectory()) return path;
  const [found] = await existing([join(path, GRAPH_NAME), join(path, GRAPH_FOLDER, GRAPH_NAME)]);
  if (found !== undefined) return found;
  throw new ArrowQuantError("E_NOT_FOUND", `"${path}" holds no ${GRAPH_NAME}`, {
    hint: "give the .onnx file itself to --graph",
    details: { path },
  });
}

async function locateOfDenoiser(folder: string): Promise<string | null> {
  const found = await existing(DENOISERS.map((name) => join(folder, name, GRAPH_NAME)));
  if (found.length <= 1) return found[0] ?? null;
  throw new ArrowQuantError("E_GRAPH", `"${folder}" has several graphs: ${found.join(", ")}`, {
    hint: "choose one with --graph",
    details: { folder, graphs: found },
  });
}

async function existing(paths: readonly string[]): Promise<string[]> {
  const found: string[] = [];
  for (const path of paths) if (await isFile(path)) found.push(path);
  return found;
}

async function isFile(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null))?.isFile() ?? false;
}
