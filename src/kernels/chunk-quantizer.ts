/** Quantizes one chunk of a tensor, slab by slab: raw rows in, stored parts and error sums out. */
import { DTYPES, type Dtype } from "../tensor/dtype.js";
import { type QuantSpec, rowLayout } from "../tensor/layout.js";
import type { ErrorSums } from "../tensor/metrics.js";
import { allocatedBytes } from "./arena.js";
import type { RowQuantizer } from "./exports.js";
import type { Kernels } from "./load.js";
import {
  readSums,
  rowScratchSizes,
  SOURCE_SCALE_MODES,
  type SourceScaleMode,
  SPARE_BYTES,
  slabSizes,
  sumSizes,
} from "./regions.js";
import { fillTile, readBadWeight, TILE_BYTES } from "./tile.js";

export interface ChunkShape {
  /** Rows of the chunk. */
  readonly rows: number;
  readonly cols: number;
  /** Most rows of one slab. */
  readonly slabRows: number;
  readonly dtype: Dtype;
  readonly sourceScale: SourceScaleMode;
  /** Importance of each column, ≥ 0, of mean about one; all ones where it is left out. */
  readonly importance?: Float32Array;
}

/** A weight that cannot be quantized: NaN, infinite, or beyond 2^100. */
export interface BadWeight {
  /** Row within the chunk. */
  readonly row: number;
  readonly col: number;
  /** As float32, source scale applied. */
  readonly value: number;
}

/** What is stored of a chunk; null exactly where FORMAT.md says null. */
export interface ChunkOutputs {
  readonly data: Uint8Array;
  readonly scales: Float32Array;
  readonly zeroPoints: Float32Array | null;
  readonly scaleCodes: Uint8Array | null;
  readonly zeroPointCodes: Uint8Array | null;
  readonly residualScaleCodes: Uint8Array | null;
}

function regionSizes(method: RowQuantizer, spec: QuantSpec, shape: ChunkShape) {
  const { rows, cols, slabRows, dtype } = shape;
  const layout = rowLayout(cols, spec);
  return {
    tile: TILE_BYTES,
    ...sumSizes(),
    ...slabSizes(Math.min(slabRows, rows), cols, dtype, shape.sourceScale),
    importance: shape.importance === undefined ? 0 : 4 * cols + SPARE_BYTES,
    ...rowScratchSizes(cols, layout.groupsPerRow, layout.supersPerRow),
    scratch: method.scratchBytes(spec, cols),
    data: rows * layout.codeBytes,
    storedScales: rows * layout.scaleCount * 4,
    storedZeroPoints: rows * layout.zeroPointCount * 4,
    storedScaleCodes: rows * layout.scaleCodeBytes,
    storedZeroPointCodes: rows * layout.zeroPointCodeBytes,
    storedResidualScaleCodes: rows * layout.residualScaleCodeBytes,
  };
}

export class ChunkQuantizer {
  readonly #kernels: Kernels;
  readonly #method: RowQuantizer;
  readonly #spec: QuantSpec;
  readonly #shape: ChunkShape;
  readonly #ptr: Record<keyof ReturnType<typeof regionSizes>, number>;
  #rowsDone = 0;

  /** Arena bytes that a chunk of that shape takes, exactly. */
  static bytesNeeded(method: RowQuantizer, spec: QuantSpec, shape: ChunkShape): number {
    return Object.values(regionSizes(method, spec, shape)).reduce((sum, size) => sum + allocatedBytes(size), 0);
  }

