/**
 * One pool of worker threads and one memory budget, shared by any number of jobs at once.
 *
 * The engine knows nothing of quantization: it moves tasks to threads and replies back, keeps within the cap,
 * and turns whatever happens to a thread into an error of the job that held it.
 */
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { ArrowQuantError } from "../errors.js";
import type { Replies, Reply, Task } from "../worker/messages.js";
import { ByteBudget } from "./budget.js";
import { BufferPool } from "./buffers.js";
import { JobGate } from "./jobs.js";
import { ThreadPool } from "./pool.js";

const MIB = 1024 * 1024;

/** The cap on the whole process where none is given. */
export const DEFAULT_MEMORY_BYTES = 512 * MIB;

/**
 * Node, the JavaScript heap with its garbage, the code, the row group under way. Measured (test/bench/peak-memory.mjs,
 * Node 20.20, x64 Linux) as the peak resident set of a run on a 5 MB model less its threads: 83 MiB for quantize, 136
 * for export and 145 for validate, which load parquet-wasm and apache-arrow; the rest is for garbage.
 */
const PROCESS_BYTES = 156 * MIB;

/** A worker thread's own heap and code, without its kernels' arena: 9 to 11 MiB, measured from 1 to 16 threads. */
const THREAD_BYTES = 12 * MIB;

/** Arena of a worker below which even ordinary layers would not fit: a 4 MiB chunk, its scales, a slab. */
const MIN_ARENA_BYTES = 16 * MIB;

/** What all jobs together need for chunks between reading and writing. */
const MIN_BUFFER_BYTES = 24 * MIB;

/** More than this a thread is not needed to keep the threads busy, and chunks held long leave the caches. */
const MAX_BUFFER_BYTES_PER_THREAD = 48 * MIB;

/** What a job under way holds besides its layers: the row group it writes or reads, its plan; see test/bench. */
const JOB_BYTES = 12 * MIB;

/** Heap that a tensor's plan, report and metadata take: 5.2 KiB a tensor measured between 4,000 and 30,000 of them. */
const TENSOR_BYTES = 5.5 * 1024;

/** Tensors that PROCESS_BYTES has room for; the largest public models have a few thousand. */
const FREE_TENSORS = 8000;

/** More jobs than this at once do not keep the threads any busier, they only hold files open. */
const MAX_JOBS = 32;

/** Least share of the memory for chunks and jobs that goes to more jobs at once. */
const MIN_JOBS_SHARE = 1 / 4;

/** Threads beyond this only cost memory; a guard against a slip of the keyboard. */
const MAX_THREADS = 256;

export interface SessionOptions {
  /** Worker threads, 1 … 256; by default one per core available to the process. May exceed the cores. */
  readonly threads?: number | undefined;
  /** Cap on the memory of the whole process, in bytes. */
  readonly memoryBytes?: number | undefined;
  /** Bytes a worker reads at a time, where a row is not longer. Changes speed and memory, never results. */
  readonly slabBytes?: number | undefined;
  /** Module that the threads run instead of their own. For tests of what happens when a thread dies. */
  readonly workerUrl?: URL | undefined;
}

/** Large enough for cheap reads, small enough to stay in a core's second-level cache. */
const DEFAULT_SLAB_BYTES = MIB;

export class Session {
  readonly threads: number;
  readonly memoryBytes: number;
  readonly slabBytes: number;
  /** Largest arena a worker may have under the cap. */
  readonly arenaBytes: number;
  readonly budget: ByteBudget;
  readonly buffers: BufferPool;
  readonly jobs: JobGate;
  /** What was changed about the settings to keep within the cap. */
  readonly warnings: readonly string[];
  readonly #workerUrl: URL;
  #pool: Promise<ThreadPool> | null = null;
  #disposed = false;

