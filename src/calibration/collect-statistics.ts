/** Runs the graph over all samples and lets the threads take statistics of what flows through it. */
import { ProgressMeter } from "../engine/meter.js";
import type { ProgressListener } from "../engine/progress.js";
import type { Session } from "../engine/session.js";
import type { OnnxFile } from "../formats/onnx/read.js";
import type { RunSession, Runtime } from "../runtime/runtime.js";
import { mostAtOnce, planBatches, type SampleBatch, sharesTime } from "./batches.js";
import { Collector } from "./collect/collector.js";
import type { UnitSpec } from "./collect/message.js";
import { sendBatch } from "./dispatch.js";
import { ExposableGraph } from "./expose.js";
import { type ProbedLayout, probeExtents } from "./extents.js";
import { feedBatch, type GraphInputs, type SampleInputs } from "./graph-inputs.js";
import { type Pass, planPasses } from "./passes.js";
import type { SampleSpool } from "./spool.js";
import type { StatisticsInfo, TimeBin } from "./statistics-info.js";
import { StatisticsWriter } from "./statistics-writer.js";
import type { SampleOrder } from "./time-bins.js";
import type { CalibrationValue } from "./values.js";
import { describeValue, type ExtentsOf, inputExtents, type PlannedValue, planValues } from "./work-plan.js";

export interface CollectJob {
  readonly session: Session;
  readonly runtime: Runtime;
  readonly file: OnnxFile;
  readonly inputs: GraphInputs;
  readonly values: readonly CalibrationValue[];
  readonly spool: SampleSpool;
  readonly order: SampleOrder;
  readonly bins: readonly TimeBin[];
  readonly wantsHessians: boolean;
  /** A folder for graphs, which must be there. */
  readonly workFolder: string;
  readonly outputPath: string;
  /** The file's info but for the values. */
  readonly info: Omit<StatisticsInfo, "values">;
  readonly signal: AbortSignal;
  readonly abort: (reason: unknown) => void;
  readonly onProgress: ProgressListener | undefined;
}

/** Of the bytes for values under way, half are those of the batch that is being run. */
const BATCHES_UNDER_WAY = 2;

export interface Collected {
  readonly info: StatisticsInfo;
  readonly passCount: number;
  readonly batchCount: number;
  /** Values whose Hessian there was no memory for. */
  readonly refusedCount: number;
}

/** @throws E_NONFINITE, E_MEMORY, E_GRAPH, E_WRITE, E_WORKER, the signal's reason */
export async function collectStatistics(job: CollectJob): Promise<Collected> {
  const { session, runtime, values, spool, order, signal } = job;
  const graph = await ExposableGraph.create(job.file, job.workFolder);
  const layouts = await probeExtents({
    runtime,
    graph,
    values,
    inputs: job.inputs,
    samples: await firstOfEachLayout(spool),
    signal,
  });
  // Half is left to jobs beside this one.
  const transferBytes = Math.floor(session.budget.capacity / 2);
  const extentsOf = (batch: SampleBatch) => layoutOf(batch.samples[0] as number, job, layouts).extents;
  const batches = planBatches(order, {
    maxSamples: batchSize(job, layouts, transferBytes / BATCHES_UNDER_WAY),
    keyOf: batchKeys(job),
  });
  const planned = planValues({
    values,
    batches,
    extentsOf,
    order,
    wantsHessians: job.wantsHessians,
    timeOf: (sample) => spool.time(sample),
  });
  const { passes, refused } = planPasses(planned, {
    threadCount: session.threads,
    arenaBytes: session.arenaBytes,
    batchBytes: transferBytes / BATCHES_UNDER_WAY,
  });
  const info: StatisticsInfo = {
    ...job.info,
    values: Object.fromEntries(planned.map((work, index) => [work.value.key, describeValue(work, refused.get(index))])),
  };
  await session.budget.acquire(transferBytes, signal);
  try {
    const writer = await StatisticsWriter.create(job.outputPath, info);
    try {
      await writeHeldBackTimes(writer, planned);
      await runPasses({ ...job, graph, passes, planned, batches, extentsOf, writer, transferBytes });
      await writer.finish();
    } finally {
      await writer.close();
    }
  } finally {
    session.budget.release(transferBytes);
  }
  return { info, passCount: passes.length, batchCount: batches.length, refusedCount: refused.size };
}

interface RunJob extends CollectJob {
  readonly graph: ExposableGraph;
  readonly passes: readonly Pass[];
  readonly planned: readonly PlannedValue[];
  readonly batches: readonly SampleBatch[];
  readonly extentsOf: ExtentsOf;
  readonly writer: StatisticsWriter;
  readonly transferBytes: number;
}

