/** Slabs of source rows, read by position straight into a view on a worker thread, where blocking harms nobody. */
import { readExactlySync } from "../io/read.js";
import { DTYPES } from "../tensor/dtype.js";
import type { SourceRows } from "./messages.js";

/** Bytes of a row of the source's 2-D view. */
export function sourceRowBytes(source: SourceRows): number {
  return (source.cols * DTYPES[source.dtype].bits) / 8;
}

/** Fills `into` with rows from `firstRow` of the run on; throws E_TRUNCATED or E_READ. */
export function readRows(source: SourceRows, firstRow: number, into: Uint8Array): void {
  readExactlySync(source.fd, source.path, into, source.byteOffset + firstRow * sourceRowBytes(source));
}

/** Calls `work(firstRow, rowCount)` for each slab of the run, in order; stops where it returns a result. */
export function forEachSlab<R>(
  rows: number,
  slabRows: number,
  work: (firstRow: number, rowCount: number) => R | null,
): R | null {
  for (let firstRow = 0; firstRow < rows; firstRow += slabRows) {
    const result = work(firstRow, Math.min(slabRows, rows - firstRow));
    if (result !== null) return result;
  }
  return null;
}
