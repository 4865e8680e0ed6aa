/** What a batch answers. */
import type { SerializedError } from "../errors.js";
import type { Summary } from "../quantize/result.js";

/**
 * - `skipped`: the output already stood complete for the same source and settings.
 * - `not_run`: the batch stopped before the job's turn (fail-fast, a signal).
 * - `interrupted`: the job was running when a signal came; it left no output.
 */
export type JobStatus = "successful" | "failed" | "skipped" | "interrupted" | "not_run";

export interface JobResult {
  /** Position in the job list, from 0. */
  readonly index: number;
  readonly modelPath: string;
  readonly outputPath: string;
  readonly status: JobStatus;
  /** Why it was skipped or not run; null otherwise. */
  readonly reason: string | null;
  /** Of successful jobs; of skipped ones as their file says it. */
  readonly summary: Summary | null;
  /** Bytes of the output on disk, of successful and skipped jobs. */
  readonly outputBytes: number | null;
  readonly warnings: readonly string[];
  readonly error: SerializedError | null;
  readonly seconds: number;
}

export interface BatchSummary {
  readonly totalJobs: number;
  readonly successful: number;
  readonly failed: number;
  readonly skipped: number;
  /** Jobs that a signal or fail-fast kept from running to their end. */
  readonly notRun: number;
  /** (successful + skipped) / total, 0 … 1. */
  readonly successRate: number;
  /** Outputs of successful and skipped jobs, in MB of 10^6 bytes. */
  readonly totalSizeMb: number;
  /** Means over the successful and skipped jobs; null without any. */
  readonly avgCompressionRatio: number | null;
  readonly avgCosineSimilarity: number | null;
  readonly totalSeconds: number;
}

export interface BatchResult {
  readonly summary: BatchSummary;
  /** One per job, in the order of the job list. */
  readonly results: readonly JobResult[];
  readonly warnings: readonly string[];
  /** The reason of the signal that stopped the batch; null where none did. */
  readonly interruption: unknown;
}
