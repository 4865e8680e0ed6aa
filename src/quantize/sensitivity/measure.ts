/**
 * Measures every candidate of every layer: quantized as the model would be, layers side by side within the session's
 * budget; then, where the model can be run, each alone in the original model.
 */
import type { Statistics } from "../../calibration/statistics.js";
import { ProgressMeter } from "../../engine/meter.js";
import type { ProgressListener } from "../../engine/progress.js";
import { runInOrder } from "../../engine/queue.js";
import type { Session } from "../../engine/session.js";
import { ArrowQuantError } from "../../errors.js";
import { fingerprintComponent } from "../../formats/fingerprint.js";
import { assertUnchanged } from "../../io/unchanged.js";
import type { ComponentPlan, LayerPlan, SensitivityKind } from "../../plan/plan.js";
import { estimateLayerBytes } from "../../plan/size.js";
import type { Component } from "../../tensor/info.js";
import { countElements, type QuantSpec } from "../../tensor/layout.js";
import type { OutputSums } from "../../tensor/metrics.js";
import { type Figure, type FigureCache, hashTexts, openFigures } from "./cache.js";
import { candidateLayer, describeCandidate } from "./candidate.js";
import type { WeightEntropy } from "./entropy.js";
import { type CandidateStore, type CandidateSums, openCandidateStore } from "./store.js";
import type { CandidateErrors, LayerSensitivity, SensitivityTable } from "./table.js";

/** What runs the model with layers replaced; `ModelRunner` is one. */
export interface LayerErrorSource {
  /** Tensors whose weights can be replaced. */
  readonly layerNames: ReadonlySet<string>;
  /** Of graph and inputs. */
  readonly fingerprint: string;
  /** Squared relative error of predictions with these weights, all other layers as they are. */
  error(replaced: ReadonlyMap<string, Float32Array>): Promise<number>;
}

export interface SensitivityInput {
  readonly component: Component;
  readonly plan: ComponentPlan;
  /** null: the component is not calibrated. */
  readonly statistics: Statistics | null;
  /** What a layer may be quantized by; of a layer without candidates nothing is measured. */
  readonly candidatesOf: (layer: LayerPlan) => readonly QuantSpec[];
  /** What is asked for. `weight` and `entropy` need no data and are always measured. */
  readonly kinds: readonly SensitivityKind[];
  /** What `model` is measured with, open for as long as this takes; null: it is not asked for. */
  readonly modelErrors: LayerErrorSource | null;
  /** Where candidates are quantized and kept for later use; null: in a store of this measurement's own. */
  readonly store: CandidateStore | null;
  readonly onNonFinite: "error" | "keep";
  /** Where figures are kept; null: nowhere. */
  readonly cacheFolder: string | null;
  /** Measure anew what the cache has. */
  readonly fresh?: boolean | undefined;
  readonly session: Session;
  readonly signal: AbortSignal;
  readonly abort: (reason: unknown) => void;
  readonly onProgress: ProgressListener | undefined;
}

/** A candidate to measure. */
interface Item {
  readonly layer: LayerPlan;
  readonly spec: QuantSpec;
  readonly key: string;
}

/**
 * Measures a component.
 * @throws E_CONFLICT where a kind is asked for that not even one layer can be measured by; E_NONFINITE, errors of
 *   reading and running, E_CALLBACK, the signal's reason
 */
