/**
 * The prediction error of a model with some of its layers quantized, without a quantized model being written: what
 * choosing bits by the model's own error is made of.
 */
import { createHash } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { toFloats } from "../../calibration/sampling.js";
import type { Session } from "../../engine/session.js";
import { ArrowQuantError } from "../../errors.js";
import { type GraphMatch, matchGraph } from "../../graph/match.js";
import { loadRuntime } from "../../runtime/runtime.js";
import { deriveOutputMetrics } from "../../tensor/metrics.js";
import { sumPrediction } from "../../tensor/prediction-metrics.js";
import { meanOverTimes, type TimeError, TimeErrors } from "../../tensor/time-errors.js";
import { FedGraph, type WeightsByName } from "./fed-graph.js";
import { type InputBatch, type InputsRequest, planInputs } from "./prediction-inputs.js";

export interface RunnerRequest extends InputsRequest {
  /** Tensors to be replaced, of which those that the graph has can be; null or left out: all that it has. */
  readonly layers?: readonly string[] | null | undefined;
  readonly session: Session;
  /** Runs of the graph on one sample, while the runner is being opened. */
  readonly onRun: (done: number, total: number) => void;
}

/** How far predictions lie from the original's for the same inputs. */
export interface PredictionError {
  /** ‖p − r‖²/‖r‖² over all inputs: the errors of layers about add up in it. */
  readonly squared: number;
  /** Mean over times of ‖p − r‖/‖r‖: the prediction error that `validate --run` gives. */
  readonly overTimes: number;
  readonly times: readonly TimeError[];
}

export interface ModelRunner {
  /** Tensors whose weights can be replaced. */
  readonly layerNames: ReadonlySet<string>;
  readonly sampleCount: number;
  /** ‖r‖² of the original's predictions over all inputs. */
  readonly originalEnergy: number;
  /** What is run, in words. */
  readonly label: string;
  /** Of graph and inputs: with an equal one equal weights have an equal error. */
  readonly fingerprint: string;
  readonly warnings: readonly string[];
  /**
   * The squared relative error with the weights of `replaced` (float32, as the tensors' elements lie) and all other
   * layers as they are; Infinity where a prediction is not finite. Calls wait for one another.
   * @throws E_GRAPH for a tensor that is none of `layerNames`, E_SHAPE where it has more or fewer weights, the
   *   signal's reason
   */
  error(replaced: WeightsByName): Promise<number>;
  /** `error`, and the same time by time. */
  measure(replaced: WeightsByName): Promise<PredictionError>;
  close(): Promise<void>;
}

/** Of the memory cap, what the original's weights may take: those of a quantized model come beside them. */
const WEIGHTS_SHARE = 0.5;

/**
 * Loads the graph, has its inputs sampled or read, and runs the original on them.
 * @throws E_RUNTIME where ONNX Runtime is missing, E_GRAPH where there is no graph or it is of another model, E_MEMORY
 *   where the weights do not fit the cap, E_CALIBRATION and E_SCHEDULER where inputs cannot be had, the signal's reason
 */
export async function openModelRunner(request: RunnerRequest): Promise<ModelRunner> {
  const { component, session, signal, onRun } = request;
  const runtime = await loadRuntime();
  const plan = await planInputs(request);
  const match = await matchGraph(plan.file, component);
  const tensorNames = chooseTensors(match, request.layers ?? null, plan.file.path);
  assertFits(FedGraph.countBytes(match, tensorNames), session);
  let done = 0;
  const tell = (runs: number, sampleCount: number) => {
    done += runs;
    onRun(done, plan.runCount + sampleCount);
  };
  const folder = await mkdtemp(join(tmpdir(), "arrowquant-weights-"));
  const removeFolder = () => rm(folder, { recursive: true, force: true });
  let graph: FedGraph | null = null;
  try {
    const { file } = plan;
    const { threads } = session;
    graph = await FedGraph.open({ runtime, file, match, tensorNames, folder: join(folder, "graph"), threads, signal });
    const { batches, sampleCount, fingerprint } = await plan.take({
      original: graph.asOriginal(),
      spoolPath: join(folder, "samples"),
      onRun: (runs) => tell(runs, request.samples),
    });
    const predictor: Predictor = { graph, prediction: plan.prediction, signal };
    const originals: Float32Array[] = [];
    for (const batch of batches) {
      originals.push(await predict(predictor, batch, new Map()));
      tell(batch.times.length, sampleCount);
    }
    return createRunner(predictor, batches, originals, {
      layerNames: new Set(tensorNames),
      sampleCount,
      originalEnergy: originals.reduce((sum, values) => sum + sumPrediction(values, values).sourceNorm2, 0),
      label: plan.label,
      fingerprint: createHash("sha256")
        .update(JSON.stringify([plan.graphFingerprint, fingerprint]))
        .digest("hex"),
      warnings: plan.warnings,
      removeFolder,
    });
  } catch (thrown) {
    await graph?.close();
    await removeFolder();
    throw thrown;
  }
}

