/**
 * A budget of bytes shared by all jobs of a session: first come, first served.
 *
 * A job reserves what a layer needs before it starts the layer and gives it back when the layer is written.
 * A layer once started never asks for more, so whoever holds bytes can finish, and no two jobs can wait for
 * each other.
 */
import { ArrowQuantError } from "../errors.js";

interface Waiter {
  readonly byteCount: number;
  readonly grant: () => void;
}

export class ByteBudget {
  readonly capacity: number;
  #available: number;
  readonly #waiters: Waiter[] = [];

  constructor(capacity: number) {
    this.capacity = capacity;
    this.#available = capacity;
  }

  get available(): number {
    return this.#available;
  }

  /**
   * Waits until `byteCount` bytes are free and takes them.
   * @throws E_MEMORY where they never can be; the signal's reason where it is aborted first.
   */
  async acquire(byteCount: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (byteCount > this.capacity) {
      throw new ArrowQuantError(
        "E_MEMORY",
        `a layer needs ${byteCount} bytes of buffers, the memory cap leaves ${this.capacity}`,
        { hint: "give more with --memory, or use fewer --threads", details: { byteCount, capacity: this.capacity } },
      );
    }
    if (this.#waiters.length === 0 && byteCount <= this.#available) {
      this.#available -= byteCount;
      return;
    }
    await new Promise<void>((resolve, reject) => {
      const stop = () => {
        this.#waiters.splice(this.#waiters.indexOf(waiter), 1);
        reject(signal.reason);
        this.#grantWaiting();
      };
      const waiter: Waiter = {
        byteCount,
        grant: () => {
          signal.removeEventListener("abort", stop);
          resolve();
        },
      };
      signal.addEventListener("abort", stop, { once: true });
      this.#waiters.push(waiter);
    });
  }

  release(byteCount: number): void {
    this.#available += byteCount;
    this.#grantWaiting();
  }

  #grantWaiting(): void {
    for (let next = this.#waiters[0]; next !== undefined && next.byteCount <= this.#available; ) {
      this.#available -= next.byteCount;
      this.#waiters.shift();
      next.grant();
      next = this.#waiters[0];
    }
  }
}
