/** The Gram matrix XᵀX of a layer's inputs, block by block of their rows. */
import { allocatedBytes } from "./arena.js";
import type { Kernels } from "./load.js";
import { PANEL } from "./regions.js";
import type { RowBlock } from "./row-block.js";

function regionSizes(cols: number) {
  const padded = Math.ceil(cols / PANEL) * PANEL;
  return { gram: 4 * padded * padded, band: 4 * PANEL * cols };
}

export class Gram {
  readonly #kernels: Kernels;
  readonly #cols: number;
  readonly #ptr: Record<keyof ReturnType<typeof regionSizes>, number>;
  #rowCount = 0;

  /** Arena bytes for that many columns, exactly. */
  static bytesNeeded(cols: number): number {
    return Object.values(regionSizes(cols)).reduce((sum, size) => sum + allocatedBytes(size), 0);
  }

  /** Allocates; the arena is not reset, so that several can live in it. */
  constructor(kernels: Kernels, cols: number) {
    const sizes = regionSizes(cols);
    this.#kernels = kernels;
    this.#cols = cols;
    this.#ptr = { gram: kernels.arena.allocate(sizes.gram), band: kernels.arena.allocate(sizes.band) };
    kernels.arena.bytes(this.#ptr.gram, sizes.gram).fill(0);
  }

  /** Rows added so far. */
  get rowCount(): number {
    return this.#rowCount;
  }

  /** Adds the block's rows, of as many columns. */
  add(block: RowBlock): void {
    block.addTo(this.#ptr.gram);
    this.#rowCount += block.rowCount;
  }

  /**
   * XᵀX/n, symmetric, float32 [cols, cols], up to eight rows at a time; zeros where nothing was added.
   * @param write takes a view that is good until the next call
   */
  forEachBand(write: (rows: Float32Array) => void): void {
    const { arena, exports } = this.#kernels;
    const cols = this.#cols;
    const factor = 1 / Math.max(1, this.#rowCount);
    for (let row = 0; row < cols; row += PANEL) {
      const count = Math.min(PANEL, cols - row);
      for (let i = 0; i < count; i++) {
        exports.readGramRow(this.#ptr.gram, cols, row + i, factor, this.#ptr.band + 4 * cols * i);
      }
      write(arena.floats(this.#ptr.band, count * cols));
    }
  }
}