interface Predictor {
  readonly graph: FedGraph;
  /** Output that is the prediction. */
  readonly prediction: string;
  readonly signal: AbortSignal;
}

function createRunner(
  predictor: Predictor,
  batches: readonly InputBatch[],
  originals: readonly Float32Array[],
  {
    removeFolder,
    ...facts
  }: Omit<ModelRunner, "error" | "measure" | "close"> & { readonly removeFolder: () => Promise<void> },
): ModelRunner {
  // A graph runs once at a time.
  let last: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const result = last.then(work);
    last = result.catch(() => undefined);
    return result;
  };
  const measure = (replaced: WeightsByName): Promise<PredictionError> =>
    inTurn(async () => {
      const errors = new TimeErrors();
      for (const [index, batch] of batches.entries()) {
        addErrors(errors, batch, await predict(predictor, batch, replaced), originals[index] as Float32Array);
      }
      const times = errors.list();
      const { relativeError } = deriveOutputMetrics(errors.total());
      return { squared: finite(relativeError ** 2), overTimes: finite(meanOverTimes(times, "relativeError")), times };
    });
  return {
    ...facts,
    measure,
    error: async (replaced) => (await measure(replaced)).squared,
    close: () =>
      inTurn(async () => {
        await predictor.graph.close();
        await removeFolder();
      }),
  };
}

async function predict(
  { graph, prediction, signal }: Predictor,
  { feeds, rows, times }: InputBatch,
  replaced: WeightsByName,
): Promise<Float32Array> {
  signal.throwIfAborted();
  const outputs = await graph.run(feeds, [prediction], replaced);
  const values = toFloats(outputs[prediction]?.data, prediction);
  return values.subarray(0, (values.length / rows) * times.length);
}

/** Samples of a batch may be of different times. */
function addErrors(errors: TimeErrors, { times }: InputBatch, predicted: Float32Array, original: Float32Array): void {
  const length = original.length / times.length;
  for (const [place, time] of times.entries()) {
    const partOf = (values: Float32Array) => values.subarray(place * length, (place + 1) * length);
    errors.add(time, partOf(predicted), partOf(original));
  }
}

/** Whatever breaks the model is worse than anything that does not. */
function finite(error: number): number {
  return Number.isNaN(error) ? Infinity : error;
}

function chooseTensors({ matched }: GraphMatch, layers: readonly string[] | null, path: string): string[] {
  const wanted = layers === null ? null : new Set(layers);
  const names = [...matched.keys()].filter((name) => wanted?.has(name) ?? true);
  if (names.length > 0) return names;
  throw new ArrowQuantError("E_GRAPH", `"${path}" has none of the ${wanted?.size ?? 0} layers to be quantized`, {
    hint: "is it the graph of this model?",
    details: { path, layers: layers?.slice(0, 10) ?? null },
  });
}

function assertFits(weightBytes: number, { memoryBytes }: Session): void {
  const neededBytes = weightBytes / WEIGHTS_SHARE;
  if (neededBytes <= memoryBytes) return;
  const [needed, given] = [neededBytes, memoryBytes].map((bytes) => Math.ceil(bytes / 1024 ** 2));
  throw new ArrowQuantError(
    "E_MEMORY",
    `running the model with other weights takes ${needed} MiB, the memory cap is ${given} MiB`,
    {
      hint: `--memory ${needed}MiB, or a measure of error that does not run the model: --sensitivity output`,
      details: { weightBytes, neededBytes, memoryBytes },
    },
  );
}
