/** Largest magnitudes of a tensor's columns, slab by slab. */

import { allocatedBytes } from "./arena.js";
import type { BadWeight, ChunkExtent } from "./chunk-quantizer.js";
import type { Kernels } from "./load.js";
import {
  openScales,
  openSlab,
  rowScratchSizes,
  type SlabInput,
  SPARE_BYTES,
  slabSizes,
  sourceFields,
} from "./regions.js";
import { fillTile, readBadWeight, TILE_BYTES } from "./tile.js";

export type ColumnMaximaShape = Pick<ChunkExtent, "cols" | "slabRows" | "dtype" | "sourceScale">;

function regionSizes({ cols, slabRows, dtype, sourceScale }: ColumnMaximaShape) {
  return {
    tile: TILE_BYTES,
    ...slabSizes(slabRows, cols, dtype, sourceScale),
    weights: rowScratchSizes(cols, 0, 0).weights,
    maxima: 4 * cols + SPARE_BYTES,
  };
}

export class ColumnMaxima implements SlabInput {
  readonly #kernels: Kernels;
  readonly #shape: ColumnMaximaShape;
  readonly #ptr: Record<keyof ReturnType<typeof regionSizes>, number>;
  #rowsDone = 0;

  /** Arena bytes for that shape, exactly. */
  static bytesNeeded(shape: ColumnMaximaShape): number {
    return Object.values(regionSizes(shape)).reduce((sum, size) => sum + allocatedBytes(size), 0);
  }

  /** Resets the arena and lays everything out. */
  constructor(kernels: Kernels, shape: ColumnMaximaShape) {
    this.#kernels = kernels;
    this.#shape = shape;
    this.#ptr = kernels.arena.allocateAll(regionSizes(shape));
    kernels.arena.floats(this.#ptr.maxima, shape.cols).fill(0);
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

  /** Consumes the slab. Non-null: the first weight that is not finite. */
  add(rowCount: number): BadWeight | null {
    const { tile, maxima } = this.#ptr;
    const stopped = this.#kernels.exports.raiseColumnMaxima(tile, rowCount, maxima);
    if (stopped >= 0) return { row: this.#rowsDone + stopped, ...readBadWeight(this.#kernels.arena, tile) };
    this.#rowsDone += rowCount;
    return null;
  }

  /** float32[cols] over the rows so far: a view. */
  maxima(): Float32Array {
    return this.#kernels.arena.floats(this.#ptr.maxima, this.#shape.cols);
  }
}
