/**
 * The jobs of a session: how many are under way at once, and what ends them.
 *
 * A job under way holds memory that the byte budget does not count (its plan, the row group it writes or reads), so
 * only as many are under way as the cap has room for. The others wait their turn, first come, first served.
 */
import { ByteBudget } from "./budget.js";
import { deriveSignal, type JobSignal } from "./signal.js";

/** A job under way. Disposing of it makes room for the next. */
export interface Job extends Disposable {
  /** Follows the caller's, and is aborted when the session is disposed of. */
  readonly signal: AbortSignal;
  abort(reason: unknown): void;
}

export class JobGate {
  /** Jobs that may be under way at once. */
  readonly places: number;
  readonly #free: ByteBudget;
  readonly #inside = new Set<JobSignal>();
  #closedBy: unknown = null;
  #whenEmpty: (() => void) | null = null;

  constructor(places: number) {
    this.places = places;
    this.#free = new ByteBudget(places);
  }

  /**
   * Waits for a place.
   * @throws the reason of `parent`, or what the gate was closed with
   */
  async enter(parent: AbortSignal | undefined): Promise<Job> {
    if (this.#closedBy !== null) throw this.#closedBy;
    const derived = deriveSignal(parent);
    this.#inside.add(derived);
    const leave = () => {
      derived[Symbol.dispose]();
      this.#inside.delete(derived);
      if (this.#inside.size === 0) this.#whenEmpty?.();
    };
    try {
      await this.#free.acquire(1, derived.signal);
    } catch (thrown) {
      leave();
      throw thrown;
    }
    return {
      signal: derived.signal,
      abort: derived.abort,
      [Symbol.dispose]: () => {
        this.#free.release(1);
        leave();
      },
    };
  }

  /** Aborts every job with `reason`, lets no more in, and waits until the last has cleaned up. */
  async close(reason: unknown): Promise<void> {
    this.#closedBy ??= reason;
    for (const { abort } of [...this.#inside]) abort(reason);
    if (this.#inside.size === 0) return;
    await new Promise<void>((resolve) => {
      const before = this.#whenEmpty;
      this.#whenEmpty = () => {
        before?.();
        resolve();
      };
    });
  }
}
