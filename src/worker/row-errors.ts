/** Rows of a source cast to another float type, and rows of two files compared. */
import { RowErrors } from "../kernels/row-errors.js";
import type { Dtype } from "../tensor/dtype.js";
import { threadKernels } from "./kernels.js";
import type { CastReply, CastTask, CompareRowsReply, CompareRowsTask, SourceRows } from "./messages.js";
import { forEachSlab, readSlab, scaleKind } from "./source.js";

export function castRows({ source, dtype, limit, slabRows, output }: CastTask): CastReply {
  const errors = openErrors(source, dtype, limit, slabRows);
  let byteLength = 0;
  const nonFinite = forEachSlab(source.rows, slabRows, (firstRow, rowCount) => {
    readSlab(source, firstRow, rowCount, errors);
    const bytes = errors.cast(rowCount);
    if (output !== null) new Uint8Array(output).set(bytes, byteLength);
    byteLength += bytes.byteLength;
    return errors.add(rowCount);
  });
  const position = nonFinite === null ? null : { ...nonFinite, row: source.firstRow + nonFinite.row };
  return { output, byteLength, sums: errors.sums(), nonFinite: position };
}

export function compareRows({ source, stored, slabRows }: CompareRowsTask): CompareRowsReply {
  const errors = openErrors(source, stored.dtype, Infinity, slabRows);
  const nonFinite = forEachSlab(source.rows, slabRows, (firstRow, rowCount) => {
    readSlab(source, firstRow, rowCount, errors);
    readSlab(stored, firstRow, rowCount, errors.stored);
    return errors.add(rowCount);
  });
  const position = nonFinite === null ? null : { ...nonFinite, row: source.firstRow + nonFinite.row };
  return { sums: errors.sums(), nonFinite: position };
}

function openErrors(source: SourceRows, storedDtype: Dtype, limit: number, slabRows: number): RowErrors {
  const { cols, dtype: sourceDtype, scales } = source;
  const sourceScale = scaleKind(scales);
  return new RowErrors(threadKernels(), { cols, slabRows, sourceDtype, sourceScale, storedDtype, limit });
}
