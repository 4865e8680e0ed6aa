/** Largest magnitude of each column of a run of source rows. */
import { ColumnMaxima } from "../kernels/column-maxima.js";
import { threadKernels } from "./kernels.js";
import type { ColumnMaximaReply, ColumnMaximaTask } from "./messages.js";
import { forEachSlab, readSlab, scaleKind } from "./source.js";

export function findColumnMaxima({ source, slabRows }: ColumnMaximaTask): ColumnMaximaReply {
  const { cols, dtype, scales } = source;
  const columns = new ColumnMaxima(threadKernels(), { cols, slabRows, dtype, sourceScale: scaleKind(scales) });
  forEachSlab(source.rows, slabRows, (firstRow, rowCount) => {
    readSlab(source, firstRow, rowCount, columns);
    columns.add(rowCount);
    return null;
  });
  return { maxima: columns.maxima().slice() };
}
