/** Turns a stored chunk, quantized or kept, into plain weights. */
import { ChunkRebuilder } from "../kernels/chunk-rebuilder.js";
import { Converter } from "../kernels/converter.js";
import { DTYPES } from "../tensor/dtype.js";
import { storedChunk } from "./compare-chunk.js";
import { threadKernels } from "./kernels.js";
import type { ConvertTask, RebuildReply, RebuildTask } from "./messages.js";
import { forEachSlab } from "./source.js";

export function rebuildChunk(task: RebuildTask): RebuildReply {
  const { rows, cols, slabRows, dtype, input, output } = task;
  const rebuilder = new ChunkRebuilder(threadKernels(), storedChunk(task, rows, cols), { slabRows, outDtype: dtype });
  let byteLength = 0;
  forEachSlab(rows, slabRows, (_firstRow, rowCount) => {
    const bytes = rebuilder.rebuild(rowCount);
    new Uint8Array(output).set(bytes, byteLength);
    byteLength += bytes.byteLength;
    return null;
  });
  return { input, output, byteLength };
}

export function convertChunk(task: ConvertTask): RebuildReply {
  const { rows, cols, slabRows, storedDtype, dtype, input, output } = task;
  const converter = new Converter(threadKernels(), {
    cols,
    slabRows,
    sourceDtype: storedDtype,
    sourceScale: "none",
    outDtype: dtype,
  });
  const rowBytes = (cols * DTYPES[storedDtype].bits) / 8;
  let byteLength = 0;
  forEachSlab(rows, slabRows, (firstRow, rowCount) => {
    converter.source(rowCount).set(new Uint8Array(input, firstRow * rowBytes, rowCount * rowBytes));
    const bytes = converter.convert(rowCount);
    new Uint8Array(output).set(bytes, byteLength);
    byteLength += bytes.byteLength;
    return null;
  });
  return { input, output, byteLength };
}
