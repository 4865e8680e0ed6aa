/** An unbounded first-in, first-out queue between one producer and one consumer. */
export class Queue<T> {
  readonly #items: T[] = [];
  #closed = false;
  #wake: (() => void) | null = null;

  push(item: T): void {
    this.#items.push(item);
    this.#wake?.();
  }

  /** No more items will come. */
  close(): void {
    this.#closed = true;
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    while (true) {
      const item = this.#items.shift();
      if (item !== undefined) {
        yield item;
      } else if (this.#closed) {
        return;
      } else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }
}

/**
 * Runs `start(0) … start(count − 1)` with at most `window` begun but not yet consumed, and yields results in order.
 * The first are begun at once, before anybody asks. Where one fails, those begun are waited for before the failure
 * is passed on, so that nothing runs on unseen.
 */
export function runInOrder<T>(count: number, window: number, start: (index: number) => Promise<T>): AsyncGenerator<T> {
  const begun: Promise<T>[] = [];
  let next = 0;
  const begin = (end: number) => {
    for (; next < Math.min(count, end); next++) {
      const promise = start(next);
      // Its failure is reported when its turn comes; until then it is not an unhandled one.
      promise.catch(() => undefined);
      begun.push(promise);
    }
  };
  begin(window);
  return drain();

  async function* drain(): AsyncGenerator<T> {
    try {
      for (let index = 0; index < count; index++) {
        begin(index + window);
        yield await (begun.shift() as Promise<T>);
      }
    } finally {
      await Promise.allSettled(begun);
    }
  }
}
