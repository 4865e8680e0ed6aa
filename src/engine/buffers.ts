/**
 * Buffers that travel between the main thread and the workers, reused instead of allocated: a chunk's buffer is
 * sent along with its task, comes back filled, and is given back once its rows are written.
 */

/** Buffers kept for reuse at most; more are left to the garbage collector. */
const MAX_IDLE_BUFFERS = 16;

export class BufferPool {
  readonly #idle: ArrayBuffer[] = [];

  /** A buffer of at least `byteLength` bytes, contents undefined. */
  take(byteLength: number): ArrayBuffer {
    let best = -1;
    for (const [index, buffer] of this.#idle.entries()) {
      const fits = buffer.byteLength >= byteLength && buffer.byteLength <= 4 * byteLength + 65_536;
      if (fits && (best < 0 || buffer.byteLength < (this.#idle[best] as ArrayBuffer).byteLength)) best = index;
    }
    if (best >= 0) return this.#idle.splice(best, 1)[0] as ArrayBuffer;
    return new ArrayBuffer(byteLength);
  }

  give(buffer: ArrayBuffer): void {
    if (buffer.byteLength === 0) return;
    if (this.#idle.length >= MAX_IDLE_BUFFERS) this.#idle.shift();
    this.#idle.push(buffer);
  }
}
