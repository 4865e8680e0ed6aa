/** Memory of one kernel instance: the only place that makes views on it. */
import { ArrowQuantError } from "../errors.js";
import type { KernelMemory } from "./webassembly.js";

const PAGE_BYTES = 65536;
/** What a WebAssembly memory of 32-bit addresses can hold. */
const LARGEST_MEMORY_BYTES = 65536 * PAGE_BYTES;
/** v128 loads are fastest from addresses they divide. */
const ALIGNMENT = 16;

/** Bytes `allocate` takes for a block of that many. */
export function allocatedBytes(byteLength: number): number {
  return Math.ceil(byteLength / ALIGNMENT) * ALIGNMENT;
}

/**
 * Bump allocation over a kernel memory, from `heapBase` upwards. A view dies when the memory grows, so views
 * are made after everything is allocated and not kept longer than until the next `reset`.
 */
export class Arena {
  readonly #memory: KernelMemory;
  readonly #heapBase: number;
  readonly #maxBytes: number;
  #top: number;

  /** @param maxBytes what may be allocated between two resets */
  constructor(memory: KernelMemory, heapBase: number, maxBytes: number) {
    this.#memory = memory;
    this.#heapBase = allocatedBytes(heapBase);
    this.#maxBytes = maxBytes;
    this.#top = this.#heapBase;
  }

  /** Bytes allocated since the last reset. */
  get usedBytes(): number {
    return this.#top - this.#heapBase;
  }

  /** Bytes the memory takes of the process; it never shrinks. */
  get committedBytes(): number {
    return this.#memory.buffer.byteLength;
  }

  /** Frees everything. */
  reset(): void {
    this.#top = this.#heapBase;
  }

  /** Address of a new block, 16-byte aligned, with whatever was there before in it; throws `E_MEMORY`. */
  allocate(byteLength: number): number {
    const ptr = this.#top;
    const top = ptr + allocatedBytes(byteLength);
    if (top - this.#heapBase > this.#maxBytes || top > LARGEST_MEMORY_BYTES) {
      throw new ArrowQuantError(
        "E_MEMORY",
        `kernels need ${top - this.#heapBase} bytes, ${this.#maxBytes} are allowed`,
        {
          hint: "raise --memory",
          details: { neededBytes: top - this.#heapBase, allowedBytes: this.#maxBytes },
        },
      );
    }
    const missing = top - this.#memory.buffer.byteLength;
    if (missing > 0) this.#grow(missing);
    this.#top = top;
    return ptr;
  }

  /** Resets, then allocates a block per entry, in their order; an entry of 0 bytes has address 0. */
  allocateAll<Name extends string>(sizes: Readonly<Record<Name, number>>): Record<Name, number> {
    this.reset();
    const pointers = {} as Record<Name, number>;
    for (const name of Object.keys(sizes) as Name[]) {
      pointers[name] = sizes[name] === 0 ? 0 : this.allocate(sizes[name]);
    }
    return pointers;
  }

  bytes(ptr: number, length: number): Uint8Array {
    return new Uint8Array(this.#memory.buffer, ptr, length);
  }

  words(ptr: number, length: number): Int32Array {
    return new Int32Array(this.#memory.buffer, ptr, length);
  }

  floats(ptr: number, length: number): Float32Array {
    return new Float32Array(this.#memory.buffer, ptr, length);
  }

  doubles(ptr: number, length: number): Float64Array {
    return new Float64Array(this.#memory.buffer, ptr, length);
  }

  #grow(missingBytes: number): void {
    try {
      this.#memory.grow(Math.ceil(missingBytes / PAGE_BYTES));
    } catch (cause) {
      throw new ArrowQuantError("E_MEMORY", `kernel memory cannot grow by ${missingBytes} bytes`, {
        cause,
        hint: "lower --memory or --threads",
        details: { missingBytes, committedBytes: this.committedBytes },
      });
    }
  }
}
