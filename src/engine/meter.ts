/** Turns work done into progress events: monotonic, at most ten a second, a throwing listener fails its job. */
import { ArrowQuantError } from "../errors.js";
import type { ProgressEvent, ProgressListener } from "./progress.js";
import { raceSignal } from "./signal.js";

const MIN_INTERVAL_MS = 100;

export class ProgressMeter {
  readonly #listener: ProgressListener | undefined;
  readonly #phase: ProgressEvent["phase"];
  readonly #fail: (reason: unknown) => void;
  readonly #startedAt = performance.now();
  readonly #layersTotal: number;
  readonly #bytesTotal: number;
  #layersDone = 0;
  #bytesDone = 0;
  #lastAt = -Infinity;
  /** What the listener has returned and is not settled. */
  readonly #pending = new Set<Promise<unknown>>();

  /** `fail` is called at most once per failed event, with the listener's error as cause. */
  constructor(
    phase: ProgressEvent["phase"],
    totals: { layers: number; bytes: number },
    listener: ProgressListener | undefined,
    fail: (reason: unknown) => void,
  ) {
    this.#phase = phase;
    this.#layersTotal = totals.layers;
    this.#bytesTotal = totals.bytes;
    this.#listener = listener;
    this.#fail = fail;
  }

  /** Counts bytes of a layer, or a finished layer, and tells the listener if it is time. */
  add(component: string, layer: string, byteCount: number, layerCount: number): void {
    this.#bytesDone += byteCount;
    this.#layersDone += layerCount;
    this.#tell(this.#phase, component, layer, false);
  }

  /** Tells of the end, and waits for the promises that the listener has returned: one that rejects fails the job. */
  async finish(component: string, signal: AbortSignal): Promise<void> {
    this.#tell("finish", component, "", true);
    await raceSignal(Promise.all(this.#pending), signal);
    signal.throwIfAborted();
  }

  #tell(phase: ProgressEvent["phase"], component: string, layer: string, always: boolean): void {
    if (this.#listener === undefined) return;
    const now = performance.now();
    if (!always && now - this.#lastAt < MIN_INTERVAL_MS) return;
    this.#lastAt = now;
    const elapsedSeconds = (now - this.#startedAt) / 1000;
    const left = this.#bytesTotal - this.#bytesDone;
    const event: ProgressEvent = {
      phase,
      component,
      layer,
      layersDone: this.#layersDone,
      layersTotal: this.#layersTotal,
      bytesDone: this.#bytesDone,
      bytesTotal: this.#bytesTotal,
      elapsedSeconds,
      remainingSeconds: this.#bytesDone === 0 ? null : (elapsedSeconds * left) / this.#bytesDone,
    };
    try {
      const returned: unknown = this.#listener(event);
      if (returned instanceof Promise) this.#track(returned);
    } catch (thrown) {
      this.#fail(listenerError(thrown));
    }
  }

  #track(returned: Promise<unknown>): void {
    const settled = returned
      .catch((thrown) => this.#fail(listenerError(thrown)))
      .finally(() => this.#pending.delete(settled));
    this.#pending.add(settled);
  }
}

function listenerError(thrown: unknown): ArrowQuantError {
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new ArrowQuantError("E_CALLBACK", `the progress listener threw: ${message}`, { cause: thrown });
}
