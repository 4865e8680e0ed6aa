/** Slabs of source rows, read by position straight into a view on a worker thread, where blocking harms nobody. */
import { readExactlySync } from "../io/read.js";
import type { SlabInput, SourceScaleMode } from "../kernels/regions.js";
import { DTYPES, spanOf } from "../tensor/dtype.js";
import { throwIfCancelled } from "./cancel.js";
import type { SourceRows } from "./messages.js";
import { readTransposedRows } from "./transposed-rows.js";

/** Bytes of a row of the source's 2-D view; of types of blocks perhaps not a whole number. */
export function sourceRowBytes({ cols, dtype }: SourceRows): number {
  return (cols * DTYPES[dtype].bits) / 8;
}

/** Fills `into` with rows from `firstRow` of the run on, of a type without blocks; throws E_TRUNCATED or E_READ. */
export function readRows(source: SourceRows, firstRow: number, into: Uint8Array): void {
  if (source.storedRows !== undefined) readTransposedRows(source, firstRow, into);
  else readExactlySync(source.fd, source.path, into, source.byteOffset + firstRow * sourceRowBytes(source));
}

/** Reads rows from `firstRow` of the run on, and their scales, to where kernels take them; throws E_TRUNCATED, E_READ. */
export function readSlab(source: SourceRows, firstRow: number, rowCount: number, input: SlabInput): void {
  const { fd, path, byteOffset, dtype, cols, scales } = source;
  const { skip } = spanOf(dtype, (source.firstRow + firstRow) * cols, rowCount * cols);
  // Exact: bits per element are multiples of 1/16.
  const skippedBytes = (skip * DTYPES[dtype].bits) / 8;
  const begin = byteOffset + firstRow * sourceRowBytes(source) - skippedBytes;
  if (source.storedRows !== undefined) readTransposedRows(source, firstRow, input.source(rowCount));
  else readExactlySync(fd, path, input.source(rowCount, skip), begin);
  if (scales === null) return;
  input.sourceScales().set(scales.length === 1 ? scales : scales.subarray(firstRow, firstRow + rowCount));
}

/** How source scales apply, told from their number. */
export function scaleKind(scales: Float32Array | null): SourceScaleMode {
  if (scales === null) return "none";
  return scales.length === 1 ? "tensor" : "row";
}

/** Calls `work(firstRow, rowCount)` for each slab of the run, in order; stops where it returns a result. */
export function forEachSlab<R>(
  rows: number,
  slabRows: number,
  work: (firstRow: number, rowCount: number) => R | null,
): R | null {
  for (let firstRow = 0; firstRow < rows; firstRow += slabRows) {
    throwIfCancelled();
    const result = work(firstRow, Math.min(slabRows, rows - firstRow));
    if (result !== null) return result;
  }
  return null;
}
