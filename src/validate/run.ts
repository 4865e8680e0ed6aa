/**
 * Proof by running: the original and the quantized model side by side in ONNX Runtime, on inputs that calibration has
 * not seen; with quantized weights, and with quantized weights and activations where the file holds parameters.
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openCalibrationData } from "../calibration/data/data.js";
import { hubOf } from "../calibration/data/location.js";
import type { CalibrationSample } from "../calibration/data/sample.js";
import { describeInputs } from "../calibration/graph-inputs.js";
import { findSchedulerConfig } from "../calibration/model-facts.js";
import { setUpSampling } from "../calibration/sampling-setup.js";
import type { Session } from "../engine/session.js";
import { ArrowQuantError } from "../errors.js";
import type { ActivationQuantizer } from "../formats/onnx/activation-quantizer.js";
import { type OnnxFile, readOnnx } from "../formats/onnx/read.js";
import type { NativeFile } from "../formats/parquet/reader.js";
import { requireGraph } from "../graph/locate.js";
import { matchGraph } from "../graph/match.js";
import { type GraphRoles, inferRoles } from "../graph/roles.js";
import { listInputs } from "../graph/value.js";
import { exportNative } from "../quantize/export.js";
import { drawImageGrid } from "../report/image-grid.js";
import { loadRuntime, type RunSession } from "../runtime/runtime.js";
import type { Component } from "../tensor/info.js";
import { psnr } from "../tensor/prediction-metrics.js";
import { meanOverTimes, type TimeError } from "../tensor/time-errors.js";
import {
  divideLayers,
  dynamicQuantizers,
  type RunLayers,
  storedQuantizers,
  writeQuantizedGraph,
} from "./quantized-graph.js";
import { runData, runSampling, type SamplingRun } from "./run-predictions.js";
import type { RecordedActivations, RunOptions, RunResult, RunVariant } from "./run-result.js";

const DEFAULT_SAMPLES = 16;
const DEFAULT_STEPS = 20;
/** Not that of calibration, so that the noise is other noise. */
const DEFAULT_SEED = 1;

/** Of inputs given as data, most that are held in memory. */
const MAX_DATA_SAMPLES = 4096;

/** Pictures lie in [−1, 1], a little beyond by rounding. */
const PICTURE_LIMIT = 1.01;

export interface RunJob {
  readonly original: string;
  readonly component: Component;
  readonly native: NativeFile;
  readonly options: RunOptions;
  /** Files of servers are kept here. */
  readonly cacheFolder: string;
  readonly signal: AbortSignal;
  readonly onRun: (done: number, total: number) => void;
}

/** What runs: the graph, how it is fed, and the quantized layers in it. */
interface Setting {
  readonly file: OnnxFile;
  readonly roles: GraphRoles;
  readonly layers: RunLayers;
  readonly variants: readonly { readonly quantized: RunVariant["quantized"]; readonly path: string }[];
  readonly activationCount: number;
}

/**
 * Runs both models.
 * @throws E_RUNTIME where ONNX Runtime is missing, E_GRAPH where there is no graph or it is of another model,
 *   E_SCHEDULER, E_CALIBRATION for inputs that cannot be made or read, the signal's reason
 */
export async function runModels(job: RunJob, session: Session): Promise<RunResult> {
  const runtime = await loadRuntime();
  const folder = await mkdtemp(join(tmpdir(), "arrowquant-run-"));
  const opened: RunSession[] = [];
  try {
    const setting = await prepare(job, session, folder);
    const open = async (path: string) => {
      job.signal.throwIfAborted();
      const graph = await runtime.open(path, { threads: session.threads });
      opened.push(graph);
      return graph;
    };
    const original = await open(setting.file.path);
    const quantized: RunSession[] = [];
    for (const { path } of setting.variants) quantized.push(await open(path));
    const outcome = await predict(job, setting, original, quantized);
    const passed = outcome.variants.every((variant) => isGoodEnough(variant, job.options));
    return {
      component: job.component.name,
      graph: setting.file.path,
      runtime: `${runtime.name} ${runtime.version}`,
      ...outcome,
      layerCount: setting.layers.run.length,
      notRun: setting.layers.notRun,
      activationCount: setting.activationCount,
      passed,
    };
  } finally {
    for (const graph of opened) await graph.close();
    await rm(folder, { recursive: true, force: true });
  }
}

/** Writes the quantized graphs into `folder`. */
async function prepare({ original, component, native, options, signal }: RunJob, session: Session, folder: string) {
  const file = await readOnnx(await requireGraph(original, options.graph ?? null));
  const roles = inferRoles(file, options.roles);
  const match = await matchGraph(file, component);
  const layers = await divideLayers(native, file, match);
  const weightsPath = join(folder, "weights.safetensors");
  await exportNative({ input: native.path, output: weightsPath, dtype: "F32", signal }, session);
  const quantizers = chooseQuantizers(native, layers, options, roles.time);
  const write = async (name: string, each: readonly ActivationQuantizer[]) => {
    signal.throwIfAborted();
    const outPath = join(folder, `${name}.onnx`);
    await writeQuantizedGraph(file, match, layers.run, weightsPath, each, outPath);
    return outPath;
  };
  const variants: Setting["variants"][number][] = [{ quantized: "weights", path: await write("weights", []) }];
  if (quantizers.length > 0) {
    variants.push({ quantized: "weights and activations", path: await write("activations", quantizers) });
  }
  const setting: Setting = { file, roles, layers, variants, activationCount: quantizers.length };
  return setting;
}

