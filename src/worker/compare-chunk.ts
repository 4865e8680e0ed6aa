/** Compares a stored chunk with its source: quantized ones rebuilt by the kernels, kept ones byte for byte. */
import { ChunkRebuilder } from "../kernels/chunk-rebuilder.js";
import type { StoredChunk } from "../tensor/stored.js";
import { forEachKeptSlab, isCopied } from "./keep-chunk.js";
import { threadKernels } from "./kernels.js";
import type { CompareKeptReply, CompareKeptTask, CompareReply, CompareTask, RebuildTask } from "./messages.js";
import { bytesOf, floatsOf } from "./parts.js";
import { forEachSlab, readSlab, scaleKind } from "./source.js";

export function compareChunk(task: CompareTask): CompareReply {
  const { source, slabRows, importance, input } = task;
  const rebuilder = new ChunkRebuilder(threadKernels(), storedChunk(task, source.rows, source.cols), {
    slabRows,
    sourceDtype: source.dtype,
    sourceScale: scaleKind(source.scales),
    ...(importance === undefined ? {} : { importance }),
  });
  const nonFinite = forEachSlab(source.rows, slabRows, (firstRow, rowCount) => {
    readSlab(source, firstRow, rowCount, rebuilder);
    return rebuilder.compare(rowCount);
  });
  const position = nonFinite === null ? null : { ...nonFinite, row: source.firstRow + nonFinite.row };
  const importanceSums = importance === undefined ? null : rebuilder.importanceSums();
  return { input, sums: rebuilder.sums(), importanceSums, nonFinite: position };
}

export function compareKeptChunk(task: CompareKeptTask): CompareKeptReply {
  const { source, storedDtype, slabRows, input, data } = task;
  const stored = Buffer.from(input, data.byteOffset, data.byteLength);
  // One slab at a time: the stored bytes are already in memory, the source's need not be as well.
  const slab = new Uint8Array(isCopied(source, storedDtype) ? data.byteLength : 0);
  let done = 0;
  const differs = forEachKeptSlab(source, storedDtype, slabRows, slab, (bytes) => {
    const same = stored.subarray(done, done + bytes.byteLength).equals(bytes);
    done += bytes.byteLength;
    return same ? null : true;
  });
  return { input, identical: differs === null && done === data.byteLength };
}

/** Views on the parts in a task's buffer. */
export function storedChunk(
  task: Pick<CompareTask | RebuildTask, "stored" | "parts" | "equalizationScales" | "input">,
  rows: number,
  cols: number,
): StoredChunk {
  const { stored, parts, input, equalizationScales } = task;
  return {
    ...stored,
    rows,
    cols,
    data: bytesOf(input, parts, "data") ?? new Uint8Array(0),
    scales: floatsOf(input, parts, "scales") ?? new Float32Array(0),
    zeroPoints: floatsOf(input, parts, "zeroPoints"),
    scaleCodes: bytesOf(input, parts, "scaleCodes"),
    zeroPointCodes: bytesOf(input, parts, "zeroPointCodes"),
    residualScaleCodes: bytesOf(input, parts, "residualScaleCodes"),
    equalizationScales,
  };
}
