/** Copies the rows of a kept chunk: as they are, or as float32 with their source scale applied or blocks rebuilt. */
import { crc32 } from "node:zlib";
import { Converter } from "../kernels/converter.js";
import { threadKernels } from "./kernels.js";
import type { KeepReply, KeepTask, SourceRows } from "./messages.js";
import { forEachSlab, readRows, readSlab, scaleKind, sourceRowBytes } from "./source.js";

export function keepChunk(task: KeepTask): KeepReply {
  const { source, storedDtype, slabRows, output } = task;
  let byteLength = 0;
  forEachKeptSlab(source, storedDtype, slabRows, new Uint8Array(output), (bytes) => {
    if (bytes.buffer !== output) new Uint8Array(output).set(bytes, byteLength);
    byteLength += bytes.byteLength;
    return null;
  });
  return { output, byteLength, crc32: crc32(new Uint8Array(output, 0, byteLength)) };
}

/** Whether a kept tensor's bytes are the source's. */
export function isCopied(source: SourceRows, storedDtype: KeepTask["storedDtype"]): boolean {
  return storedDtype === source.dtype && source.scales === null;
}

/**
 * Calls `work` with the stored bytes of slab after slab; they lie in `buffer` at their place in the chunk where
 * nothing is converted, else in the kernels' memory until the next call.
 */
export function forEachKeptSlab<R>(
  source: SourceRows,
  storedDtype: KeepTask["storedDtype"],
  slabRows: number,
  buffer: Uint8Array,
  work: (bytes: Uint8Array) => R | null,
): R | null {
  if (isCopied(source, storedDtype)) {
    const rowBytes = sourceRowBytes(source);
    return forEachSlab(source.rows, slabRows, (firstRow, rowCount) => {
      const bytes = buffer.subarray(firstRow * rowBytes, (firstRow + rowCount) * rowBytes);
      readRows(source, firstRow, bytes);
      return work(bytes);
    });
  }
  const converter = new Converter(threadKernels(), {
    cols: source.cols,
    slabRows,
    sourceDtype: source.dtype,
    sourceScale: scaleKind(source.scales),
    outDtype: "F32",
  });
  return forEachSlab(source.rows, slabRows, (firstRow, rowCount) => {
    readSlab(source, firstRow, rowCount, converter);
    return work(converter.convert(rowCount));
  });
}