function chooseQuantizers(
  native: NativeFile,
  { run }: RunLayers,
  { dynamicBits }: RunOptions,
  timeInput: string,
): ActivationQuantizer[] {
  if (dynamicBits) return dynamicQuantizers(run, dynamicBits);
  const recorded = recordedActivations(native);
  if (recorded?.mode === "dynamic") return dynamicQuantizers(run, recorded.bits);
  return storedQuantizers(run, timeInput);
}

/** How activations are to be quantized while running, by the settings that made the file. */
function recordedActivations(native: NativeFile): RecordedActivations | null {
  try {
    const { activations } = JSON.parse(native.metadata.get("arrowquant.config") ?? "{}") as {
      activations?: RecordedActivations;
    };
    return activations ?? null;
  } catch {
    // Another writer may put other text there; it is no concern of the codes.
    return null;
  }
}

type Outcome = Pick<RunResult, "inputs" | "variants" | "images" | "warnings">;

async function predict(
  job: RunJob,
  { file, roles, variants, layers }: Setting,
  original: RunSession,
  quantized: readonly RunSession[],
): Promise<Outcome> {
  const { options } = job;
  const graph = describeInputs(listInputs(file), roles);
  const missing = layers.notRun.length;
  const notes =
    missing === 0 ? [] : [`quantized layers that the graph does not have, and that ran as they were: ${missing}`];
  const sampleCount = options.samples ?? DEFAULT_SAMPLES;
  if (options.data) {
    const stream = await openCalibrationData(
      options.data,
      { inputs: graph.inputs },
      {
        limit: Math.min(sampleCount, MAX_DATA_SAMPLES),
        minSamples: 1,
        signal: job.signal,
        cacheFolder: job.cacheFolder,
        hub: hubOf(process.env),
      },
    );
    const samples: CalibrationSample[] = [];
    for await (const sample of stream.samples) samples.push(sample);
    const inputs = { graph, prediction: roles.prediction };
    const { errors } = await runData(original, quantized, inputs, samples, job.signal, job.onRun);
    return {
      inputs: { source: stream.source.location, samples: samples.length, steps: null, seed: null, scheduler: null },
      variants: variants.map(({ quantized: what }, index) => summarize(what, errors[index] as TimeError[], null)),
      images: null,
      warnings: notes,
    };
  }
  const seed = options.seed ?? DEFAULT_SEED;
  const steps = options.steps ?? DEFAULT_STEPS;
  const { denoiser, scheduler, warnings } = setUpSampling({
    component: job.component,
    graph,
    roles,
    schedulerConfig: await findSchedulerConfig(job.original, file.path),
    missingScheduler: missingScheduler(job, file.path),
    steps,
    seed,
    dataHint: "give inputs with --run-data",
  });
  const run = await runSampling(original, quantized, denoiser, scheduler, sampleCount, job.signal, job.onRun);
  const peakToPeak = findPeakToPeak(run.original);
  const image = await drawImages(options.images ?? null, run, [sampleCount, ...denoiser.sampleShape]);
  return {
    inputs: { source: "sampling", samples: sampleCount, steps, seed, scheduler: scheduler.name },
    variants: variants.map(({ quantized: what }, index) =>
      summarize(
        what,
        run.errors[index] as TimeError[],
        psnr(run.samples[index] as Float32Array, run.original, peakToPeak),
      ),
    ),
    images: image.path,
    warnings: [...notes, ...image.notes, ...warnings],
  };
}

function missingScheduler({ original }: RunJob, graphPath: string): ArrowQuantError {
  return new ArrowQuantError("E_SCHEDULER", `no scheduler_config.json beside "${original}" or its graph`, {
    hint: "put one there, or give inputs with --run-data",
    details: { original, graph: graphPath },
  });
}

function summarize(quantized: RunVariant["quantized"], times: readonly TimeError[], psnrDb: number | null): RunVariant {
  return {
    quantized,
    predictionError: meanOverTimes(times, "relativeError"),
    predictionCosine: meanOverTimes(times, "cosineSimilarity"),
    times,
    psnrDb,
  };
}

/** 2 of pictures in [−1, 1]; of other samples what the original's span. */
function findPeakToPeak(samples: Float32Array): number {
  let least = Infinity;
  let largest = -Infinity;
  for (const value of samples) {
    if (value < least) least = value;
    if (value > largest) largest = value;
  }
  return least >= -PICTURE_LIMIT && largest <= PICTURE_LIMIT ? 2 : largest - least;
}

async function drawImages(path: string | null, run: SamplingRun, shape: readonly number[]) {
  if (path === null) return { path: null, notes: [] };
  const [count, channels, height, width, ...more] = shape as [number, number, number, number, ...number[]];
  if (shape.length !== 4 || more.length > 0) {
    return { path: null, notes: [`no pictures: samples of shape [${shape.slice(1)}]`] };
  }
  // The last variant is the one with everything quantized.
  const grid = await drawImageGrid(run.original, run.samples.at(-1) as Float32Array, [count, channels, height, width]);
  if (grid.png === null) return { path: null, notes: [`no pictures: ${grid.reason}`] };
  await writeFile(path, grid.png);
  return { path, notes: [] };
}

function isGoodEnough({ predictionError, psnrDb }: RunVariant, { maxPredictionError, minPsnr }: RunOptions): boolean {
  const errs = typeof maxPredictionError === "number" && !(predictionError <= maxPredictionError);
  const differs = typeof minPsnr === "number" && psnrDb !== null && !(psnrDb >= minPsnr);
  return !errs && !differs;
}
