/**
 * Many models on one session. Every job is looked at first, headers only: what stands already, how many bytes
 * there are in all. Then the jobs run in order, a few at a time; a job that fails fails alone.
 */
import { mkdir } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import type { ProgressEvent } from "../engine/progress.js";
import type { Session } from "../engine/session.js";
import { deriveSignal } from "../engine/signal.js";
import { ArrowQuantError, toArrowQuantError } from "../errors.js";
import { NATIVE_ENDING, planModel, quantizeModel } from "../quantize/quantize.js";
import type { QuantizeResult, Summary } from "../quantize/result.js";
import { type BatchJob, type BatchRequest, checkRequests } from "./jobs.js";
import type { BatchResult, BatchSummary, JobResult, JobStatus } from "./result.js";
import { findStandingOutput } from "./standing.js";

/** How far the whole batch is. */
export interface BatchProgress {
  readonly jobsDone: number;
  readonly jobsTotal: number;
  /** The model worked on last. */
  readonly modelPath: string;
  readonly layer: string;
  /** Source bytes of all jobs that are not skipped. */
  readonly bytesDone: number;
  readonly bytesTotal: number;
  readonly elapsedSeconds: number;
  readonly remainingSeconds: number | null;
}

export interface BatchOptions {
  /** Stop at the first job that fails. */
  readonly failFast?: boolean;
  /** Skip jobs whose output stands complete for the same source and settings; on unless `force`. */
  readonly resume?: boolean;
  /** Redo every job; replace outputs that this program did not write. */
  readonly force?: boolean;
  /** Jobs under way at a time. They share the session's threads and memory. */
  readonly concurrency?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: BatchProgress) => void;
}

/** A job after a look at its headers. */
interface SightedJob {
  readonly job: BatchJob;
  readonly outputPath: string;
  /** Source bytes to quantize; 0 where there is nothing to do or the look failed. */
  readonly bytesIn: number;
  /** Figures of an output that stands already. */
  readonly standing: Summary | null;
  /** What the look failed with: reported when the job's turn comes. */
  readonly error: unknown;
}

/** A batch as programs give it. */
export interface BatchJobOptions extends BatchOptions {
  readonly jobs: readonly BatchRequest[];
}

/**
 * Checks all jobs together, then runs them.
 * @throws E_JOB_FILE with every fault of every job; failures of jobs are results
 */
export async function runBatch({ jobs, ...options }: BatchJobOptions, session: Session): Promise<BatchResult> {
  return runJobs(await checkRequests(jobs), options, session);
}

/**
 * Runs jobs that were checked. Failures of jobs are results, not exceptions; so is an interruption.
 * @returns one result per job, in order
 */
export async function runJobs(
  jobs: readonly BatchJob[],
  options: BatchOptions,
  session: Session,
): Promise<BatchResult> {
  const startedAt = performance.now();
  using stop = deriveSignal(options.signal);
  const { signal, abort } = stop;
  const models = new Set(jobs.map(({ modelPath }) => resolve(modelPath)));
  const results: (JobResult | undefined)[] = jobs.map(() => undefined);
  const sighted: SightedJob[] = [];
  for (const job of jobs) {
    if (signal.aborted) break;
    sighted.push(await sight(job, models, options, session));
  }
  const meter = new BatchMeter(sighted, options.onProgress);
  const queue = sighted.values();
  const work = async (): Promise<void> => {
    for (const next of queue) {
      if (signal.aborted) return;
      const result = await runJob(next, options, session, signal, meter);
      results[next.job.index] = result;
      if (result.status === "failed" && options.failFast) {
        abort(new ArrowQuantError("E_JOBS", `stopped after job ${next.job.index + 1} failed`));
      }
    }
  };
  const workers = Array.from({ length: options.concurrency ?? 1 }, () => work().catch(abortWith(abort)));
  const ended = await Promise.allSettled(workers);
  for (const outcome of ended) if (outcome.status === "rejected") throw outcome.reason;
  const settled = jobs.map((job) => results[job.index] ?? notRun(job, signal.reason));
  return {
    summary: summarize(settled, (performance.now() - startedAt) / 1000),
    results: settled,
    warnings: session.warnings,
    interruption: options.signal?.aborted ? options.signal.reason : null,
  };
}

/** A fault outside of any job, e.g. of the progress listener, ends the other jobs too. */
function abortWith(abort: (reason: unknown) => void): (thrown: unknown) => never {
  return (thrown) => {
    abort(thrown);
    throw thrown;
  };
}

async function sight(
  job: BatchJob,
  models: ReadonlySet<string>,
  options: BatchOptions,
  session: Session,
): Promise<SightedJob> {
  let { outputPath } = job;
  try {
    const plan = await planModel({ input: job.modelPath, config: job.config, signal: options.signal }, session);
    if (job.addsEnding && plan.components.length === 1) outputPath += NATIVE_ENDING;
    // Not even with --force: the output was not chosen, it was made up from a model's name.
    if (job.addsEnding && models.has(resolve(outputPath))) {
      throw new ArrowQuantError("E_OUTPUT", `output ${outputPath} is one of the models`, {
        hint: "choose another --output-dir",
        details: { path: outputPath },
      });
    }
    const standing =
      options.force || options.resume === false
        ? null
        : await findStandingOutput(job.modelPath, outputPath, job.config, plan.components);
    return { job, outputPath, bytesIn: standing === null ? plan.sizes.bytesIn : 0, standing, error: null };
  } catch (error) {
    return { job, outputPath, bytesIn: 0, standing: null, error };
  }
}

