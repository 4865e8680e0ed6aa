/**
 * Which tensor of a model is which weight of a graph. Exporters rename and transpose weights, so names and node
 * paths only propose; what decides is whether the values are the same.
 */
import { ArrowQuantError } from "../errors.js";
import { quoteName } from "../formats/json.js";
import type { OnnxFile, OnnxInitializer } from "../formats/onnx/read.js";
import { parameterOfPath } from "../formats/onnx/weight-uses.js";
import { readSourceScales } from "../formats/scale.js";
import { type OpenFile, withFile } from "../io/read.js";
import { isFloatDtype } from "../tensor/element.js";
import type { Component, TensorInfo } from "../tensor/info.js";
import { countElements, viewAs2d } from "../tensor/layout.js";
import { findGraphWeights, type GraphLayer } from "./layers.js";
import { compareProbes, type ProbeDifference, probeWeight, type WeightProbe } from "./probe.js";

/** A tensor with the layers whose weight it is: several where nodes share it or the exporter has copied it. */
export interface MatchedLayer {
  readonly tensorName: string;
  /** What proposed the first of them: the initializer's name, its node's path, or nothing but the values. */
  readonly by: "name" | "path" | "content";
  readonly layers: readonly GraphLayer[];
}

export interface GraphMatch {
  /** By tensor name, in the component's order. */
  readonly matched: ReadonlyMap<string, MatchedLayer>;
  /** Tensors of two dimensions and more that no layer of the graph multiplies, each with the reason. */
  readonly unmatched: readonly { readonly tensorName: string; readonly reason: string }[];
}

/** A tensor of the model that may be a weight of the graph. */
interface ModelWeight {
  readonly name: string;
  /** `name` without what wrappers put before it. */
  readonly plainName: string;
  readonly rows: number;
  readonly cols: number;
  readonly probe: () => Promise<WeightProbe>;
}

/** An initializer that is the weight of one layer or several. */
interface GraphWeight {
  readonly name: string;
  readonly layers: readonly GraphLayer[];
  readonly rows: number;
  readonly cols: number;
  readonly probe: () => Promise<WeightProbe>;
}

interface Proposal {
  readonly weight: ModelWeight;
  readonly by: "name" | "path";
}

/** A proposal that the values speak against; null: the sizes do already. */
interface Contradiction extends Proposal {
  readonly initializer: GraphWeight;
  readonly difference: ProbeDifference | null;
}

/** What pipelines, trainers and compilers put before the names of a network's parameters. */
const WRAPPERS: readonly string[] = ["model", "module", "_orig_mod", "diffusion_model", "unet", "transformer"];

type OpenFiles = ReadonlyMap<string, OpenFile>;

/**
 * Matches the weights of a component with the layers of a graph.
 * Throws `E_GRAPH` where the graph holds other weights under a tensor's name or path, where it has none of the
 * tensors, or is quantized already; and what reading throws.
 */
export async function matchGraph(file: OnnxFile, component: Component): Promise<GraphMatch> {
  const { layers, refused } = findGraphWeights(file);
  const byInitializer = groupBy(layers, ({ initializer }) => initializer);
  const paths = [
    ...component.files.map(({ path }) => path),
    ...[...byInitializer.keys()].map((name) => file.initializers.get(name)?.place?.path ?? file.path),
  ];
  return withFiles([...new Set(paths)], async (files) => {
    const candidates = component.tensors.filter(({ shape }) => shape.length >= 2);
    const weights = candidates.filter(isWeight).map((tensor) => modelWeight(component, tensor, files));
    const initializers = [...byInitializer].map(([name, uses]) =>
      graphWeight(file.initializers.get(name) as OnnxInitializer, uses, files),
    );
    const found = new Map<string, { by: MatchedLayer["by"]; layers: GraphLayer[] }>();
    const attach = (weight: ModelWeight, { layers: uses }: GraphWeight, by: MatchedLayer["by"]): void => {
      const known = found.get(weight.name);
      if (known === undefined) found.set(weight.name, { by, layers: [...uses] });
      else known.layers.push(...uses);
    };
    const { rest, contradictions } = await matchByProposal(component.name, weights, initializers, attach);
    const reasons = await matchByContent(weights, rest, attach);
    const contradiction = contradictions.find(({ weight }) => !found.has(weight.name));
    if (contradiction !== undefined) throw otherWeights(file, component, contradiction);
    if (found.size === 0) throw nothingMatches(file, component, weights.length, initializers.length);

    const matched = new Map<string, MatchedLayer>();
    const unmatched: { tensorName: string; reason: string }[] = [];
    const refusedByPlainName = new Map([...refused].map(([name, why]) => [plainName(name, component.name), why]));
    for (const tensor of candidates) {
      const match = found.get(tensor.name);
      if (match !== undefined) matched.set(tensor.name, { tensorName: tensor.name, ...match });
      else {
        const refusal = refusedByPlainName.get(plainName(tensor.name, component.name));
        const reason = reasons.get(tensor.name) ?? refusal ?? whyNoWeight(tensor) ?? "the graph has no such weight";
        unmatched.push({ tensorName: tensor.name, reason });
      }
    }
    return { matched, unmatched };
  });
}

