/**
 * The inputs that a model's error is measured on while bits are chosen. They must be none that statistics were taken
 * of, or a layer would look as good as GPTQ made it look on its own calibration data; and none that the finished
 * model is judged by, or the choice would be fitted to the judge.
 */
import { mostAtOnce, planBatches, sharesTime } from "../../calibration/batches.js";
import { defaultCacheFolder } from "../../calibration/cache.js";
import { chooseRows } from "../../calibration/even-rows.js";
import { feedBatch, type GraphInputs, type SampleInputs } from "../../calibration/graph-inputs.js";
import { prepareRun } from "../../calibration/run-calibration.js";
import { SampleSpool } from "../../calibration/spool.js";
import { HELD_BACK_EVERY, orderSamples } from "../../calibration/time-bins.js";
import { ArrowQuantError } from "../../errors.js";
import type { OnnxFile } from "../../formats/onnx/read.js";
import type { RoleNames } from "../../graph/roles.js";
import type { RunSession, RunTensor } from "../../runtime/runtime.js";
import type { Component } from "../../tensor/info.js";

/** Beyond every seed that a run can be given: calibration's and that of `validate --run` are never this one. */
const HELD_BACK_SEEDS = 2 ** 32;

/** The seed of what is sampled to choose bits by, where calibration samples with `seed`. */
export function heldBackSeed(seed: number): number {
  return HELD_BACK_SEEDS + seed;
}

export interface InputsRequest {
  /** The model as it was given: its graph and its scheduler lie beside it. */
  readonly original: string;
  readonly component: Component;
  /** null: the graph beside the model. */
  readonly graph: string | null;
  readonly roles?: RoleNames | undefined;
  /** Place of data with inputs of the model; null: the inputs that the model visits when it samples. */
  readonly data: string | null;
  /**
   * Samples that calibration takes of `data`: only those that it holds back are run. null or left out: calibration
   * takes other data.
   */
  readonly calibrationSamples?: number | null | undefined;
  /** Inputs to run, at most. */
  readonly samples: number;
  /** Steps of the sampler. */
  readonly steps: number;
  /** That of calibration; what is sampled here comes of `heldBackSeed`. */
  readonly seed: number;
  readonly signal: AbortSignal;
}

/** Samples that the graph is run on at once. */
export interface InputBatch {
  /** Of each sample. */
  readonly times: readonly number[];
  readonly feeds: Readonly<Record<string, RunTensor>>;
  /** Size of the batch; more than there are samples where the graph fixes it. */
  readonly rows: number;
}

export interface HeldBackInputs {
  readonly batches: readonly InputBatch[];
  readonly sampleCount: number;
  /** SHA-256 of the samples. */
  readonly fingerprint: string;
}

export interface InputsPlan {
  readonly file: OnnxFile;
  /** Output that is the prediction. */
  readonly prediction: string;
  readonly graphFingerprint: string;
  readonly label: string;
  readonly warnings: readonly string[];
  /** Runs of the graph on one sample that making the inputs takes. */
  readonly runCount: number;
  /** @param original runs the model; @param onRun told how many runs were done since the last call */
  readonly take: (request: {
    readonly original: RunSession;
    /** A file of its own, for the samples. */
    readonly spoolPath: string;
    readonly onRun: (runs: number) => void;
  }) => Promise<HeldBackInputs>;
}

/** @throws E_GRAPH where there is no graph, E_CALIBRATION and E_SCHEDULER where inputs cannot be had */
export async function planInputs(request: InputsRequest): Promise<InputsPlan> {
  const { original, component, graph, roles = {}, data, samples, steps, signal } = request;
  const heldBackOf = data === null ? null : (request.calibrationSamples ?? null);
  const run = await prepareRun({
    job: {
      input: original,
      graph,
      source: data ?? "sampling",
      output: null,
      // The same rows as calibration takes, for the same to be held back.
      samples: heldBackOf ?? samples,
      steps,
      seed: heldBackSeed(request.seed),
      roles,
      variant: null,
      components: null,
      hessians: false,
      cacheFolder: defaultCacheFolder(process.env),
    },
    kind: data === null ? "sampling" : "data",
    component,
    signal,
  });
  return {
    file: run.file,
    prediction: run.roles.prediction,
    graphFingerprint: run.graphFingerprint,
    label: heldBackOf === null ? run.label : `${run.label}, what calibration holds back`,
    warnings: run.warnings,
    runCount: run.source.totals.layers,
    take: async ({ original: session, spoolPath, onRun }) => {
      const spool = await SampleSpool.create(spoolPath);
      try {
        const openGraph = async () => session;
        await run.source.fill({ spool, openGraph, signal, onRun: (_text, runs) => onRun(runs) });
        await spool.flush();
        const chosen = chooseSamples(spool, heldBackOf !== null, samples);
        if (chosen.length === 0) throw nothingHeldBack(data ?? "", spool.count);
        const batches = await readBatches(spool, chosen, run.inputs, session, run.roles.prediction);
        return { batches, sampleCount: chosen.length, fingerprint: spool.fingerprint() };
      } finally {
        await spool.close();
      }
    },
  };
}

/** By rising time; of more than `most` evenly spread ones. */
function chooseSamples(spool: SampleSpool, areHeldBack: boolean, most: number): Uint32Array {
  const { used, heldBack } = orderSamples(spool.times(), areHeldBack ? HELD_BACK_EVERY : 0);
  const sorted = areHeldBack ? heldBack : used;
  return Uint32Array.from(chooseRows(sorted.length, most, 0), (rank) => sorted[rank] as number);
}

async function readBatches(
  spool: SampleSpool,
  chosen: Uint32Array,
  inputs: GraphInputs,
  session: RunSession,
  prediction: string,
): Promise<InputBatch[]> {
  const read = async (sample: number): Promise<SampleInputs> => ({
    time: spool.time(sample),
    ...(await spool.read(sample)),
  });
  const canBatch = await runsOnTwo(session, inputs, prediction, await read(chosen[0] as number));
  const planned = planBatches(
    { used: chosen, heldBack: new Uint32Array() },
    {
      maxSamples: canBatch ? mostAtOnce(inputs) : 1,
      keyOf: (sample) => `${sharesTime(inputs) ? spool.time(sample) : ""} ${spool.layoutKey(sample)}`,
    },
  );
  const batches: InputBatch[] = [];
  for (const { samples } of planned) {
    const taken = await Promise.all(samples.map(read));
    const rows = inputs.fixedBatch ?? samples.length;
    batches.push({ times: taken.map(({ time }) => time), feeds: feedBatch(inputs, taken, rows), rows });
  }
  return batches;
}

/** Graphs traced for a single sample may fail on two, or predict for one of them alone. */
async function runsOnTwo(
  session: RunSession,
  inputs: GraphInputs,
  prediction: string,
  sample: SampleInputs,
): Promise<boolean> {
  if (inputs.fixedBatch !== null) return true;
  const lengthFor = async (rows: number) => {
    const outputs = await session.run(feedBatch(inputs, [sample], rows), [prediction]);
    return outputs[prediction]?.data.length ?? 0;
  };
  const single = await lengthFor(1);
  return (await lengthFor(2).catch(() => 0)) === 2 * single;
}

function nothingHeldBack(data: string, sampleCount: number): ArrowQuantError {
  return new ArrowQuantError(
    "E_CALIBRATION",
    `of the ${sampleCount} samples of "${data}" calibration holds none back`,
    {
      hint: "give more data",
      details: { data, sampleCount },
    },
  );
}