  /** Resets the arena and lays everything out. The spec must have passed `checkSpec` and `method.check`. */
  constructor(kernels: Kernels, method: RowQuantizer, spec: QuantSpec, shape: ChunkShape) {
    this.#kernels = kernels;
    this.#method = method;
    this.#spec = spec;
    this.#shape = shape;
    const { arena } = kernels;
    const layout = rowLayout(shape.cols, spec);
    this.#ptr = arena.allocateAll(regionSizes(method, spec, shape));
    const { tile, ...regions } = this.#ptr;
    arena.doubles(regions.sums, 5).fill(0);
    if (shape.importance !== undefined) arena.floats(regions.importance, shape.cols).set(shape.importance);
    fillTile(arena, tile, {
      ...regions,
      cols: shape.cols,
      bits: spec.bits,
      storageBits: spec.bits,
      groupSize: spec.groupSize,
      groupsPerRow: layout.groupsPerRow,
      groupsPerSuper: Math.min(layout.groupsPerRow, (spec.superGroupSize ?? Infinity) / spec.groupSize),
      supersPerRow: Math.max(1, layout.supersPerRow),
      symmetric: spec.symmetric ? 1 : 0,
      isR2q: spec.method === "r2q" ? 1 : 0,
      scaleBits: spec.scaleBits ?? 0,
      zeroPointBits: spec.zeroPointBits ?? 0,
      weighting: spec.weighting === "magnitude" ? 1 : 0,
      preserveGain: spec.preserveGain ? 1 : 0,
      sourceDtype: DTYPES[shape.dtype].kernelCode,
      sourceScaleMode: SOURCE_SCALE_MODES.indexOf(shape.sourceScale),
    });
  }

  /** Where the next slab's raw bytes are to be read into. */
  source(rowCount: number): Uint8Array {
    const { cols, dtype } = this.#shape;
    return this.#kernels.arena.bytes(this.#ptr.source, (rowCount * cols * DTYPES[dtype].bits) / 8);
  }

  /** Where source scales are to be written: one, or one per row of the next slab. */
  sourceScales(): Float32Array {
    const { sourceScale, slabRows, rows } = this.#shape;
    const count = sourceScale === "none" ? 0 : sourceScale === "tensor" ? 1 : Math.min(slabRows, rows);
    return this.#kernels.arena.floats(this.#ptr.sourceScales, count);
  }

  /** Consumes the slab. Non-null: the first weight that cannot be quantized; the chunk is then of no use. */
  quantize(rowCount: number): BadWeight | null {
    const stopped = this.#method.quantizeRows(this.#kernels.exports, this.#ptr.tile, rowCount);
    if (stopped >= 0) {
      return { row: this.#rowsDone + stopped, ...readBadWeight(this.#kernels.arena, this.#ptr.tile) };
    }
    this.#rowsDone += rowCount;
    return null;
  }

  /** Views on what is stored of the rows done so far. */
  outputs(): ChunkOutputs {
    const { arena } = this.#kernels;
    const ptr = this.#ptr;
    const rows = this.#rowsDone;
    const { scaleBits, zeroPointBits, symmetric, method } = this.#spec;
    const layout = rowLayout(this.#shape.cols, this.#spec);
    const isR2q = method === "r2q";
    const hasZeroPoints = !symmetric && !isR2q;
    const codes = (at: number, perRow: number, present: boolean) => (present ? arena.bytes(at, rows * perRow) : null);
    return {
      data: arena.bytes(ptr.data, rows * layout.codeBytes),
      scales: arena.floats(ptr.storedScales, rows * layout.scaleCount),
      zeroPoints:
        hasZeroPoints && zeroPointBits === null
          ? arena.floats(ptr.storedZeroPoints, rows * layout.zeroPointCount)
          : null,
      scaleCodes: codes(ptr.storedScaleCodes, layout.scaleCodeBytes, scaleBits !== null),
      zeroPointCodes: codes(
        ptr.storedZeroPointCodes,
        layout.zeroPointCodeBytes,
        hasZeroPoints && zeroPointBits !== null,
      ),
      residualScaleCodes: codes(ptr.storedResidualScaleCodes, layout.residualScaleCodeBytes, isR2q),
    };
  }

  /** Error sums over the rows done so far. */
  sums(): ErrorSums {
    return readSums(this.#kernels.arena, this.#ptr.sums);
  }
}
