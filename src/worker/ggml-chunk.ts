/** Quantizes the rows of one chunk to ggml's blocks, slab by slab. */
import { GgmlQuantizer } from "../kernels/ggml-quantizer.js";
import { threadKernels } from "./kernels.js";
import type { GgmlReply, GgmlTask } from "./messages.js";
import { forEachSlab, readSlab, scaleKind } from "./source.js";

export function quantizeGgmlChunk({ source, type, importance, slabRows, output }: GgmlTask): GgmlReply {
  const quantizer = new GgmlQuantizer(threadKernels(), {
    type,
    rows: source.rows,
    cols: source.cols,
    slabRows,
    dtype: source.dtype,
    sourceScale: scaleKind(source.scales),
    importance,
  });
  const bad = forEachSlab(source.rows, slabRows, (firstRow, rowCount) => {
    readSlab(source, firstRow, rowCount, quantizer);
    return quantizer.quantize(rowCount);
  });
  const nonFinite = bad === null ? null : { ...bad, row: source.firstRow + bad.row };
  const blocks = quantizer.outputs();
  if (nonFinite === null) new Uint8Array(output).set(blocks);
  return { output, byteLength: blocks.byteLength, sums: quantizer.sums(), nonFinite };
}
