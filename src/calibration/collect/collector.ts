/** The statistics threads, seen from the main thread: what they are given, and how much of it is under way. */
import { Worker } from "node:worker_threads";
import { ArrowQuantError } from "../../errors.js";
import type { NumberedRequest, Reply, Request, ThreadSettings } from "./message.js";

/** A thread's own heap; values lie outside of it. */
const THREAD_HEAP_MB = 64;

interface Pending {
  readonly resolve: () => void;
  readonly reject: (reason: unknown) => void;
}

class StatisticsThread {
  readonly #worker: Worker;
  readonly #pending = new Map<number, Pending>();
  #next = 0;
  #failure: unknown = null;

  constructor(settings: ThreadSettings) {
    this.#worker = new Worker(new URL("./thread.js", import.meta.url), {
      workerData: settings,
      resourceLimits: { maxOldGenerationSizeMb: THREAD_HEAP_MB, maxYoungGenerationSizeMb: 4 },
    });
    this.#worker.on("message", ({ id, error }: Reply) => {
      const pending = this.#pending.get(id);
      this.#pending.delete(id);
      if (error === null) pending?.resolve();
      else pending?.reject(ArrowQuantError.fromJSON(error));
    });
    this.#worker.on("error", (thrown) => this.#fail(thrown));
    this.#worker.on("exit", (code) => this.#fail(new Error(`it ended with code ${code}`)));
  }

  /** Resolves once the thread has done it. @throws its error, E_WORKER where it died */
  send(request: Request, transfer: readonly ArrayBuffer[]): Promise<void> {
    if (this.#failure !== null) return Promise.reject(this.#failure);
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      this.#worker.postMessage({ id, request } satisfies NumberedRequest, [...transfer]);
    });
  }

  async end(): Promise<void> {
    await this.#worker.terminate();
  }

  #fail(cause: unknown): void {
    this.#failure ??= new ArrowQuantError("E_WORKER", `a statistics thread died: ${String(cause)}`, {
      hint: "usually out of memory: try a smaller --memory or fewer --threads",
      cause,
    });
    for (const { reject } of this.#pending.values()) reject(this.#failure);
    this.#pending.clear();
  }
}

export class Collector implements AsyncDisposable {
  readonly #threads: readonly StatisticsThread[];
  /** Bytes of values that may be under way. */
  readonly #maxBytes: number;
  #bytes = 0;
  #wake: (() => void) | null = null;
  /** What went wrong first; told to whoever asks next. */
  #failure: { readonly reason: unknown } | null = null;

  constructor(threadCount: number, maxBytes: number, settings: ThreadSettings) {
    this.#threads = Array.from({ length: threadCount }, () => new StatisticsThread(settings));
    this.#maxBytes = maxBytes;
  }

  /** Sends a thread something that takes no memory to speak of, and waits until it is done. */
  async call(thread: number, request: Exclude<Request, { kind: "add" }>): Promise<void> {
    this.#throwFailure();
    await this.#threadAt(thread).send(request, []);
  }

  /** Sends a thread a value, which is moved there. What goes wrong with it is thrown by a later call. */
  add(thread: number, request: Extract<Request, { kind: "add" }>): void {
    const { byteLength, buffer } = request.data;
    this.#bytes += byteLength;
    this.#threadAt(thread)
      .send(request, [buffer as ArrayBuffer])
      .catch((reason: unknown) => {
        this.#failure ??= { reason };
      })
      .finally(() => {
        this.#bytes -= byteLength;
        this.#wake?.();
      });
  }

  /** Waits until so many more bytes may be under way; where there are none, any number may. */
  async waitForRoom(byteLength: number, signal: AbortSignal): Promise<void> {
    await this.#waitUntil(() => this.#bytes === 0 || this.#bytes + byteLength <= this.#maxBytes, signal);
  }

  /** Waits until everything added is done. */
  async drain(signal: AbortSignal): Promise<void> {
    await this.#waitUntil(() => this.#bytes === 0, signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.end()));
  }

  async #waitUntil(isTrue: () => boolean, signal: AbortSignal): Promise<void> {
    const wake = () => this.#wake?.();
    signal.addEventListener("abort", wake);
    try {
      for (;;) {
        signal.throwIfAborted();
        this.#throwFailure();
        if (isTrue()) return;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    } finally {
      signal.removeEventListener("abort", wake);
    }
  }

  #throwFailure(): void {
    if (this.#failure !== null) throw this.#failure.reason;
  }

  #threadAt(index: number): StatisticsThread {
    return this.#threads[index] as StatisticsThread;
  }
}
