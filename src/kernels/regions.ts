/** Regions of kernel memory that several kernels have in common: their sizes, and how results are read. */
import { DTYPES, type Dtype } from "../tensor/dtype.js";
import type { ErrorSums } from "../tensor/metrics.js";
import type { Arena } from "./arena.js";

/** How many factors the source multiplies its weights with; the index is what the kernels know it by. */
export const SOURCE_SCALE_MODES = ["none", "tensor", "row"] as const;
export type SourceScaleMode = (typeof SOURCE_SCALE_MODES)[number];

/** Kernels may read (and in scratch, write) a few vectors past the end of a row. */
export const SPARE_BYTES = 64;

/** A slab of raw rows and its source scales. */
export function slabSizes(slabRows: number, cols: number, dtype: Dtype, sourceScale: SourceScaleMode) {
  return {
    source: (slabRows * cols * DTYPES[dtype].bits) / 8 + SPARE_BYTES,
    sourceScales: sourceScale === "none" ? 0 : sourceScale === "tensor" ? 4 : 4 * slabRows,
  };
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