  /** @throws E_CONFIG for an impossible thread count, E_MEMORY where the cap is below what one thread needs. */
  constructor(options: SessionOptions = {}) {
    const asked = options.threads ?? availableParallelism();
    if (!Number.isInteger(asked) || asked < 1 || asked > MAX_THREADS) {
      throw new ArrowQuantError("E_CONFIG", `threads is ${asked}, allowed are 1 … ${MAX_THREADS}`, {
        details: { threads: asked },
      });
    }
    this.memoryBytes = options.memoryBytes ?? DEFAULT_MEMORY_BYTES;
    this.slabBytes = options.slabBytes ?? DEFAULT_SLAB_BYTES;
    this.#workerUrl = options.workerUrl ?? new URL("../worker/main.js", import.meta.url);
    const shareBytes = this.memoryBytes - PROCESS_BYTES - MIN_BUFFER_BYTES;
    const affordable = Math.floor(shareBytes / (THREAD_BYTES + MIN_ARENA_BYTES));
    if (affordable < 1) {
      const needed = leastBytes(1);
      throw new ArrowQuantError(
        "E_MEMORY",
        `memory cap is ${Math.floor(this.memoryBytes / MIB)} MiB, the least this program runs in is ${needed / MIB} MiB`,
        { hint: `--memory ${needed / MIB}MiB`, details: { memoryBytes: this.memoryBytes, neededBytes: needed } },
      );
    }
    this.threads = Math.min(asked, affordable);
    this.warnings =
      this.threads < asked
        ? [
            `${asked} threads do not fit a memory cap of ${Math.floor(this.memoryBytes / MIB)} MiB: ${this.threads} used`,
          ]
        : [];
    const { arenaBytes, bufferBytes, jobs } = divideMemory(this.memoryBytes, this.threads);
    this.arenaBytes = arenaBytes;
    this.jobs = new JobGate(jobs);
    this.budget = new ByteBudget(bufferBytes);
    this.buffers = new BufferPool(this.budget.capacity);
  }

  /** @throws E_MEMORY, with the cap that would do, where a plan of so many tensors alone would pass the cap */
  assertTensorsFit(tensorCount: number): void {
    const planBytes = Math.max(0, tensorCount - FREE_TENSORS) * TENSOR_BYTES;
    const neededBytes = leastBytes(this.threads) + planBytes;
    if (planBytes === 0 || neededBytes <= this.memoryBytes) return;
    const neededMib = Math.ceil(neededBytes / MIB);
    throw new ArrowQuantError(
      "E_MEMORY",
      `${tensorCount} tensors need a memory cap of ${neededMib} MiB, it is ${Math.floor(this.memoryBytes / MIB)} MiB`,
      { hint: `--memory ${neededMib}MiB`, details: { tensorCount, neededBytes, memoryBytes: this.memoryBytes } },
    );
  }

  /**
   * Runs a task on the next free thread. Buffers named in `transfer` are gone from this thread until the reply, and
   * for good where the task is aborted.
   * @throws the task's own error, E_WORKER where its thread died, or the signal's reason.
   */
  async run<T extends Task>(
    task: T,
    transfer: readonly ArrayBuffer[],
    signal: AbortSignal,
  ): Promise<Replies[T["kind"]]> {
    signal.throwIfAborted();
    const pool = await this.#open();
    let reply: Reply<T["kind"]>;
    try {
      reply = (await pool.run(task, transfer, signal)) as Reply<T["kind"]>;
    } catch (thrown) {
      signal.throwIfAborted();
      throw new ArrowQuantError("E_WORKER", `a worker thread died during "${task.kind}": ${String(thrown)}`, {
        hint: "usually out of memory: try a smaller --memory or fewer --threads",
        cause: thrown,
      });
    }
    signal.throwIfAborted();
    if ("error" in reply) {
      const { code, details } = reply.error;
      const { neededBytes, allowedBytes } = details as { neededBytes?: number; allowedBytes?: number };
      if (code === "E_MEMORY" && neededBytes !== undefined && allowedBytes !== undefined) {
        throw this.memoryError("a chunk", neededBytes - allowedBytes, 0);
      }
      throw ArrowQuantError.fromJSON(reply.error);
    }
    return reply.ok;
  }