/** Names and paths first: they tell apart weights of the same values, such as those that are still zero. */
async function matchByProposal(
  componentName: string,
  weights: readonly ModelWeight[],
  initializers: readonly GraphWeight[],
  attach: (weight: ModelWeight, initializer: GraphWeight, by: MatchedLayer["by"]) => void,
): Promise<{ rest: GraphWeight[]; contradictions: Contradiction[] }> {
  const byName = new Map(weights.map((weight) => [weight.name, weight]));
  const byPlainName = groupBy(weights, (weight) => weight.plainName);
  const look = (name: string): ModelWeight | undefined => {
    const alike = byPlainName.get(plainName(name, componentName));
    return byName.get(name) ?? (alike?.length === 1 ? alike[0] : undefined);
  };
  const rest: GraphWeight[] = [];
  const contradictions: Contradiction[] = [];
  for (const initializer of initializers) {
    const proposals = [
      { weight: look(initializer.name), by: "name" as const },
      ...initializer.layers.map(({ node }) => ({ weight: look(parameterOfPath(node)), by: "path" as const })),
    ].filter((proposal): proposal is Proposal => proposal.weight !== undefined);
    let isFound = false;
    for (const { weight, by } of proposals) {
      const isSized = hasSize(weight, initializer);
      const difference = isSized ? compareProbes(await weight.probe(), await initializer.probe()) : null;
      isFound = isSized && difference === null;
      if (isFound) {
        attach(weight, initializer, by);
        break;
      }
      // A node of another size may well multiply something else in that module: a path says less than a name.
      if (isSized || by === "name") contradictions.push({ weight, by, initializer, difference });
    }
    if (!isFound) rest.push(initializer);
  }
  return { rest, contradictions };
}

/** Returns, of tensors that share their values with others, that they do. */
async function matchByContent(
  weights: readonly ModelWeight[],
  initializers: readonly GraphWeight[],
  attach: (weight: ModelWeight, initializer: GraphWeight, by: MatchedLayer["by"]) => void,
): Promise<Map<string, string>> {
  const reasons = new Map<string, string>();
  for (const initializer of initializers) {
    const same: ModelWeight[] = [];
    for (const weight of weights) {
      if (!hasSize(weight, initializer)) continue;
      if (compareProbes(await weight.probe(), await initializer.probe()) === null) same.push(weight);
    }
    const [first, second] = same;
    if (first !== undefined && second === undefined) attach(first, initializer, "content");
    if (second === undefined) continue;
    const names = same.map(({ name }) => quoteName(name)).join(", ");
    for (const { name } of same) reasons.set(name, `its values do not tell it apart: ${names}`);
  }
  return reasons;
}

function hasSize(a: { rows: number; cols: number }, b: { rows: number; cols: number }): boolean {
  return a.rows === b.rows && a.cols === b.cols;
}

function isWeight(tensor: TensorInfo): boolean {
  return whyNoWeight(tensor) === null;
}

function whyNoWeight({ dtype, shape }: TensorInfo): string | null {
  if (!isFloatDtype(dtype)) return `it holds ${dtype}, no weights`;
  return countElements(shape) === 0 ? "it is empty" : null;
}

