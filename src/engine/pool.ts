/**
 * The threads of a session. None is ever stopped while it loads or works: Node does not promise to survive that
 * (worker_threads, on worker.terminate), and a thread that is stopped while it loads its modules aborts the whole
 * process. A task is cancelled by a flag that its thread looks at between slabs, and threads are stopped idle.
 */
import type { Worker } from "node:worker_threads";
import type { Piscina } from "piscina";
import type { CancelFlag } from "../worker/cancel.js";
import type { Task } from "../worker/messages.js";
import { ByteBudget } from "./budget.js";

export interface PoolOptions {
  readonly threads: number;
  /** Module that the threads run. */
  readonly filename: string;
  readonly workerData: unknown;
}

/** The tasks of one job. */
interface JobTasks {
  readonly cancelled: CancelFlag;
  readonly atWork: Set<Promise<unknown>>;
}

export class ThreadPool {
  readonly #pool: Piscina;
  /** Tasks wait here for a thread, where they can be dropped, and not in the pool, where they cannot. */
  readonly #idle: ByteBudget;
  readonly #jobs = new WeakMap<AbortSignal, JobTasks>();
  /** Those who wait for a reply. */
  readonly #waiting = new Set<(reason: unknown) => void>();
  readonly #known = new WeakSet<Worker>();
  /** Threads that have not loaded their modules yet. */
  readonly #loading = new Set<Promise<void>>();

  static async open({ threads, filename, workerData }: PoolOptions): Promise<ThreadPool> {
    const { Piscina } = await import("piscina");
    const pool = new Piscina({
      filename,
      minThreads: threads,
      maxThreads: threads,
      // A worker's young generation otherwise grows to tens of megabytes that the cap does not know of.
      resourceLimits: { maxYoungGenerationSizeMb: 4, maxOldGenerationSizeMb: 64 },
      workerData,
    });
    return new ThreadPool(pool, threads);
  }

  private constructor(pool: Piscina, threads: number) {
    this.#pool = pool;
    this.#idle = new ByteBudget(threads);
    this.#watchThreads();
    // The pool reports here what belongs to no task: threads that die before they take one. Where none is left,
    // nobody would ever answer.
    pool.on("error", (thrown: unknown) => {
      if (pool.threads.length === 0) for (const reject of this.#waiting) reject(thrown);
    });
  }

  /**
   * Runs a task on the next free thread. Once a thread has it, the promise settles only when the thread is done with
   * it, aborted or not: until then the thread may read from the task's files.
   * @throws the signal's reason where no thread has taken the task yet, or what the thread died of
   */
  async run(task: Task, transfer: readonly ArrayBuffer[], signal: AbortSignal): Promise<unknown> {
    await this.#idle.acquire(1, signal);
    try {
      // It may have been aborted since it was granted a thread.
      signal.throwIfAborted();
      const { cancelled, atWork } = this.#jobOf(signal);
      const reply = this.#send({ ...task, cancelled }, transfer);
      atWork.add(reply);
      return await reply.finally(() => atWork.delete(reply));
    } finally {
      this.#idle.release(1);
    }
  }

  /** Waits until no thread has a task that was given with this signal. */
  async settle(signal: AbortSignal): Promise<void> {
    await Promise.allSettled(this.#jobs.get(signal)?.atWork ?? []);
  }

  /** Stops the threads; no task may be at work. */
  async stop(): Promise<void> {
    while (this.#loading.size > 0) await Promise.all(this.#loading);
    await this.#pool.destroy();
  }

  #send(message: object, transferList: readonly ArrayBuffer[]): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#waiting.add(reject);
      const running = this.#pool.run(message, { transferList: [...transferList] });
      running.then(resolve, reject).finally(() => this.#waiting.delete(reject));
    });
  }

  #jobOf(signal: AbortSignal): JobTasks {
    let job = this.#jobs.get(signal);
    if (job === undefined) {
      const cancelled = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
      signal.addEventListener("abort", () => Atomics.store(cancelled, 0, 1), { once: true });
      job = { cancelled, atWork: new Set() };
      this.#jobs.set(signal, job);
    }
    return job;
  }

  /** Notes which threads are loading; again whenever one dies, since the pool has then replaced it. */
  #watchThreads(): void {
    for (const thread of this.#pool.threads) {
      if (this.#known.has(thread)) continue;
      this.#known.add(thread);
      // The process, too, must not end meanwhile of itself: that stops its threads.
      thread.ref();
      const loaded = new Promise<void>((resolve) => {
        // The first message of a thread, to the pool, is that it is ready.
        thread.once("message", () => {
          thread.unref();
          resolve();
        });
        for (const event of ["error", "exit"]) {
          thread.once(event, () => {
            this.#watchThreads();
            resolve();
          });
        }
      });
      this.#loading.add(loaded);
      void loaded.then(() => this.#loading.delete(loaded));
    }
  }
}
