/**
 * Buffers that travel between the main thread and the workers, reused instead of allocated: a chunk's buffer is
 * sent along with its task, comes back filled, and is given back once its rows are written.
 */

/** A buffer serves a request that is at most this many times smaller, or small anyway. */
const MAX_SLACK_FACTOR = 4;
const SMALL_BYTES = 64 * 1024;

export class BufferPool {
  /** Idle buffers are kept up to this many bytes; the rest is left to the garbage collector. */
  readonly #maxIdleBytes: number;
  readonly #idle: ArrayBuffer[] = [];
  #idleBytes = 0;

  constructor(maxIdleBytes: number) {
    this.#maxIdleBytes = maxIdleBytes;
  }

  /** A buffer of at least `byteLength` bytes, contents undefined: the one used last, which caches still hold. */
  take(byteLength: number): ArrayBuffer {
    const largest = MAX_SLACK_FACTOR * byteLength + SMALL_BYTES;
    const index = this.#idle.findLastIndex((buffer) => buffer.byteLength >= byteLength && buffer.byteLength <= largest);
    if (index < 0) return new ArrayBuffer(byteLength);
    const [buffer] = this.#idle.splice(index, 1) as [ArrayBuffer];
    this.#idleBytes -= buffer.byteLength;
    return buffer;
  }

  give(buffer: ArrayBuffer): void {
    if (buffer.byteLength === 0) return;
    this.#idle.push(buffer);
    this.#idleBytes += buffer.byteLength;
    while (this.#idleBytes > this.#maxIdleBytes) this.#idleBytes -= (this.#idle.shift() as ArrayBuffer).byteLength;
  }
}