export async function measureSensitivity(input: SensitivityInput): Promise<SensitivityTable> {
  const { component, plan, statistics, signal } = input;
  const asked = plan.layers.flatMap((layer) => {
    const specs = input.candidatesOf(layer);
    return specs.length === 0 ? [] : [{ layer, specs }];
  });
  const reach = reachOf(input, asked);
  const fingerprint = await fingerprintComponent(component);
  const subject = [fingerprint, statistics?.fingerprint ?? ""];
  const items = asked.flatMap(({ layer, specs }) =>
    specs.map((spec): Item => ({ layer, spec, key: hashTexts([describeCandidate(plan, layer, spec)]) })),
  );
  const { cacheFolder, fresh = false } = input;
  const opened: { close(): Promise<void> }[] = [];
  const keep = <T extends { close(): Promise<void> }>(closable: T): T => {
    opened.push(closable);
    return closable;
  };
  try {
    const figures = keep(await openFigures(cacheFolder, subject, fresh));
    const runs = keep(await openFigures(cacheFolder, [...subject, input.modelErrors?.fingerprint ?? ""], fresh));
    const store = input.store ?? keep(await openCandidateStore(input));
    const isRun = ({ layer, key }: Item) => reach.modelNames.has(layer.tensor.name) && runs.get(key) === undefined;
    const unable = new Set([
      ...(await measureCandidates(input, store, figures, items, isRun)),
      ...(await countEntropies(
        store,
        figures,
        asked.map(({ layer }) => layer),
        input.session,
      )),
    ]);
    const runnable = items.filter((item) => isRun(item) && !unable.has(item.layer));
    await runCandidates(input, store, runs, runnable);
    await assertUnchanged(component.files);
    const found = asked
      .filter(({ layer }) => !unable.has(layer))
      .map(({ layer, specs }) => assembleLayer(input, layer, specs, figures, runs, reach.modelNames));
    const energy = found.reduce((sum, { outputEnergy }) => sum + (outputEnergy ?? 0), 0);
    return {
      component: component.name,
      fingerprint: hashTexts([
        ...subject,
        ...input.kinds,
        input.modelErrors?.fingerprint ?? "",
        ...items.map(({ key }) => key),
      ]),
      kinds: input.kinds,
      layers: found.map(({ outputEnergy, ...layer }) => ({
        ...layer,
        outputShare: outputEnergy === null ? null : energy === 0 ? 0 : outputEnergy / energy,
      })),
      warnings: [
        ...reach.warnings,
        ...[...unable].map(({ tensor }) => `"${tensor.name}" is left out: it has weights that are not finite`),
      ],
    };
  } catch (thrown) {
    input.abort(thrown);
    throw signal.reason;
  } finally {
    for (const closable of opened.reverse()) await closable.close();
  }
}

/** What of the kinds that are asked for can be had, of which layers. */
function reachOf(
  { kinds, statistics, modelErrors, component }: SensitivityInput,
  asked: readonly { readonly layer: LayerPlan }[],
): { readonly modelNames: ReadonlySet<string>; readonly warnings: readonly string[] } {
  const names = asked.map(({ layer }) => layer.tensor.name);
  const warnings: string[] = [];
  if (kinds.includes("output")) {
    const having = names.filter((name) => hasHeldBack(statistics, name));
    if (names.length > 0 && having.length === 0) {
      const reason =
        statistics === null ? "it is not calibrated" : "the statistics have no samples held back of its layers";
      throw new ArrowQuantError("E_CONFLICT", `"${component.name}" has no output sensitivity: ${reason}`, {
        hint: "add --calibration with samples or sampling, or use the weight sensitivity",
        details: { component: component.name, layers: names.length },
      });
    }
    warnings.push(...lackText("output", names, having, "no samples of their inputs are held back"));
  }
  if (!kinds.includes("model")) return { modelNames: new Set(), warnings };
  const running = names.filter((name) => modelErrors?.layerNames.has(name) ?? false);
  if (names.length > 0 && running.length === 0) {
    const reason = modelErrors === null ? "there is no graph to run" : "the graph has none of its layers";
    throw new ArrowQuantError("E_CONFLICT", `"${component.name}" has no model sensitivity: ${reason}`, {
      hint: "name its graph with --graph, or use the output or weight sensitivity",
      details: { component: component.name, layers: names.length },
    });
  }
  warnings.push(...lackText("model", names, running, "they are not found in the graph"));
  return { modelNames: new Set(running), warnings };
}

function lackText(kind: string, names: readonly string[], having: readonly string[], reason: string): string[] {
  const lacking = names.filter((name) => !having.includes(name));
  if (lacking.length === 0) return [];
  return [`${lacking.length} of ${names.length} layers have no ${kind} sensitivity, ${reason}: ${lacking[0]} …`];
}

function hasHeldBack(statistics: Statistics | null, name: string): boolean {
  if (statistics === null) return false;
  const { layers, values } = statistics.info;
  const heldBack = values[layers[name] ?? ""]?.heldBack;
  return heldBack !== undefined && "rows" in heldBack;
}

/** Quantizes and measures the candidates that the cache does not know; returns the layers that cannot be quantized. */
async function measureCandidates(
  { component, session, signal, abort, onProgress, modelErrors }: SensitivityInput,
  store: CandidateStore,
  figures: FigureCache,
  items: readonly Item[],
  isRun: (item: Item) => boolean,
): Promise<LayerPlan[]> {
  const unknown = items.filter(({ key }) => figures.get(key) === undefined);
  const bytes = unknown.reduce((sum, { layer }) => sum + layer.tensor.location.byteLength, 0);
  const meter = new ProgressMeter("sensitivity", { layers: unknown.length, bytes }, onProgress, abort);
  // Each holds a share of the budget; more than two a thread would only wait for it.
  const replies = runInOrder(unknown.length, 2 * session.threads, (index) => {
    const item = unknown[index] as Item;
    return store.measure(item.layer.tensor.name, item.spec, modelErrors !== null && isRun(item));
  });
  const unable: LayerPlan[] = [];
  let index = 0;
  for await (const sums of replies) {
    signal.throwIfAborted();
    const { layer, key } = unknown[index++] as Item;
    const { name, location } = layer.tensor;
    if (sums === null) unable.push(layer);
    else await figures.put(key, figureOf(sums));
    meter.add(component.name, name, location.byteLength, 1);
  }
  return unable;
}

