/** Rows of a matrix that is stored by columns: a strip of rows is read line by line, then turned slab by slab. */
import { allocatedBytes } from "./arena.js";
import type { Kernels } from "./load.js";

/** Bytes of a strip, where a slab is not longer: long enough lines for cheap reads of them. */
const STRIP_BYTES = 2 * 1024 * 1024;

export interface StripShape {
  readonly cols: number;
  /** Most rows of one slab. */
  readonly slabRows: number;
  readonly elementBytes: number;
}

function regionSizes({ cols, slabRows, elementBytes }: StripShape, stripRows: number) {
  return { strip: stripRows * cols * elementBytes, slab: slabRows * cols * elementBytes };
}

/** Rows of a strip: whole slabs of them, at least one. */
function countStripRows({ cols, slabRows, elementBytes }: StripShape): number {
  return Math.max(1, Math.floor(STRIP_BYTES / (slabRows * cols * elementBytes))) * slabRows;
}

export class StripTurner {
  readonly #kernels: Kernels;
  readonly #shape: StripShape;
  readonly #ptr: Record<keyof ReturnType<typeof regionSizes>, number>;
  /** Most rows of a strip. */
  readonly stripRows: number;

  /** Bytes of kernel memory. */
  static bytesNeeded(shape: StripShape): number {
    const sizes = Object.values(regionSizes(shape, countStripRows(shape)));
    return sizes.reduce((sum, byteLength) => sum + allocatedBytes(byteLength), 0);
  }

  /** Resets the arena and lays everything out. */
  constructor(kernels: Kernels, shape: StripShape) {
    this.#kernels = kernels;
    this.#shape = shape;
    this.stripRows = countStripRows(shape);
    this.#ptr = kernels.arena.allocateAll(regionSizes(shape, this.stripRows));
  }

  /** Where the next strip of `rowCount` rows is to be written, column by column. */
  strip(rowCount: number): Uint8Array {
    return this.#kernels.arena.bytes(this.#ptr.strip, rowCount * this.#shape.cols * this.#shape.elementBytes);
  }

  /** Rows `firstRow` to `firstRow + rowCount` of a strip of `stripRows`: a view that is good until the next call. */
  turn(stripRows: number, firstRow: number, rowCount: number): Uint8Array {
    const { cols, elementBytes } = this.#shape;
    const { strip, slab } = this.#ptr;
    const from = strip + firstRow * elementBytes;
    this.#kernels.exports.transposeElements(from, stripRows, slab, cols, cols, rowCount, elementBytes);
    return this.#kernels.arena.bytes(slab, rowCount * cols * elementBytes);
  }
}
