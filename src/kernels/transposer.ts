/** Turns a matrix that comes in slabs of rows, band of columns by band of columns. */
import type { Kernels } from "./load.js";

export interface TransposerShape {
  readonly rows: number;
  readonly cols: number;
  /** Most rows of one slab. */
  readonly slabRows: number;
  /** Most columns that are turned in one pass over the rows. */
  readonly bandCols: number;
}

function regionSizes({ rows, cols, slabRows, bandCols }: TransposerShape) {
  return { slab: 4 * slabRows * cols, band: 4 * bandCols * rows };
}

/** Elements are 4 bytes of any kind. */
export class Transposer {
  readonly #kernels: Kernels;
  readonly #shape: TransposerShape;
  readonly #ptr: Record<keyof ReturnType<typeof regionSizes>, number>;

  /** Resets the arena and lays everything out. */
  constructor(kernels: Kernels, shape: TransposerShape) {
    this.#kernels = kernels;
    this.#shape = shape;
    this.#ptr = kernels.arena.allocateAll(regionSizes(shape));
  }

  /** Where the next slab is to be written. */
  slab(rowCount: number): Uint8Array {
    return this.#kernels.arena.bytes(this.#ptr.slab, 4 * rowCount * this.#shape.cols);
  }

  /** Turns columns `firstCol` to `firstCol + colCount` of the slab, whose first row is row `firstRow`, into the band. */
  add(firstRow: number, rowCount: number, firstCol: number, colCount: number): void {
    const { rows, cols } = this.#shape;
    const { slab, band } = this.#ptr;
    this.#kernels.exports.transposeBlock(slab + 4 * firstCol, cols, band + 4 * firstRow, rows, rowCount, colCount);
  }

  /** The band [colCount, rows]: a view that is good until the next pass. */
  band(colCount: number): Uint8Array {
    return this.#kernels.arena.bytes(this.#ptr.band, 4 * colCount * this.#shape.rows);
  }
}
