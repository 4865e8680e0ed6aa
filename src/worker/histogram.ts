/** Histogram of a tensor's weights: read once for the range, once to count. */
import { WeightHistogram } from "../kernels/weight-histogram.js";
import { threadKernels } from "./kernels.js";
import type { HistogramReply, HistogramTask } from "./messages.js";
import { forEachSlab, readSlab, scaleKind } from "./source.js";

export function countWeights({ source, bins, slabRows }: HistogramTask): HistogramReply {
  const { cols, dtype, scales } = source;
  const shape = { cols, slabRows, dtype, sourceScale: scaleKind(scales), bins };
  const histogram = new WeightHistogram(threadKernels(), shape);
  const nonFinite = forEachSlab(source.rows, slabRows, (firstRow, rowCount) => {
    readSlab(source, firstRow, rowCount, histogram);
    const bad = histogram.widen(rowCount);
    return bad === null ? null : { ...bad, row: source.firstRow + firstRow + bad.row };
  });
  if (nonFinite !== null) return { counts: new Float64Array(0), nonFinite };
  forEachSlab(source.rows, slabRows, (firstRow, rowCount) => {
    readSlab(source, firstRow, rowCount, histogram);
    histogram.count(rowCount);
    return null;
  });
  return { counts: histogram.counts(), nonFinite: null };
}
