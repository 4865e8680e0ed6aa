/** Regions of kernel memory that several kernels have in common: their sizes, and how results are read. */
import { DTYPES, type Dtype, largestSpanBytes, spanOf } from "../tensor/dtype.js";
import type { ErrorSums, OutputSums } from "../tensor/metrics.js";
import type { Arena } from "./arena.js";
import { setTileField } from "./tile.js";

/** How many factors the source multiplies its weights with; the index is what the kernels know it by. */
export const SOURCE_SCALE_MODES = ["none", "tensor", "row"] as const;
export type SourceScaleMode = (typeof SOURCE_SCALE_MODES)[number];

/** Columns, or rows, that the kernels of matrix products take side by side (assembly/panel.ts). */
export const PANEL = 8;

/** Kernels may read (and in scratch, write) a few vectors past the end of a row. */
export const SPARE_BYTES = 64;

/** A slab of raw rows and its source scales. */
export function slabSizes(slabRows: number, cols: number, dtype: Dtype, sourceScale: SourceScaleMode) {
  return {
    source: largestSpanBytes(dtype, slabRows * cols) + SPARE_BYTES,
    sourceScales: sourceScale === "none" ? 0 : sourceScale === "tensor" ? 4 : 4 * slabRows,
  };
}

/** Where a kernel takes slabs of source rows. */
export interface SlabInput {
  /**
   * Where the next slab's raw bytes are to be read into.
   * @param skip elements of the slab's first block that stand before its first row (`spanOf`)
   */
  source(rowCount: number, skip?: number): Uint8Array;
  /** Where source scales are to be written: one, or one per row of the next slab. */
  sourceScales(): Float32Array;
}

/** The view of `SlabInput.source`, of `elementCount` elements; tells the kernels of `skip`. */
export function openSlab(
  arena: Arena,
  ptr: { readonly tile: number; readonly source: number },
  dtype: Dtype,
  elementCount: number,
  skip: number,
): Uint8Array {
  setTileField(arena, ptr.tile, "sourceSkip", skip);
  return arena.bytes(ptr.source, spanOf(dtype, skip, elementCount).byteLength);
}

/** The view of `SlabInput.sourceScales`, for slabs of at most `slabRows`. */
export function openScales(
  arena: Arena,
  ptr: { readonly sourceScales: number },
  sourceScale: SourceScaleMode,
  slabRows: number,
): Float32Array {
  return arena.floats(ptr.sourceScales, sourceScale === "none" ? 0 : sourceScale === "tensor" ? 1 : slabRows);
}

/** How the kernels read slabs: fields of the tile. */
export function sourceFields(dtype: Dtype, sourceScale: SourceScaleMode) {
  return { sourceDtype: DTYPES[dtype].kernelCode, sourceScaleMode: SOURCE_SCALE_MODES.indexOf(sourceScale) };
}

/** Scratch of one row: float32 weights and their rebuilt values, codes, and what belongs to groups. */
export function rowScratchSizes(cols: number, groupsPerRow: number, supersPerRow: number) {
  return {
    weights: 4 * cols + SPARE_BYTES,
    rebuilt: 4 * cols + SPARE_BYTES,
    codes: cols + SPARE_BYTES,
    scales: 4 * groupsPerRow + SPARE_BYTES,
    zeroPoints: 4 * groupsPerRow + SPARE_BYTES,
    residualScales: 4 * groupsPerRow + SPARE_BYTES,
    superScales: 4 * supersPerRow + SPARE_BYTES,
    scaleCodes: groupsPerRow + SPARE_BYTES,
    zeroPointCodes: groupsPerRow + SPARE_BYTES,
    residualScaleCodes: groupsPerRow + SPARE_BYTES,
  };
}

/** The five error sums. */
export function sumSizes() {
  return { sums: 40 };
}

export function readSums(arena: Arena, ptr: number): ErrorSums {
  const [dot, sourceNorm2, rebuiltNorm2, errorNorm2, maxAbsError] = arena.doubles(ptr, 5) as unknown as [
    number,
    number,
    number,
    number,
    number,
  ];
  return { dot, sourceNorm2, rebuiltNorm2, errorNorm2, maxAbsError };
}

/** Σ y², Σ ŷ², Σ (y − ŷ)² of a layer's output. */
export const OUTPUT_SUMS_BYTES = 24;

export function clearOutputSums(arena: Arena, ptr: number): void {
  arena.doubles(ptr, 3).fill(0);
}

export function readOutputSums(arena: Arena, ptr: number): OutputSums {
  const [sourceNorm2, rebuiltNorm2, errorNorm2] = arena.doubles(ptr, 3) as unknown as [number, number, number];
  // The sum of products is wanted to an absolute error, like that of weights (assembly/metrics.ts).
  return { dot: (sourceNorm2 + rebuiltNorm2 - errorNorm2) / 2, sourceNorm2, rebuiltNorm2, errorNorm2 };
}

/** Importance of columns; kernels read past its end, times zero, which must not meet a NaN. */
export function copyImportance(arena: Arena, ptr: number, importance: Float32Array): void {
  arena
    .floats(ptr, importance.length + SPARE_BYTES / 4)
    .fill(0)
    .set(importance);
}
