/** Quantizes one chunk of a tensor, slab by slab: raw rows in, stored parts and error sums out. */
import { ArrowQuantError } from "../errors.js";
import type { Dtype } from "../tensor/dtype.js";
import { type QuantSpec, rowLayout } from "../tensor/layout.js";
import type { ErrorSums, OutputSums } from "../tensor/metrics.js";
import { allocatedBytes } from "./arena.js";
import type { RowQuantizer } from "./exports.js";
import { type ColumnOrder, factorLength } from "./factor.js";
import type { Kernels } from "./load.js";
import {
  clearOutputSums,
  copyImportance,
  OUTPUT_SUMS_BYTES,
  openScales,
  openSlab,
  PANEL,
  readOutputSums,
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

/** What decides the memory of a chunk; of calibration only how much there is of it. */
export interface ChunkExtent {
  /** Rows of the chunk. */
  readonly rows: number;
  readonly cols: number;
  /** Most rows of one slab. */
  readonly slabRows: number;
  readonly dtype: Dtype;
  readonly sourceScale: SourceScaleMode;
  readonly importance?: { readonly length: number };
  readonly equalizationScales?: { readonly length: number };
  readonly hessian?: object;
  readonly heldBack?: { readonly rowCount: number; readonly activations: object | null };
}

/** Quantization of held-back inputs (FORMAT.md, Activations): of each row the parameters of its time. */
export interface InputQuantization {
  readonly bits: number;
  readonly scales: Float32Array;
  readonly zeroPoints: Float32Array;
}

export interface ChunkShape extends ChunkExtent {
  /** Importance of each column of the equalized weights, ≥ 0, of mean about one; all ones where left out. */
  readonly importance?: Float32Array;
  /**
   * What the weights of each input channel are multiplied by before quantization, positive; `cols` divides by
   * their number. Rebuilt weights are divided by them before errors are measured.
   */
  readonly equalizationScales?: Float32Array;
  /** What gptq needs, of equalized inputs where weights are equalized; `factor` is then to be filled. */
  readonly hessian?: ColumnOrder;
  /** Inputs that the layer's output is measured on; `readHeldBack` is then to be called. */
  readonly heldBack?: { readonly rowCount: number; readonly activations: InputQuantization | null };
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

function regionSizes(method: RowQuantizer, spec: QuantSpec, shape: ChunkExtent) {
  const { rows, cols, slabRows, dtype, importance, equalizationScales, hessian, heldBack } = shape;
  const layout = rowLayout(cols, spec);
  const panelBytes = 4 * PANEL * cols;
  const heldBackBytes = heldBack === undefined ? 0 : Math.ceil(heldBack.rowCount / PANEL) * panelBytes;
  return {
    tile: TILE_BYTES,
    ...sumSizes(),
    ...slabSizes(Math.min(slabRows, rows), cols, dtype, shape.sourceScale),
    importance: importance === undefined ? 0 : 4 * cols + SPARE_BYTES,
    equalizationScales: equalizationScales === undefined ? 0 : 4 * equalizationScales.length + SPARE_BYTES,
    originals: equalizationScales === undefined ? 0 : 4 * cols + SPARE_BYTES,
    factor: hessian === undefined ? 0 : 4 * factorLength(cols),
    order: hessian === undefined ? 0 : 4 * cols,
    deadColumns: hessian === undefined ? 0 : cols,
    heldBackPanels: heldBackBytes,
    quantizedPanels: heldBack?.activations ? heldBackBytes : 0,
    sourcePanel: heldBack === undefined ? 0 : panelBytes,
    rebuiltPanel: heldBack === undefined ? 0 : panelBytes,
    outputSums: OUTPUT_SUMS_BYTES,
    ...rowScratchSizes(cols, layout.groupsPerRow, layout.supersPerRow),
    scratch: method.scratchBytes(spec, cols, Math.min(slabRows, rows)),
    data: rows * layout.codeBytes,
    storedScales: rows * layout.scaleCount * 4,
    storedZeroPoints: rows * layout.zeroPointCount * 4,
    storedScaleCodes: rows * layout.scaleCodeBytes,
    storedZeroPointCodes: rows * layout.zeroPointCodeBytes,
    storedResidualScaleCodes: rows * layout.residualScaleCodeBytes,
  };
}

export class ChunkQuantizer implements SlabInput {
  readonly #kernels: Kernels;
  readonly #method: RowQuantizer;
  readonly #spec: QuantSpec;
  readonly #shape: ChunkShape;
  readonly #ptr: Record<keyof ReturnType<typeof regionSizes>, number>;
  #rowsDone = 0;

  /** Arena bytes that a chunk of that shape takes, exactly. */
  static bytesNeeded(method: RowQuantizer, spec: QuantSpec, shape: ChunkExtent): number {
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
    clearOutputSums(arena, regions.outputSums);
    this.#copyCalibration();
    const { equalizationScales, heldBack } = shape;
    fillTile(arena, tile, {
      ...regions,
      originals: equalizationScales === undefined ? regions.weights : regions.originals,
      colsPerChannel: equalizationScales === undefined ? 0 : shape.cols / equalizationScales.length,
      heldBackPanelCount: heldBack === undefined ? 0 : Math.ceil(heldBack.rowCount / PANEL),
      quantizedPanels: heldBack?.activations ? regions.quantizedPanels : regions.heldBackPanels,
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
      ...sourceFields(shape.dtype, shape.sourceScale),
    });
  }

  #copyCalibration(): void {
    const { arena } = this.#kernels;
    const { cols, importance, equalizationScales, hessian } = this.#shape;
    const ptr = this.#ptr;
    if (this.#spec.method === "gptq" && hessian === undefined) {
      throw new ArrowQuantError("E_INTERNAL", "gptq without a Hessian's factor");
    }
    if (importance !== undefined) copyImportance(arena, ptr.importance, importance);
    if (equalizationScales !== undefined) {
      checkScales(equalizationScales, cols);
      arena.floats(ptr.equalizationScales, equalizationScales.length).set(equalizationScales);
    }
    if (hessian !== undefined) {
      arena.words(ptr.order, cols).set(hessian.order);
      arena.bytes(ptr.deadColumns, cols).set(hessian.deadColumns);
    }
  }

  /** Where the factor of the Hessian is to be written before the first slab, `factorLength(cols)` floats. */
  factor(): Float32Array {
    return this.#kernels.arena.floats(this.#ptr.factor, factorLength(this.#shape.cols));
  }

  /**
   * Takes the held-back inputs, before the first slab.
   * @param read writes rows from `firstRow` on, float32 [n, cols], into a view that is theirs to fill
   */
  readHeldBack(read: (firstRow: number, into: Float32Array) => void): void {
    const { arena, exports } = this.#kernels;
    const { cols, heldBack, equalizationScales } = this.#shape;
    const ptr = this.#ptr;
    if (heldBack === undefined) return;
    const { rowCount, activations } = heldBack;
    for (let firstRow = 0; firstRow < rowCount; firstRow += PANEL) {
      const rows = Math.min(PANEL, rowCount - firstRow);
      const panelOffset = 4 * firstRow * cols;
      // By way of a panel that nothing is in yet.
      read(firstRow, arena.floats(ptr.sourcePanel, rows * cols));
      exports.packHeldBack(ptr.sourcePanel, rows, cols, ptr.heldBackPanels + panelOffset);
      if (activations === null) continue;
      for (let row = 0; row < rows; row++) {
        exports.quantizeInput(
          ptr.sourcePanel + 4 * row * cols,
          cols,
          equalizationScales === undefined ? 0 : ptr.equalizationScales,
          equalizationScales === undefined ? cols : cols / equalizationScales.length,
          activations.scales[firstRow + row] as number,
          activations.zeroPoints[firstRow + row] as number,
          2 ** activations.bits - 1,
        );
      }
      exports.packHeldBack(ptr.sourcePanel, rows, cols, ptr.quantizedPanels + panelOffset);
    }
  }

  source(rowCount: number, skip = 0): Uint8Array {
    const { cols, dtype } = this.#shape;
    return openSlab(this.#kernels.arena, this.#ptr, dtype, rowCount * cols, skip);
  }

  sourceScales(): Float32Array {
    const { sourceScale, slabRows, rows } = this.#shape;
    return openScales(this.#kernels.arena, this.#ptr, sourceScale, Math.min(slabRows, rows));
  }

  /** Consumes the slab. Non-null: the first weight that cannot be quantized; the chunk is then of no use. */
  quantize(rowCount: number): BadWeight | null {
    const stopped = this.#method.quantizeRows(this.#kernels.exports, this.#ptr.tile, rowCount);
    if (stopped >= 0) {
      return { row: this.#rowsDone + stopped, ...readBadWeight(this.#kernels.arena, this.#ptr.tile) };
    }
    this.#kernels.exports.flushOutputErrors(this.#ptr.tile);
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

  /** Of the layer's output over the held-back inputs and the rows done so far; zeros where there are none. */
  outputSums(): OutputSums {
    return readOutputSums(this.#kernels.arena, this.#ptr.outputSums);
  }
}

/** Throws `E_INTERNAL` for scales that nothing can be divided by. */
function checkScales(scales: Float32Array, cols: number): void {
  const bad = scales.findIndex((scale) => !(scale > 0 && scale < Infinity));
  if (bad < 0 && scales.length > 0 && cols % scales.length === 0) return;
  throw new ArrowQuantError(
    "E_INTERNAL",
    bad < 0
      ? `${scales.length} equalization scales for ${cols} columns`
      : `equalization scale ${bad} is ${scales[bad]}, not a positive number`,
    { details: { scales: scales.length, cols } },
  );
}
