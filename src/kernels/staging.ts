/** The way of activations into kernel memory: piece by piece through one small region that all kernels share. */
import { DTYPES, type Dtype } from "../tensor/dtype.js";
import { allocatedBytes } from "./arena.js";
import type { Kernels } from "./load.js";

/** Activations as a runtime hands them out: F32, F64, and F16 and BF16 as their bits. */
export type ActivationArray = Float32Array | Float64Array | Uint16Array;

/** 256 KiB stay in the second-level cache between the kernels that read a piece. */
const STAGING_FLOATS = 65536;

export class Staging {
  readonly #kernels: Kernels;
  readonly #floats: number;
  readonly #halves: number;
  /** Elements of a piece. */
  readonly capacity: number;

  /**
   * Arena bytes, exactly.
   * @param channelElements elements of a channel of the largest image that rows are to be taken of
   */
  static bytesNeeded(channelElements = 0): number {
    const capacity = Math.max(STAGING_FLOATS, channelElements);
    return allocatedBytes(4 * capacity) + allocatedBytes(2 * capacity);
  }

  /** Allocates; the arena is not reset. */
  constructor(kernels: Kernels, channelElements = 0) {
    this.#kernels = kernels;
    this.capacity = Math.max(STAGING_FLOATS, channelElements);
    this.#floats = kernels.arena.allocate(4 * this.capacity);
    this.#halves = kernels.arena.allocate(2 * this.capacity);
  }

  /** Elements `first` … `end` − 1 of `data`, at most `capacity`, as float32: their address until the next call. */
  load(data: ActivationArray, dtype: Dtype, first: number, end: number): number {
    const { arena, exports } = this.#kernels;
    const count = end - first;
    if (!(data instanceof Uint16Array)) {
      arena.floats(this.#floats, count).set(data.subarray(first, end));
      return this.#floats;
    }
    const bytes = new Uint8Array(data.buffer, data.byteOffset + 2 * first, 2 * count);
    arena.bytes(this.#halves, 2 * count).set(bytes);
    exports.convertFloats(this.#halves, this.#floats, count, DTYPES[dtype].kernelCode);
    return this.#floats;
  }
}
