/** Rows of weights against what stands for them, both as a file holds them: cast to another float type, or compared. */
import { DTYPES, type Dtype } from "../tensor/dtype.js";
import type { ErrorSums } from "../tensor/metrics.js";
import { allocatedBytes } from "./arena.js";
import type { BadWeight } from "./chunk-quantizer.js";
import type { OutDtype } from "./converter.js";
import type { Kernels } from "./load.js";
import {
  openScales,
  openSlab,
  readSums,
  rowScratchSizes,
  type SlabInput,
  type SourceScaleMode,
  SPARE_BYTES,
  slabSizes,
  sourceFields,
  sumSizes,
} from "./regions.js";
import { fillTile, setTileField, TILE_BYTES } from "./tile.js";

export interface RowErrorsShape {
  readonly cols: number;
  /** Most rows of one slab. */
  readonly slabRows: number;
  readonly sourceDtype: Dtype;
  readonly sourceScale: SourceScaleMode;
  /** Type of what stands for the source. */
  readonly storedDtype: Dtype;
  /** Source weights of this magnitude and beyond stop it, as does NaN. */
  readonly limit: number;
}

function regionSizes({ cols, slabRows, sourceDtype, sourceScale, storedDtype }: RowErrorsShape) {
  const stored = slabSizes(slabRows, cols, storedDtype, "none");
  return {
    tile: TILE_BYTES,
    storedTile: TILE_BYTES,
    ...sumSizes(),
    ...slabSizes(slabRows, cols, sourceDtype, sourceScale),
    stored: stored.source,
    weights: rowScratchSizes(cols, 0, 0).weights,
    originals: 4 * slabRows * cols,
    rebuilt: 4 * slabRows * cols,
    originalRow: 4 * cols + SPARE_BYTES,
    rebuiltRow: 4 * cols + SPARE_BYTES,
  };
}

export class RowErrors implements SlabInput {
  readonly #kernels: Kernels;
  readonly #shape: RowErrorsShape;
  readonly #ptr: Record<keyof ReturnType<typeof regionSizes>, number>;
  /** What stands for the slab, where it is read and not cast. */
  readonly stored: Pick<SlabInput, "source" | "sourceScales">;
  #rowsDone = 0;

  /** Arena bytes for that shape, exactly. */
  static bytesNeeded(shape: RowErrorsShape): number {
    return Object.values(regionSizes(shape)).reduce((sum, size) => sum + allocatedBytes(size), 0);
  }

  /** Resets the arena and lays everything out. */
  constructor(kernels: Kernels, shape: RowErrorsShape) {
    const { arena } = kernels;
    const { cols, sourceDtype, sourceScale, storedDtype } = shape;
    this.#kernels = kernels;
    this.#shape = shape;
    const ptr = arena.allocateAll(regionSizes(shape));
    this.#ptr = ptr;
    arena.doubles(ptr.sums, 5).fill(0);
    // Rows are summed in fours: what follows the last element must be zero.
    for (const row of [ptr.originalRow, ptr.rebuiltRow]) arena.bytes(row, 4 * cols + SPARE_BYTES).fill(0);
    const common = { cols, weights: ptr.weights, originals: ptr.weights };
    fillTile(arena, ptr.tile, {
      ...common,
      source: ptr.source,
      sourceScales: ptr.sourceScales,
      ...sourceFields(sourceDtype, sourceScale),
    });
    fillTile(arena, ptr.storedTile, {
      ...common,
      source: ptr.stored,
      sourceDtype: DTYPES[storedDtype].kernelCode,
    });
    this.stored = {
      source: (rowCount, skip = 0) =>
        openSlab(arena, { tile: ptr.storedTile, source: ptr.stored }, storedDtype, rowCount * cols, skip),
      sourceScales: () => arena.floats(0, 0),
    };
  }

  source(rowCount: number, skip = 0): Uint8Array {
    const { cols, sourceDtype } = this.#shape;
    return openSlab(this.#kernels.arena, this.#ptr, sourceDtype, rowCount * cols, skip);
  }

  sourceScales(): Float32Array {
    const { sourceScale, slabRows } = this.#shape;
    return openScales(this.#kernels.arena, this.#ptr, sourceScale, slabRows);
  }

  /** The slab in the stored type, which must be one of floats: a view that is good until the next call. */
  cast(rowCount: number): Uint8Array {
    const { cols, storedDtype } = this.#shape;
    this.#convert(this.#ptr.tile, this.#ptr.stored, storedDtype as OutDtype, rowCount);
    return this.#kernels.arena.bytes(this.#ptr.stored, (rowCount * cols * DTYPES[storedDtype].bits) / 8);
  }

  /** Adds the errors of what stands for the slab, cast or read. Non-null: the first weight beyond the limit. */
  add(rowCount: number): BadWeight | null {
    const { arena, exports } = this.#kernels;
    const { cols, limit } = this.#shape;
    const { tile, storedTile, originals, rebuilt, originalRow, rebuiltRow, sums } = this.#ptr;
    this.#convert(tile, originals, "F32", rowCount);
    this.#convert(storedTile, rebuilt, "F32", rowCount);
    for (let row = 0; row < rowCount; row += 1) {
      exports.copyFloats(originalRow, originals + 4 * row * cols, cols);
      exports.copyFloats(rebuiltRow, rebuilt + 4 * row * cols, cols);
      if (!(floatOfBits(exports.largestMagnitudeBits(originalRow, cols)) < limit)) {
        const weights = arena.floats(originalRow, cols);
        const col = weights.findIndex((weight) => !(Math.abs(weight) < limit));
        return { row: this.#rowsDone + row, col, value: weights[col] as number };
      }
      exports.addRowSums(originalRow, rebuiltRow, cols, sums);
    }
    this.#rowsDone += rowCount;
    return null;
  }

  /** Error sums over the rows added so far. */
  sums(): ErrorSums {
    return readSums(this.#kernels.arena, this.#ptr.sums);
  }

  #convert(tile: number, out: number, dtype: OutDtype, rowCount: number): void {
    const { arena, exports } = this.#kernels;
    setTileField(arena, tile, "out", out);
    setTileField(arena, tile, "outDtype", DTYPES[dtype].kernelCode);
    exports.convertRows(tile, rowCount);
  }
}

const FLOAT_OF_BITS = new DataView(new ArrayBuffer(4));

function floatOfBits(bits: number): number {
  FLOAT_OF_BITS.setInt32(0, bits);
  return FLOAT_OF_BITS.getFloat32(0);
}