function modelWeight(component: Component, tensor: TensorInfo, files: OpenFiles): ModelWeight {
  const { name, dtype, shape, location, sourceScale, transposed = false } = tensor;
  const { rows, cols } = viewAs2d(shape);
  return {
    name,
    plainName: plainName(name, component.name),
    rows,
    cols,
    probe: once(async () => {
      if (!isFloatDtype(dtype)) throw new ArrowQuantError("E_INTERNAL", `${quoteName(name)} holds ${dtype}`);
      const scales = sourceScale === null ? null : await readSourceScales(component.files, sourceScale);
      const path = component.files[location.file]?.path ?? "";
      const bytes = { file: files.get(path) as OpenFile, byteOffset: location.byteOffset };
      return probeWeight({ dtype, rows, cols, transposed, bytes, scales });
    }),
  };
}

function graphWeight(initializer: OnnxInitializer, layers: readonly GraphLayer[], files: OpenFiles): GraphWeight {
  const { name, dtype, place, bytes } = initializer;
  const { rows, cols, transposed } = layers[0] as GraphLayer;
  return {
    name,
    layers,
    rows,
    cols,
    probe: once(async () => {
      if (!isFloatDtype(dtype)) throw new ArrowQuantError("E_INTERNAL", `${quoteName(name)} holds ${dtype}`);
      const placed = place && { file: files.get(place.path) as OpenFile, byteOffset: place.byteOffset };
      return probeWeight({ dtype, rows, cols, transposed, bytes: placed ?? bytes ?? new Uint8Array(0), scales: null });
    }),
  };
}

function groupBy<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const key = keyOf(item);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [item]);
    else group.push(item);
  }
  return groups;
}

/** Most weights are compared with many. */
function once<T>(read: () => Promise<T>): () => Promise<T> {
  let result: Promise<T> | null = null;
  return () => (result ??= read());
}

/** Without the names of wrappers, and of the component itself, in front. */
function plainName(name: string, componentName: string): string {
  const segments = name.split(".");
  const isWrapper = (segment: string): boolean => WRAPPERS.includes(segment) || segment === componentName;
  const first = segments.findIndex((segment) => !isWrapper(segment));
  return segments.slice(Math.max(0, first)).join(".");
}

async function withFiles<T>(paths: readonly string[], use: (files: OpenFiles) => Promise<T>): Promise<T> {
  const open = (index: number, files: OpenFiles): Promise<T> => {
    const path = paths[index];
    if (path === undefined) return use(files);
    return withFile(path, (file) => open(index + 1, new Map([...files, [path, file]])));
  };
  return open(0, new Map());
}

function otherWeights(
  file: OnnxFile,
  component: Component,
  { weight, by, initializer, difference }: Contradiction,
): ArrowQuantError {
  const tensor = `${quoteName(weight.name)} of ${component.name}`;
  const found =
    difference === null
      ? `is ${initializer.rows} × ${initializer.cols} there and ${weight.rows} × ${weight.cols} here`
      : `differs by up to ${brief(difference.difference)}: ${brief(difference.b)} there, ${brief(difference.a)} here`;
  const where = by === "name" ? "" : ` (by the path of node ${quoteName(initializer.layers[0]?.node ?? "")})`;
  return new ArrowQuantError("E_GRAPH", `"${file.path}" holds other weights: ${tensor} ${found}${where}`, {
    hint: "give the graph that was exported from this very model",
    details: {
      path: file.path,
      tensor: weight.name,
      initializer: initializer.name,
      by,
      shape: [weight.rows, weight.cols],
      graphShape: [initializer.rows, initializer.cols],
      worst: difference === null ? null : { ...difference },
    },
  });
}

function brief(value: number): string {
  return String(Number(value.toPrecision(4)));
}

function nothingMatches(file: OnnxFile, component: Component, tensors: number, weights: number): ArrowQuantError {
  const message =
    `"${file.path}" holds none of the weights of ${component.name}: ` +
    `the graph multiplies ${weights} weights, the model has ${tensors} that could be`;
  return new ArrowQuantError("E_GRAPH", message, {
    hint: "give the graph that was exported from this very model",
    details: { path: file.path, component: component.name, graphWeights: weights, tensors },
  });
}
