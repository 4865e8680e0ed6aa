/** Quantizes one chunk of a tensor to ggml's blocks, slab by slab: raw rows in, blocks and error sums out. */
import { ArrowQuantError } from "../errors.js";
import { BLOCKS, type BlockDtype, DTYPES, type Dtype, spanOf } from "../tensor/dtype.js";
import type { ErrorSums } from "../tensor/metrics.js";
import { allocatedBytes } from "./arena.js";
import type { BadWeight } from "./chunk-quantizer.js";
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
import { fillTile, readBadWeight, TILE_BYTES } from "./tile.js";

/** What decides the memory of a chunk. */
export interface GgmlExtent {
  readonly type: BlockDtype;
  /** Rows of the chunk. */
  readonly rows: number;
  /** A multiple of the type's block. */
  readonly cols: number;
  /** Most rows of one slab. */
  readonly slabRows: number;
  readonly dtype: Dtype;
  readonly sourceScale: SourceScaleMode;
}

export interface GgmlShape extends GgmlExtent {
  /** float32[cols] ≥ 0, what each column's squared errors count; only their ratios matter. null: all alike. */
  readonly importance: Float32Array | null;
}

function regionSizes({ type, rows, cols, slabRows, dtype, sourceScale }: GgmlExtent) {
  const { weights, rebuilt } = rowScratchSizes(cols, 0, 0);
  return {
    tile: TILE_BYTES,
    ...sumSizes(),
    ...slabSizes(Math.min(slabRows, rows), cols, dtype, sourceScale),
    importance: 4 * cols + SPARE_BYTES,
    scratch: 4 * cols + SPARE_BYTES,
    weights,
    rebuilt,
    data: spanOf(type, 0, rows * cols).byteLength,
  };
}

export class GgmlQuantizer implements SlabInput {
  readonly #kernels: Kernels;
  readonly #shape: GgmlShape;
  readonly #ptr: Record<keyof ReturnType<typeof regionSizes>, number>;
  #rowsDone = 0;

  /** Arena bytes that a chunk of that shape takes, exactly. */
  static bytesNeeded(shape: GgmlExtent): number {
    return Object.values(regionSizes(shape)).reduce((sum, size) => sum + allocatedBytes(size), 0);
  }

  /** Resets the arena and lays everything out; throws `E_INTERNAL` for columns or importances that are none. */
  constructor(kernels: Kernels, shape: GgmlShape) {
    checkShape(shape);
    this.#kernels = kernels;
    this.#shape = shape;
    this.#ptr = kernels.arena.allocateAll(regionSizes(shape));
    const { tile, importance, ...regions } = this.#ptr;
    kernels.arena.doubles(regions.sums, 5).fill(0);
    if (shape.importance !== null) kernels.arena.floats(importance, shape.cols).set(shape.importance);
    fillTile(kernels.arena, tile, {
      ...regions,
      importance: shape.importance === null ? 0 : importance,
      originals: regions.weights,
      cols: shape.cols,
      ...sourceFields(shape.dtype, shape.sourceScale),
    });
  }

  source(rowCount: number, skip = 0): Uint8Array {
    const { cols, dtype } = this.#shape;
    return openSlab(this.#kernels.arena, this.#ptr, dtype, rowCount * cols, skip);
  }

  sourceScales(): Float32Array {
    const { sourceScale, slabRows, rows } = this.#shape;
    return openScales(this.#kernels.arena, this.#ptr, sourceScale, Math.min(slabRows, rows));
  }

  /**
   * Consumes the slab. Non-null: the first weight that cannot be quantized, since it is not finite or larger than a
   * float16 can be; the chunk is then of no use.
   */
  quantize(rowCount: number): BadWeight | null {
    const { exports, arena } = this.#kernels;
    const stopped = exports.quantizeRowsGgml(this.#ptr.tile, rowCount, DTYPES[this.#shape.type].kernelCode);
    if (stopped >= 0) return { row: this.#rowsDone + stopped, ...readBadWeight(arena, this.#ptr.tile) };
    this.#rowsDone += rowCount;
    return null;
  }

  /** The blocks of the rows done so far: a view. */
  outputs(): Uint8Array {
    const { type, cols } = this.#shape;
    return this.#kernels.arena.bytes(this.#ptr.data, spanOf(type, 0, this.#rowsDone * cols).byteLength);
  }

  /** Error sums over the rows done so far, every column counted alike. */
  sums(): ErrorSums {
    return readSums(this.#kernels.arena, this.#ptr.sums);
  }
}

function checkShape({ type, cols, importance }: GgmlShape): void {
  const { elements } = BLOCKS[type];
  if (cols % elements !== 0) {
    throw new ArrowQuantError("E_INTERNAL", `${cols} columns do not divide by ${type}'s blocks of ${elements}`, {
      details: { type, cols, blockElements: elements },
    });
  }
  if (importance === null) return;
  const bad = importance.findIndex((value) => !(value >= 0 && value < Infinity));
  if (bad < 0 && importance.length === cols) return;
  throw new ArrowQuantError(
    "E_INTERNAL",
    bad < 0
      ? `${importance.length} importances for ${cols} columns`
      : `importance ${bad} is ${importance[bad]}, not a number from 0 on`,
    { details: { importances: importance.length, cols } },
  );
}