  /** Waits until no thread works for this signal any more, as after an abort: files may then be closed. */
  async settle(signal: AbortSignal): Promise<void> {
    await (await this.#pool)?.settle(signal);
  }

  /**
   * E_MEMORY with the cap that would do.
   * @param arenaLack bytes that each worker's arena is too small by
   * @param bufferLack bytes that the budget is too small by
   */
  memoryError(what: string, arenaLack: number, bufferLack: number): ArrowQuantError {
    let neededBytes = this.memoryBytes;
    let divided = divideMemory(neededBytes, this.threads);
    while (
      divided.arenaBytes < this.arenaBytes + arenaLack ||
      divided.bufferBytes < this.budget.capacity + bufferLack
    ) {
      neededBytes += MIB;
      divided = divideMemory(neededBytes, this.threads);
    }
    const neededMib = Math.ceil(neededBytes / MIB);
    const memoryMib = Math.floor(this.memoryBytes / MIB);
    return new ArrowQuantError(
      "E_MEMORY",
      `${what} needs a memory cap of about ${neededMib} MiB with ${this.threads} threads, it is ${memoryMib} MiB`,
      {
        hint: `--memory ${neededMib}MiB --threads ${this.threads}, or fewer --threads`,
        details: { neededBytes, memoryBytes: this.memoryBytes, threads: this.threads },
      },
    );
  }

  /** Ends every job under way, waits until each has cleaned up, and stops the threads. */
  async dispose(): Promise<void> {
    this.#disposed = true;
    await this.jobs.close(disposedError());
    const pool = await this.#pool;
    this.#pool = null;
    await pool?.stop();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  #open(): Promise<ThreadPool> {
    if (this.#disposed) throw disposedError();
    this.#pool ??= ThreadPool.open({
      threads: this.threads,
      filename: fileURLToPath(this.#workerUrl),
      workerData: { arenaBytes: this.arenaBytes },
    });
    return this.#pool;
  }
}

interface Division {
  /** Of each thread. */
  readonly arenaBytes: number;
  readonly bufferBytes: number;
  /** At once. */
  readonly jobs: number;
}

/** The least cap that so many threads run in. */
function leastBytes(threads: number): number {
  return PROCESS_BYTES + MIN_BUFFER_BYTES + threads * (THREAD_BYTES + MIN_ARENA_BYTES);
}

/** What a cap leaves for what. */
function divideMemory(memoryBytes: number, threads: number): Division {
  const shareBytes = memoryBytes - PROCESS_BYTES - MIN_BUFFER_BYTES;
  // Half of what is left beyond the minimum goes to arenas, half to chunks under way.
  const spare = shareBytes / threads - THREAD_BYTES - MIN_ARENA_BYTES;
  const arenaBytes = Math.floor(MIN_ARENA_BYTES + Math.max(0, spare) / 2);
  const left = shareBytes - threads * (THREAD_BYTES + arenaBytes) + MIN_BUFFER_BYTES;
  // Where a single chunk is larger than what keeps the threads busy, a large cap must still have room for it.
  const mostForBuffers = Math.max(MAX_BUFFER_BYTES_PER_THREAD * threads, left / 2);
  const jobsShare = Math.max(left - mostForBuffers, left * MIN_JOBS_SHARE);
  // The first job's share is part of what the process takes.
  const moreJobs = Math.min(MAX_JOBS - 1, Math.floor(jobsShare / JOB_BYTES));
  const bufferBytes = Math.floor(Math.min(mostForBuffers, left - moreJobs * JOB_BYTES));
  return { arenaBytes, bufferBytes, jobs: 1 + moreJobs };
}

function disposedError(): ArrowQuantError {
  return new ArrowQuantError("E_USAGE", "this session has been disposed of", {
    hint: "dispose of it once its jobs are done, or make a new one",
  });
}
