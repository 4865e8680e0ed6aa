/** Where calibration samples come from, and how they get into the spool. */
import { ArrowQuantError } from "../errors.js";
import type { GraphRoles } from "../graph/roles.js";
import type { RunSession } from "../runtime/runtime.js";
import { createScheduler } from "../sampler/schedulers.js";
import type { Component } from "../tensor/info.js";
import { countElements } from "../tensor/layout.js";
import type { CalibrateJob } from "./calibration-job.js";
import { openCalibrationData } from "./data/data.js";
import { hubOf } from "./data/location.js";
import type { Rejection } from "./data/rejections.js";
import type { GraphInputs } from "./graph-inputs.js";
import { countClasses, readModelConfig, settleShape } from "./model-facts.js";
import { planTrajectories, spoolTrajectories } from "./sampling.js";
import { openScheduler, setUpSampling } from "./sampling-setup.js";
import type { SampleSpool } from "./spool.js";
import type { SourceInfo } from "./statistics-info.js";
import { spoolRandom } from "./synthetic.js";
import type { TimeRange } from "./time-bins.js";

export interface FillJob {
  readonly spool: SampleSpool;
  /** The graph as it is; closed by who opens it. */
  readonly openGraph: () => Promise<RunSession>;
  readonly signal: AbortSignal;
  /** Runs of the graph on one sample, and bytes of their inputs, since the last call. */
  readonly onRun: (text: string, runs: number, bytes: number) => void;
}

export interface SampleSource {
  /** Everything that the samples depend on, as plain JSON. */
  readonly key: Readonly<Record<string, unknown>>;
  readonly label: string;
  /** Times that the scheduler knows; null: there is none. */
  readonly timeRange: TimeRange | null;
  /** Of the runs that filling takes. */
  readonly totals: { readonly layers: number; readonly bytes: number };
  readonly warnings: readonly string[];
  /** Malformed rows met while filling. */
  readonly rejected: () => readonly Rejection[];
  /** Fills the spool; what the file is to say of the source. */
  readonly fill: (job: FillJob) => Promise<SourceInfo>;
}

export interface SourceRequest {
  readonly job: CalibrateJob;
  readonly kind: "sampling" | "synthetic" | "data";
  readonly component: Component;
  readonly inputs: GraphInputs;
  readonly roles: GraphRoles;
  /** null: the model has none. */
  readonly schedulerConfig: unknown;
  readonly signal: AbortSignal;
}

const OPENERS: Readonly<
  Record<SourceRequest["kind"], (request: SourceRequest) => SampleSource | Promise<SampleSource>>
> = {
  sampling: openSampling,
  synthetic: openSynthetic,
  data: openData,
};

/** @throws E_CALIBRATION, E_SCHEDULER, and what opening data throws */
export async function openSamples(request: SourceRequest): Promise<SampleSource> {
  return OPENERS[request.kind](request);
}

const NO_RUNS = { totals: { layers: 0, bytes: 0 }, rejected: () => [] } as const;

function openSampling(request: SourceRequest): SampleSource {
  const { job, inputs, roles, component, schedulerConfig } = request;
  const { steps, seed, samples: sampleCount } = job;
  const dataHint = "give calibration data, --calibration DATA, or random inputs: --calibration synthetic";
  const noScheduler = `there is no scheduler_config.json with "${job.input}" to sample by`;
  const missingScheduler = new ArrowQuantError("E_CALIBRATION", noScheduler, {
    hint: "give the pipeline's folder, or calibration data: --calibration DATA",
    details: { input: job.input },
  });
  const setup = { component, graph: inputs, roles, schedulerConfig, missingScheduler, steps, seed, dataHint };
  const { denoiser, scheduler, warnings } = setUpSampling(setup);
  const { sampleShape, classCount } = denoiser;
  const { trajectories, runs } = planTrajectories(scheduler, sampleCount);
  const bytesPerRun = 4 * countElements(sampleShape);
  return {
    key: { kind: "sampling", scheduler: schedulerConfig, steps, seed, classCount, sampleShape },
    label: `sampling: ${trajectories} trajectories of ${steps} steps, ${scheduler.name}, seed ${seed}`,
    timeRange: scheduler.timeRange,
    totals: { layers: runs, bytes: runs * bytesPerRun },
    warnings,
    rejected: () => [],
    fill: async ({ spool, openGraph, signal, onRun }) => {
      const session = await openGraph();
      try {
        await spoolTrajectories(
          {
            ...denoiser,
            session,
            scheduler,
            sampleCount,
            signal,
            onRun: (count) => onRun("sampling", count, count * bytesPerRun),
          },
          spool,
        );
      } finally {
        await session.close();
      }
      return { kind: "sampling", scheduler: scheduler.name, steps, seed, trajectories, classes: classCount };
    },
  };
}

function openSynthetic(request: SourceRequest): SampleSource {
  const { job, inputs, component, schedulerConfig } = request;
  const config = readModelConfig(component);
  const shapes = new Map(inputs.inputs.map((input) => [input.name, settleShape(input, config)]));
  const scheduler = schedulerConfig === null ? null : openScheduler(schedulerConfig, job.steps, [], undefined);
  const classCount = countClasses(config);
  const { seed, samples: sampleCount } = job;
  return {
    ...NO_RUNS,
    key: {
      kind: "synthetic",
      scheduler: schedulerConfig,
      steps: job.steps,
      seed,
      classCount,
      shapes: Object.fromEntries(shapes),
    },
    label: `synthetic: random inputs, seed ${seed}, not what the model meets when it samples`,
    timeRange: scheduler?.timeRange ?? null,
    warnings: ["synthetic inputs are random: ranges and importances are not those of real samples"],
    fill: async ({ spool, signal }) => {
      await spoolRandom({ graph: inputs, shapes, scheduler, classCount, sampleCount, seed, signal }, spool);
      return { kind: "synthetic", seed };
    },
  };
}

async function openData({ job, inputs, schedulerConfig, signal }: SourceRequest): Promise<SampleSource> {
  // Only its range is used, which is the same for any number of steps; a scheduler that is not known has none.
  const timeRange = schedulerConfig === null ? null : knownRange(schedulerConfig);
  const data = await openCalibrationData(
    job.source,
    { inputs: inputs.inputs.map(({ role, name, dtype, shape }) => ({ role, name, dtype, shape })) },
    {
      limit: job.samples,
      ...(job.maxRejected === undefined ? {} : { maxRejected: job.maxRejected }),
      timeRange,
      signal,
      cacheFolder: job.cacheFolder,
      hub: hubOf(process.env),
    },
  );
  const { kind, location, fingerprint } = data.source;
  return {
    ...NO_RUNS,
    key: { kind: "data", fingerprint, timeRange },
    label: `data ${location} (${kind}, ${data.selection})`,
    timeRange,
    warnings: [],
    rejected: () => data.rejected,
    fill: async ({ spool }) => {
      for await (const sample of data.samples) {
        signal.throwIfAborted();
        await spool.append(sample);
      }
      return { kind: "data", fingerprint: spool.fingerprint() };
    },
  };
}

/** The scheduler's range; null where the scheduler is none that is known: times are then taken as they are. */
function knownRange(config: unknown): TimeRange | null {
  try {
    return createScheduler(config, 2, { mu: 1 }).timeRange;
  } catch (thrown) {
    if (thrown instanceof ArrowQuantError && thrown.code === "E_SCHEDULER") return null;
    throw thrown;
  }
}
