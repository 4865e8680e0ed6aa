/** Converts slabs of source rows to another float type, source scales applied. */
import { DTYPES, type Dtype } from "../tensor/dtype.js";
import { allocatedBytes } from "./arena.js";
import type { Kernels } from "./load.js";
import {
  openScales,
  openSlab,
  rowScratchSizes,
  type SlabInput,
  type SourceScaleMode,
  slabSizes,
  sourceFields,
} from "./regions.js";
import { fillTile, TILE_BYTES } from "./tile.js";

/** Types that weights are written in. */
export type OutDtype = "F32" | "F16" | "BF16";

export interface ConverterShape {
  readonly cols: number;
  /** Most rows of one slab. */
  readonly slabRows: number;
  readonly sourceDtype: Dtype;
  readonly sourceScale: SourceScaleMode;
  readonly outDtype: OutDtype;
}

function regionSizes(shape: ConverterShape) {
  const { cols, slabRows, sourceDtype, sourceScale, outDtype } = shape;
  return {
    tile: TILE_BYTES,
    ...slabSizes(slabRows, cols, sourceDtype, sourceScale),
    weights: rowScratchSizes(cols, 0, 0).weights,
    out: (slabRows * cols * DTYPES[outDtype].bits) / 8,
  };
}

/** NaN and Inf are converted like anything else; what is beyond the new type's range becomes Inf. */
export class Converter implements SlabInput {
  readonly #kernels: Kernels;
  readonly #shape: ConverterShape;
  readonly #ptr: Record<keyof ReturnType<typeof regionSizes>, number>;

  /** Arena bytes for that shape, exactly. */
  static bytesNeeded(shape: ConverterShape): number {
    return Object.values(regionSizes(shape)).reduce((sum, size) => sum + allocatedBytes(size), 0);
  }

  /** Resets the arena and lays everything out. */
  constructor(kernels: Kernels, shape: ConverterShape) {
    this.#kernels = kernels;
    this.#shape = shape;
    this.#ptr = kernels.arena.allocateAll(regionSizes(shape));
    const { tile, ...regions } = this.#ptr;
    fillTile(kernels.arena, tile, {
      ...regions,
      originals: regions.weights,
      cols: shape.cols,
      ...sourceFields(shape.sourceDtype, shape.sourceScale),
      outDtype: DTYPES[shape.outDtype].kernelCode,
    });
  }

  source(rowCount: number, skip = 0): Uint8Array {
    const { cols, sourceDtype } = this.#shape;
    return openSlab(this.#kernels.arena, this.#ptr, sourceDtype, rowCount * cols, skip);
  }

  sourceScales(): Float32Array {
    const { sourceScale, slabRows } = this.#shape;
    return openScales(this.#kernels.arena, this.#ptr, sourceScale, slabRows);
  }

  /** Converts the slab: a view that is good until the next call. */
  convert(rowCount: number): Uint8Array {
    const { cols, outDtype } = this.#shape;
    this.#kernels.exports.convertRows(this.#ptr.tile, rowCount);
    return this.#kernels.arena.bytes(this.#ptr.out, (rowCount * cols * DTYPES[outDtype].bits) / 8);
  }
}
