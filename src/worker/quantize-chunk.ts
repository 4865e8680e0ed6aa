/** Quantizes the rows of one chunk: read a slab, quantize it, until the chunk is full; then hand it over. */
import { ChunkQuantizer } from "../kernels/chunk-quantizer.js";
import { findMethod } from "../quantize/methods/index.js";
import { threadKernels } from "./kernels.js";
import type { QuantizeReply, QuantizeTask } from "./messages.js";
import { checksumParts, packParts } from "./parts.js";
import { forEachSlab, readRows } from "./source.js";

export function quantizeChunk(task: QuantizeTask): QuantizeReply {
  const { source, spec, slabRows, output } = task;
  const quantizer = new ChunkQuantizer(threadKernels(), findMethod(spec.method), spec, {
    rows: source.rows,
    cols: source.cols,
    slabRows,
    dtype: source.dtype,
    sourceScale: scaleKind(source.scales),
  });
  const nonFinite = forEachSlab(source.rows, slabRows, (firstRow, rowCount) => {
    readRows(source, firstRow, quantizer.source(rowCount));
    if (source.scales !== null) quantizer.sourceScales().set(slabScales(source.scales, firstRow, rowCount));
    return quantizer.quantize(rowCount);
  });
  if (nonFinite !== null) {
    const position = { ...nonFinite, row: source.firstRow + nonFinite.row };
    return { output, parts: {}, sums: quantizer.sums(), crc32: 0, nonFinite: position };
  }
  const parts = packParts(quantizer.outputs(), output);
  return { output, parts, sums: quantizer.sums(), crc32: checksumParts(output, parts), nonFinite: null };
}

/** How source scales apply, told from their number. */
export function scaleKind(scales: Float32Array | null): "none" | "tensor" | "row" {
  if (scales === null) return "none";
  return scales.length === 1 ? "tensor" : "row";
}

/** The scales of a slab's rows, or the one scale of the tensor. */
export function slabScales(scales: Float32Array, firstRow: number, rowCount: number): Float32Array {
  return scales.length === 1 ? scales : scales.subarray(firstRow, firstRow + rowCount);
}
