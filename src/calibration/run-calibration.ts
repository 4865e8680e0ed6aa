/** Statistics by running the model: on data, on what it makes itself of noise, or on random inputs. */
import { join } from "node:path";
import { ProgressMeter } from "../engine/meter.js";
import type { ProgressListener } from "../engine/progress.js";
import type { Session } from "../engine/session.js";
import { fingerprintComponent } from "../formats/fingerprint.js";
import { type OnnxFile, readOnnx } from "../formats/onnx/read.js";
import { requireGraph } from "../graph/locate.js";
import { matchGraph } from "../graph/match.js";
import { type GraphRoles, inferRoles } from "../graph/roles.js";
import { listInputs } from "../graph/value.js";
import { loadRuntime } from "../runtime/runtime.js";
import type { Component } from "../tensor/info.js";
import type { CalibrateJob, CalibrationPlace } from "./calibration-job.js";
import { collectStatistics } from "./collect-statistics.js";
import type { Rejection } from "./data/rejections.js";
import { describeInputs, type GraphInputs } from "./graph-inputs.js";
import { findSchedulerConfig } from "./model-facts.js";
import { openSamples, type SampleSource } from "./sample-source.js";
import { SampleSpool } from "./spool.js";
import type { StatisticsInfo } from "./statistics-info.js";
import { MAX_TIME_BINS } from "./statistics-info.js";
import { binTimes, findTimeRange, orderSamples } from "./time-bins.js";
import { listValues } from "./values.js";

/** A calibration that is known well enough to look it up in the cache; nothing was run. */
export interface PreparedRun {
  readonly file: OnnxFile;
  readonly graphFingerprint: string;
  readonly roles: GraphRoles;
  /** Inputs by role, as plain JSON. */
  readonly rolesKey: Readonly<Record<string, unknown>>;
  readonly inputs: GraphInputs;
  readonly source: SampleSource;
  readonly sourceKey: Readonly<Record<string, unknown>>;
  readonly label: string;
  readonly warnings: readonly string[];
  readonly rejected: () => readonly Rejection[];
}

/** @throws E_GRAPH where there is no graph or it is another model's, E_CALIBRATION, E_SCHEDULER */
export async function prepareRun(request: {
  readonly job: CalibrateJob;
  readonly kind: "sampling" | "synthetic" | "data";
  readonly component: Component;
  readonly signal: AbortSignal;
}): Promise<PreparedRun> {
  const { job, kind, component, signal } = request;
  const path = await requireGraph(job.input, job.graph);
  const file = await readOnnx(path);
  const roles = inferRoles(file, job.roles);
  const inputs = describeInputs(listInputs(file), roles);
  const schedulerConfig = await findSchedulerConfig(job.input, path);
  const source = await openSamples({ job, kind, component, inputs, roles, schedulerConfig, signal });
  const { sample, time, classLabels, encoderStates, others } = roles;
  return {
    file,
    graphFingerprint: await fingerprintComponent({ files: file.files }),
    roles,
    rolesKey: { sample, time, classLabels, encoderStates, others },
    inputs,
    source,
    sourceKey: source.key,
    label: source.label,
    warnings: source.warnings,
    rejected: source.rejected,
  };
}

export interface TakeJob extends CalibrationPlace {
  readonly run: PreparedRun;
  readonly session: Session;
  readonly component: Component;
  readonly modelFingerprint: string;
  readonly settings: StatisticsInfo["settings"];
  readonly seed: number;
  /** A folder for what is gone afterwards. */
  readonly workFolder: string;
  readonly outputPath: string;
  readonly onProgress: ProgressListener | undefined;
}

export interface TakenStatistics {
  readonly warnings: readonly string[];
  /** Values whose Hessian there was no memory for. */
  readonly refusedCount: number;
}

/** Runs the model and writes the statistics file. */
export async function takeStatistics(job: TakeJob): Promise<TakenStatistics> {
  const { run, session, component, workFolder, signal } = job;
  const match = await matchGraph(run.file, component);
  const { values, layers } = listValues(run.file, match);
  const runtime = await loadRuntime();
  const spool = await SampleSpool.create(join(workFolder, "samples"));
  try {
    const meter = new ProgressMeter("sample", run.source.totals, job.onProgress, job.abort);
    const source = await run.source.fill({
      spool,
      openGraph: () => runtime.open(run.file.path, { threads: session.threads }),
      signal,
      onRun: (text, runs, bytes) => meter.add(component.name, text, bytes, runs),
    });
    await spool.flush();
    const times = spool.times();
    const order = orderSamples(times, job.settings.heldBackEvery);
    const timesOf = (samples: Uint32Array) => Float64Array.from(samples, (sample) => times[sample] as number);
    const range = findTimeRange(timesOf(Uint32Array.from(times.keys())).sort(), run.source.timeRange);
    const bins = binTimes(timesOf(order.used), range, MAX_TIME_BINS);
    const collected = await collectStatistics({
      session,
      runtime,
      file: run.file,
      inputs: run.inputs,
      values,
      spool,
      order,
      bins,
      wantsHessians: job.settings.hessians,
      workFolder,
      outputPath: job.outputPath,
      info: {
        source,
        component: component.name,
        modelFingerprint: job.modelFingerprint,
        graph: { fingerprint: run.graphFingerprint, byteLength: graphBytes(run.file) },
        settings: job.settings,
        sampleCount: spool.count,
        heldBackCount: order.heldBack.length,
        time: { input: run.roles.time, ...range, bins },
        secondMomentsOnly: false,
        layers,
        unmatched: [...match.unmatched],
      },
      signal,
      abort: job.abort,
      onProgress: job.onProgress,
    });
    return {
      refusedCount: collected.refusedCount,
      warnings: [
        ...(job.settings.heldBackEvery > 0 && order.heldBack.length === 0
          ? [`${spool.count} samples are too few to hold any back: nothing is left to measure by`]
          : []),
        ...(collected.refusedCount > 0
          ? [`${collected.refusedCount} Hessians did not fit the memory and were not taken: raise --memory`]
          : []),
        ...memoryWarnings(run.file, session),
      ],
    };
  } finally {
    await spool.close();
  }
}

function graphBytes({ files }: OnnxFile): number {
  return files.reduce((sum, { byteLength }) => sum + byteLength, 0);
}

/** The cap is on this program; what the runtime holds of the model comes on top. */
function memoryWarnings(file: OnnxFile, { memoryBytes }: Session): string[] {
  const mib = (bytes: number) => Math.round(bytes / 1024 ** 2);
  const bytes = graphBytes(file);
  if (bytes <= memoryBytes / 2) return [];
  return [
    `ONNX Runtime held the model's ${mib(bytes)} MiB and its activations beside the memory cap of ${mib(memoryBytes)} MiB`,
  ];
}