async function runPasses(job: RunJob): Promise<void> {
  const { session, spool, passes, batches, signal, onProgress, abort } = job;
  const sampleCount = batches.reduce((sum, { samples }) => sum + samples.length, 0);
  const sampleBytes = spool.byteLength / spool.count;
  const meter = new ProgressMeter(
    "calibrate",
    { layers: passes.length * sampleCount, bytes: passes.length * sampleCount * sampleBytes },
    onProgress,
    abort,
  );
  const component = job.info.component;
  await using collector = new Collector(threadsUsed(passes), job.transferBytes, {
    arenaBytes: session.arenaBytes,
    outputPath: job.outputPath,
  });
  for (const [index, pass] of passes.entries()) {
    const text = `pass ${index + 1} of ${passes.length}`;
    await runPass(job, pass, collector, ({ samples }) => {
      meter.add(component, text, samples.length * sampleBytes, samples.length);
    });
  }
  await meter.finish(component, signal);
}

async function runPass(
  job: RunJob,
  pass: Pass,
  collector: Collector,
  onBatch: (batch: SampleBatch) => void,
): Promise<void> {
  const { planned, batches, inputs, session, runtime, signal } = job;
  const works = [...new Set(pass.threads.flat().map(({ work }) => work))].map((work) => planned[work] as PlannedValue);
  const { path, exposed } = await job.graph.writeValues(works.map(({ value }) => value));
  const run: RunSession = await runtime.open(path, { threads: session.threads });
  try {
    await Promise.all(
      pass.threads.map((units, thread) => {
        const specs = units.map(
          ({ shape }): UnitSpec => ({ ...shape, byteOffsets: job.writer.byteOffsetsOf(shape.key) }),
        );
        return units.length === 0 ? null : collector.call(thread, { kind: "open", units: specs });
      }),
    );
    for (const batch of batches) {
      signal.throwIfAborted();
      const samples = await Promise.all(batch.samples.map((sample) => readSample(job.spool, sample)));
      const rows = inputs.fixedBatch ?? samples.length;
      await collector.waitForRoom(job.transferBytes / BATCHES_UNDER_WAY, signal);
      const results = await run.run(
        feedBatch(inputs, samples, rows),
        exposed.map(({ output }) => output),
      );
      sendBatch({ ...job, pass, collector, exposed }, { batch, rows, results });
      onBatch(batch);
    }
    await collector.drain(signal);
    await Promise.all(
      pass.threads.map((units, thread) => (units.length === 0 ? null : collector.call(thread, { kind: "close" }))),
    );
  } finally {
    await run.close();
  }
}

async function readSample(spool: SampleSpool, sample: number): Promise<SampleInputs> {
  return { time: spool.time(sample), ...(await spool.read(sample)) };
}

async function firstOfEachLayout(spool: SampleSpool): Promise<Map<string, SampleInputs>> {
  const samples = new Map<string, SampleInputs>();
  for (let sample = 0; sample < spool.count; sample++) {
    const key = spool.layoutKey(sample);
    if (!samples.has(key)) samples.set(key, await readSample(spool, sample));
  }
  return samples;
}

function layoutOf(sample: number, { spool }: CollectJob, layouts: ReadonlyMap<string, ProbedLayout>): ProbedLayout {
  return layouts.get(spool.layoutKey(sample)) as ProbedLayout;
}

/** As many samples as the graph takes at once, and as leave room for any single value of theirs. */
function batchSize(
  { inputs, values }: CollectJob,
  layouts: ReadonlyMap<string, ProbedLayout>,
  batchBytes: number,
): number {
  if (inputs.fixedBatch !== null) return inputs.fixedBatch;
  if ([...layouts.values()].some(({ canBatch }) => !canBatch)) return 1;
  const largest = [...layouts.values()].reduce(
    (most, { extents }) =>
      values.reduce((sum, value) => {
        const elements = inputExtents(value, extents).reduce((total, { elementCount }) => total + elementCount, 0);
        return Math.max(sum, elements);
      }, most),
    1,
  );
  return Math.min(mostAtOnce(inputs), Math.max(1, Math.floor(batchBytes / (4 * largest))));
}

/**
 * What samples of a batch must have in common: shapes, the time where the graph takes one for all, and the time bin
 * where a layer is used several times, as its accumulators are given one of its inputs after the other.
 */
function batchKeys({ inputs, values, spool, order, bins }: CollectJob): (sample: number) => string {
  const isTimeShared = sharesTime(inputs);
  const binOf = new Map<number, number>();
  if (values.some((value) => value.inputs.length > 1)) {
    const binOfRank = bins.flatMap(({ count }, bin) => Array.from({ length: count }, () => bin));
    for (const [rank, sample] of order.used.entries()) binOf.set(sample, binOfRank[rank] as number);
  }
  return (sample) => `${isTimeShared ? spool.time(sample) : ""} ${binOf.get(sample) ?? ""} ${spool.layoutKey(sample)}`;
}

function threadsUsed(passes: readonly Pass[]): number {
  return passes.reduce((most, { threads }) => Math.max(most, threads.findLastIndex(({ length }) => length > 0) + 1), 1);
}

async function writeHeldBackTimes(writer: StatisticsWriter, planned: readonly PlannedValue[]): Promise<void> {
  for (const { value, heldBackTimes } of planned) {
    if (heldBackTimes.length > 0) await writer.write(value.key, "heldback_time", heldBackTimes);
  }
}
