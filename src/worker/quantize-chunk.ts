/** Quantizes the rows of one chunk: read a slab, quantize it, until the chunk is full; then hand it over. */
import { ChunkQuantizer } from "../kernels/chunk-quantizer.js";
import { findMethod } from "../quantize/methods/index.js";
import { calibratedShape, readCalibration } from "./calibrated-chunk.js";
import { threadKernels } from "./kernels.js";
import type { QuantizeReply, QuantizeTask } from "./messages.js";
import { checksumParts, packParts } from "./parts.js";
import { forEachSlab, readSlab, scaleKind } from "./source.js";

export function quantizeChunk(task: QuantizeTask): QuantizeReply {
  const { source, spec, calibration, slabRows, output } = task;
  const quantizer = new ChunkQuantizer(threadKernels(), findMethod(spec.method), spec, {
    rows: source.rows,
    cols: source.cols,
    slabRows,
    dtype: source.dtype,
    sourceScale: scaleKind(source.scales),
    ...calibratedShape(calibration),
  });
  readCalibration(quantizer, calibration);
  const nonFinite = forEachSlab(source.rows, slabRows, (firstRow, rowCount) => {
    readSlab(source, firstRow, rowCount, quantizer);
    return quantizer.quantize(rowCount);
  });
  if (nonFinite !== null) {
    const position = { ...nonFinite, row: source.firstRow + nonFinite.row };
    return { output, parts: {}, sums: quantizer.sums(), outputSums: null, crc32: 0, nonFinite: position };
  }
  const parts = packParts(quantizer.outputs(), output);
  const outputSums = calibration?.heldBack ? quantizer.outputSums() : null;
  return { output, parts, sums: quantizer.sums(), outputSums, crc32: checksumParts(output, parts), nonFinite: null };
}