async function runJob(
  { job, outputPath, standing, error }: SightedJob,
  options: BatchOptions,
  session: Session,
  signal: AbortSignal,
  meter: BatchMeter,
): Promise<JobResult> {
  const startedAt = performance.now();
  const settle = (status: JobStatus, rest: Partial<JobResult>): JobResult => ({
    index: job.index,
    modelPath: job.modelPath,
    outputPath,
    status,
    reason: null,
    summary: null,
    outputBytes: null,
    warnings: [],
    error: null,
    seconds: (performance.now() - startedAt) / 1000,
    ...rest,
  });
  if (standing !== null) {
    meter.settle(job);
    return settle("skipped", {
      reason: "stands complete for the same source and settings",
      summary: standing,
      outputBytes: standing.bytesOut,
    });
  }
  try {
    if (error !== null) throw error;
    await mkdir(dirname(resolve(outputPath)), { recursive: true });
    const result = await quantizeModel(
      {
        input: job.modelPath,
        output: outputPath,
        config: job.config,
        force: options.force ?? false,
        signal,
        onProgress: (event) => meter.update(job, event),
      },
      session,
    );
    return settle("successful", {
      summary: result.summary,
      outputBytes: result.summary.bytesOut,
      warnings: ownWarnings(result, session),
    });
  } catch (thrown) {
    if (signal.aborted) return settle("interrupted", { reason: toArrowQuantError(signal.reason).message });
    return settle("failed", { error: toArrowQuantError(thrown).toJSON() });
  } finally {
    meter.settle(job);
  }
}

/** Warnings of the session hold for all jobs and are given once. */
function ownWarnings(result: QuantizeResult, session: Session): string[] {
  return result.warnings.filter((warning) => !session.warnings.includes(warning));
}

function notRun(job: BatchJob, reason: unknown): JobResult {
  return {
    index: job.index,
    modelPath: job.modelPath,
    outputPath: job.outputPath,
    status: "not_run",
    reason: toArrowQuantError(reason).message,
    summary: null,
    outputBytes: null,
    warnings: [],
    error: null,
    seconds: 0,
  };
}

function mean(values: readonly number[]): number | null {
  return values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length;
}

function summarize(results: readonly JobResult[], totalSeconds: number): BatchSummary {
  const count = (...statuses: JobStatus[]): number => results.filter(({ status }) => statuses.includes(status)).length;
  const summaries = results.flatMap(({ summary }) => summary ?? []);
  const done = count("successful", "skipped");
  return {
    totalJobs: results.length,
    successful: count("successful"),
    failed: count("failed"),
    skipped: count("skipped"),
    notRun: count("not_run", "interrupted"),
    successRate: results.length === 0 ? 1 : done / results.length,
    totalSizeMb: results.reduce((sum, { outputBytes }) => sum + (outputBytes ?? 0), 0) / 1e6,
    avgCompressionRatio: mean(summaries.map(({ compressionRatio }) => compressionRatio)),
    avgCosineSimilarity: mean(summaries.flatMap(({ metrics }) => metrics?.cosineSimilarity ?? [])),
    totalSeconds,
  };
}

/** Adds up the progress of the jobs: monotonic, as each job's own is. */
class BatchMeter {
  readonly #jobs: ReadonlyMap<BatchJob, number>;
  readonly #done = new Map<BatchJob, number>();
  readonly #settled = new Set<BatchJob>();
  readonly #bytesTotal: number;
  readonly #startedAt = performance.now();
  readonly #listener: BatchOptions["onProgress"];

  constructor(jobs: readonly SightedJob[], listener: BatchOptions["onProgress"]) {
    this.#jobs = new Map(jobs.map(({ job, bytesIn }) => [job, bytesIn]));
    this.#bytesTotal = jobs.reduce((sum, { bytesIn }) => sum + bytesIn, 0);
    this.#listener = listener;
  }

  update(job: BatchJob, event: ProgressEvent): void {
    const bytesIn = this.#jobs.get(job) ?? 0;
    this.#done.set(job, event.bytesTotal === 0 ? 0 : (bytesIn * event.bytesDone) / event.bytesTotal);
    this.#tell(job, event.layer);
  }

  /** A job that is over, however it ended, is done with. */
  settle(job: BatchJob): void {
    this.#done.set(job, this.#jobs.get(job) ?? 0);
    this.#settled.add(job);
    this.#tell(job, "");
  }

  #tell(job: BatchJob, layer: string): void {
    if (this.#listener === undefined) return;
    const bytesDone = [...this.#done.values()].reduce((sum, bytes) => sum + bytes, 0);
    const elapsedSeconds = (performance.now() - this.#startedAt) / 1000;
    this.#listener({
      jobsDone: this.#settled.size,
      jobsTotal: this.#jobs.size,
      modelPath: job.modelPath,
      layer,
      bytesDone,
      bytesTotal: this.#bytesTotal,
      elapsedSeconds,
      remainingSeconds: bytesDone === 0 ? null : (elapsedSeconds * (this.#bytesTotal - bytesDone)) / bytesDone,
    });
  }
}