function figureOf({ weight, output, outputEnergy }: CandidateSums): Figure {
  return { weight: relativeError(weight), output: output === null ? null : relativeError(output), outputEnergy };
}

/** ‖y − ŷ‖²/‖y‖²; of a zero source 0 where nothing was added to it, else 1. */
function relativeError({ errorNorm2, sourceNorm2 }: OutputSums): number {
  if (errorNorm2 === 0) return 0;
  return sourceNorm2 === 0 ? 1 : errorNorm2 / sourceNorm2;
}

async function countEntropies(
  store: CandidateStore,
  figures: FigureCache,
  layers: readonly LayerPlan[],
  session: Session,
): Promise<LayerPlan[]> {
  const unknown = layers.filter(({ tensor }) => figures.get(entropyKey(tensor.name)) === undefined);
  const replies = runInOrder(unknown.length, 2 * session.threads, (index) =>
    store.entropy((unknown[index] as LayerPlan).tensor.name),
  );
  const unable: LayerPlan[] = [];
  let index = 0;
  for await (const entropy of replies) {
    const layer = unknown[index++] as LayerPlan;
    if (entropy === null) unable.push(layer);
    else await figures.put(entropyKey(layer.tensor.name), entropy);
  }
  return unable;
}

function entropyKey(name: string): string {
  return hashTexts(["entropy", name]);
}

/** Runs the model with one candidate at a time; while it runs, the next is rebuilt. */
async function runCandidates(
  { component, modelErrors, signal, abort, onProgress }: SensitivityInput,
  store: CandidateStore,
  runs: FigureCache,
  items: readonly Item[],
): Promise<void> {
  if (modelErrors === null || items.length === 0) return;
  // Every run takes about as long, however large the layer: all weights pass.
  const passed = component.tensors.reduce((sum, { location }) => sum + location.byteLength, 0);
  const meter = new ProgressMeter("run", { layers: items.length, bytes: items.length * passed }, onProgress, abort);
  const rebuilt = runInOrder(items.length, 2, (index) => {
    const { layer, spec } = items[index] as Item;
    return store.weights(layer.tensor.name, spec);
  });
  let index = 0;
  for await (const weights of rebuilt) {
    signal.throwIfAborted();
    const { layer, spec, key } = items[index++] as Item;
    const { name } = layer.tensor;
    const error = await modelErrors.error(new Map([[name, weights]]));
    if (!Number.isFinite(error)) {
      throw new ArrowQuantError("E_NONFINITE", `the prediction is not finite with "${name}" at ${spec.bits} bits`, {
        hint: "leave these bits out of --candidate-bits",
        details: { tensor: name, bits: spec.bits, groupSize: spec.groupSize },
      });
    }
    await runs.put(key, { model: error });
    meter.add(component.name, name, passed, 1);
  }
}

type MeasuredLayer = Omit<LayerSensitivity, "outputShare"> & { readonly outputEnergy: number | null };

/** A layer from its figures, all of which are there. */
function assembleLayer(
  { plan, kinds }: SensitivityInput,
  layer: LayerPlan,
  specs: readonly QuantSpec[],
  figures: FigureCache,
  runs: FigureCache,
  modelNames: ReadonlySet<string>,
): MeasuredLayer {
  const { name, shape } = layer.tensor;
  const { entropy, entropyClass } = figures.get(entropyKey(name)) as WeightEntropy;
  let outputEnergy: number | null = null;
  const candidates = specs.map((spec): CandidateErrors => {
    const key = hashTexts([describeCandidate(plan, layer, spec)]);
    const figure = figures.get(key) as Extract<Figure, { weight: number }>;
    const run = modelNames.has(name) ? (runs.get(key) as Extract<Figure, { model: number }>) : null;
    if (kinds.includes("output")) outputEnergy = figure.outputEnergy;
    return {
      spec,
      bytes: estimateLayerBytes(candidateLayer(layer, spec)),
      weight: figure.weight,
      output: kinds.includes("output") ? figure.output : null,
      model: run?.model ?? null,
    };
  });
  return { name, parameterCount: countElements(shape), entropy, entropyClass, outputEnergy, candidates };
}
