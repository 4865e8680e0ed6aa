/** Histogram of a tensor's weights between its least and its largest, slab by slab, all slabs twice. */

import { allocatedBytes } from "./arena.js";
import type { BadWeight, ChunkExtent } from "./chunk-quantizer.js";
import type { Kernels } from "./load.js";
import { openScales, openSlab, rowScratchSizes, type SlabInput, slabSizes, sourceFields } from "./regions.js";
import { fillTile, readBadWeight, TILE_BYTES } from "./tile.js";

export interface WeightHistogramShape extends Pick<ChunkExtent, "cols" | "slabRows" | "dtype" | "sourceScale"> {
  readonly bins: number;
}

function regionSizes({ cols, slabRows, dtype, sourceScale, bins }: WeightHistogramShape) {
  return {
    tile: TILE_BYTES,
    ...slabSizes(slabRows, cols, dtype, sourceScale),
    weights: rowScratchSizes(cols, 0, 0).weights,
    range: 8,
    counts: 8 * bins,
  };
}

export class WeightHistogram implements SlabInput {
  readonly #kernels: Kernels;
  readonly #shape: WeightHistogramShape;
  readonly #ptr: Record<keyof ReturnType<typeof regionSizes>, number>;

  /** Arena bytes for that shape, exactly. */
  static bytesNeeded(shape: WeightHistogramShape): number {
    return Object.values(regionSizes(shape)).reduce((sum, size) => sum + allocatedBytes(size), 0);
  }

  /** Resets the arena and lays everything out. */
  constructor(kernels: Kernels, shape: WeightHistogramShape) {
    this.#kernels = kernels;
    this.#shape = shape;
    this.#ptr = kernels.arena.allocateAll(regionSizes(shape));
    kernels.arena.floats(this.#ptr.range, 2).set([Infinity, -Infinity]);
    kernels.arena.doubles(this.#ptr.counts, shape.bins).fill(0);
    fillTile(kernels.arena, this.#ptr.tile, {
      source: this.#ptr.source,
      sourceScales: this.#ptr.sourceScales,
      weights: this.#ptr.weights,
      originals: this.#ptr.weights,
      cols: shape.cols,
      ...sourceFields(shape.dtype, shape.sourceScale),
    });
  }

  source(rowCount: number, skip = 0): Uint8Array {
    const { cols, dtype } = this.#shape;
    return openSlab(this.#kernels.arena, this.#ptr, dtype, rowCount * cols, skip);
  }

  sourceScales(): Float32Array {
    const { sourceScale, slabRows } = this.#shape;
    return openScales(this.#kernels.arena, this.#ptr, sourceScale, slabRows);
  }

  /** Takes the slab into the range. Non-null: the first weight that is not finite, its row within the slab. */
  widen(rowCount: number): BadWeight | null {
    const { tile, range } = this.#ptr;
    const stopped = this.#kernels.exports.widenWeightRange(tile, rowCount, range);
    return stopped < 0 ? null : { row: stopped, ...readBadWeight(this.#kernels.arena, tile) };
  }

  /** Counts the slab, after all have been taken into the range. */
  count(rowCount: number): void {
    const { tile, range, counts } = this.#ptr;
    const { bins } = this.#shape;
    const [least, largest] = this.#kernels.arena.floats(range, 2) as unknown as [number, number];
    // Weights that are all the same lie in the first bin.
    const factor = largest > least ? bins / (largest - least) : 0;
    this.#kernels.exports.countWeights(tile, rowCount, counts, bins, least, factor);
  }

  /** [bins] */
  counts(): Float64Array {
    const { buffer } = this.#kernels.exports.memory;
    return Float64Array.from(new BigInt64Array(buffer, this.#ptr.counts, this.#shape.bins), Number);
  }
}
