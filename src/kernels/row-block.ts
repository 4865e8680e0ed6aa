/** Rows of X, the inputs that a layer's weights multiply, collected from values of a graph up to a block of them. */
import { ArrowQuantError } from "../errors.js";
import type { Dtype } from "../tensor/dtype.js";
import { allocatedBytes } from "./arena.js";
import type { Kernels } from "./load.js";
import { PANEL } from "./regions.js";
import type { ActivationArray, Staging } from "./staging.js";

/** Rows whose products are summed in float32 at once; a Gram matrix is read and written once per block. */
export const ROWS_PER_BLOCK = 128;

/** An input of a convolution, [channels, height, width], and how the kernel moves over it; a 1-D one has height 1. */
export interface ConvolvedImage {
  readonly channels: number;
  readonly height: number;
  readonly width: number;
  readonly kernel: readonly [number, number];
  readonly strides: readonly [number, number];
  /** Top, left, bottom, right. */
  readonly pads: readonly [number, number, number, number];
  readonly dilations: readonly [number, number];
}

/** Words of `Geometry` in assembly/image-rows.ts. */
const GEOMETRY_WORDS = 11;

function regionSizes(cols: number) {
  return {
    rows: 4 * ROWS_PER_BLOCK * cols,
    // For the Gram matrix: the same in panels of eight columns.
    panels: 4 * ROWS_PER_BLOCK * Math.ceil(cols / PANEL) * PANEL,
    positions: 4 * ROWS_PER_BLOCK,
    geometry: 4 * GEOMETRY_WORDS,
  };
}

/** Shared by all layers in turn: `start` empties it. */
export class RowBlock {
  readonly #kernels: Kernels;
  readonly #staging: Staging;
  readonly #maxCols: number;
  readonly #ptr: Record<keyof ReturnType<typeof regionSizes>, number>;
  #cols = 0;
  #rowCount = 0;

  /** Arena bytes for rows of up to that many elements, exactly. */
  static bytesNeeded(maxCols: number): number {
    return Object.values(regionSizes(maxCols)).reduce((sum, size) => sum + allocatedBytes(size), 0);
  }

  /** Allocates; the arena is not reset. */
  constructor(kernels: Kernels, staging: Staging, maxCols: number) {
    const { arena } = kernels;
    const sizes = regionSizes(maxCols);
    this.#kernels = kernels;
    this.#staging = staging;
    this.#maxCols = maxCols;
    this.#ptr = {
      rows: arena.allocate(sizes.rows),
      panels: arena.allocate(sizes.panels),
      positions: arena.allocate(sizes.positions),
      geometry: arena.allocate(sizes.geometry),
    };
  }

  get rowCount(): number {
    return this.#rowCount;
  }

  get cols(): number {
    return this.#cols;
  }

  /** Rows that still fit. */
  get freeRows(): number {
    return ROWS_PER_BLOCK - this.#rowCount;
  }

  /** Empties the block, for rows of `cols` elements. */
  start(cols: number): void {
    if (cols > this.#maxCols) throw tooMany("columns", cols, this.#maxCols);
    this.#cols = cols;
    this.#rowCount = 0;
  }

  /** Appends rows `indices` of x [n, cols]; at most `freeRows`. */
  addRows(x: ActivationArray, dtype: Dtype, indices: ArrayLike<number>): void {
    const { arena, exports } = this.#kernels;
    const cols = this.#cols;
    this.#checkRoom(indices.length);
    for (let i = 0; i < indices.length; i++) {
      const start = (indices[i] as number) * cols;
      const to = this.#ptr.rows + 4 * cols * (this.#rowCount + i);
      if (!(x instanceof Uint16Array)) {
        arena.floats(to, cols).set(x.subarray(start, start + cols));
        continue;
      }
      for (let first = 0; first < cols; first += this.#staging.capacity) {
        const end = Math.min(first + this.#staging.capacity, cols);
        exports.copyFloats(to + 4 * first, this.#staging.load(x, dtype, start + first, start + end), end - first);
      }
    }
    this.#rowCount += indices.length;
  }

  /**
   * Appends what the kernel covers at output `positions`, row-major in the output; at most `freeRows`. A row is
   * [channels, kernel height, kernel width], as the weight's rows are.
   * @param x holds the image from element `offset` on
   */
  addImageRows(
    x: ActivationArray,
    dtype: Dtype,
    offset: number,
    image: ConvolvedImage,
    positions: ArrayLike<number>,
  ): void {
    const { arena, exports } = this.#kernels;
    const { channels, height, width, kernel, strides, pads, dilations } = image;
    this.#checkRoom(positions.length);
    const channelLength = height * width;
    if (channelLength > this.#staging.capacity)
      throw tooMany("elements of an image's channel", channelLength, this.#staging.capacity);
    const outWidth = Math.floor((width + pads[1] + pads[3] - dilations[1] * (kernel[1] - 1) - 1) / strides[1]) + 1;
    arena
      .words(this.#ptr.geometry, GEOMETRY_WORDS)
      .set([...kernel, ...strides, pads[0], pads[1], ...dilations, outWidth, height, width]);
    arena.words(this.#ptr.positions, positions.length).set(positions);
    const channelsPerPiece = Math.max(1, Math.floor(this.#staging.capacity / channelLength));
    const rows = this.#ptr.rows + 4 * this.#cols * this.#rowCount;
    for (let channel = 0; channel < channels; channel += channelsPerPiece) {
      const count = Math.min(channelsPerPiece, channels - channel);
      const start = offset + channel * channelLength;
      exports.copyImageRows(
        this.#staging.load(x, dtype, start, start + count * channelLength),
        count,
        this.#ptr.geometry,
        this.#ptr.positions,
        positions.length,
        rows + 4 * channel * kernel[0] * kernel[1],
        4 * this.#cols,
      );
    }
    this.#rowCount += positions.length;
  }

  /** float32 [rowCount, cols]: a view that is good until the next change. */
  rows(): Float32Array {
    return this.#kernels.arena.floats(this.#ptr.rows, this.#rowCount * this.#cols);
  }

  /** Adds XᵀX to the matrix at `gram` (kernels/gram.ts). */
  addTo(gram: number): void {
    if (this.#rowCount === 0) return;
    this.#kernels.exports.addGram(this.#ptr.rows, this.#rowCount, this.#cols, gram, this.#ptr.panels);
  }

  #checkRoom(count: number): void {
    if (count > this.freeRows) throw tooMany("rows", this.#rowCount + count, ROWS_PER_BLOCK);
  }
}

function tooMany(what: string, count: number, most: number): ArrowQuantError {
  return new ArrowQuantError("E_INTERNAL", `${count} ${what} for a block of ${most}`, { details: { count, most } });
}
