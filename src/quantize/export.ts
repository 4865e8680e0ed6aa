/** A native file as plain weights: every tensor rebuilt, float ones as the type asked for, in a safetensors file. */
import { basename } from "node:path";
import { ProgressMeter } from "../engine/meter.js";
import type { ProgressListener } from "../engine/progress.js";
import { runInOrder } from "../engine/queue.js";
import type { Session } from "../engine/session.js";
import { ArrowQuantError } from "../errors.js";
import { openNative } from "../formats/parquet/reader.js";
import type { NativeRow } from "../formats/parquet/row.js";
import { openSafetensors } from "../formats/safetensors/reader.js";
import { layOutSafetensors, type OutputTensor, WRITER_KEY, WRITER_NAME } from "../formats/safetensors/writer.js";
import { OutputFile, OutputTarget } from "../io/output.js";
import { DTYPES, type Dtype, isFloat } from "../tensor/dtype.js";
import { isKept, packKeptRow, packRow, type RowPlace, type RowRun, RowTracker } from "./stored-rows.js";

export const EXPORT_DTYPES = ["F32", "F16", "BF16"] as const;
export type ExportDtype = (typeof EXPORT_DTYPES)[number];

/** Rows are rebuilt this much at a time: a chunk of 4 MiB of 2-bit codes would be 64 MiB of float32. */
const PIECE_BYTES = 4 * 1024 * 1024;

/** Pieces under way at once per thread: one at work, one being written. */
const PIECES_PER_THREAD = 2;

export interface ExportJob {
  /** A native file. */
  readonly input: string;
  /** A `.safetensors` file. */
  readonly output: string;
  readonly dtype: ExportDtype;
  readonly force?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ProgressListener | undefined;
}

export interface ExportResult {
  readonly output: string;
  readonly tensors: number;
  readonly bytesOut: number;
  readonly seconds: number;
  readonly warnings: readonly string[];
}

/**
 * Rebuilds a native file into safetensors.
 * @throws errors of reading the native file, E_OUTPUT, E_WRITE, the signal's reason
 */
export async function exportNative(job: ExportJob, session: Session): Promise<ExportResult> {
  const startedAt = performance.now();
  using place = await session.jobs.enter(job.signal);
  const { signal, abort } = place;
  if (!job.output.endsWith(".safetensors")) {
    throw new ArrowQuantError("E_USAGE", `output ${job.output} does not end in .safetensors`, {
      details: { output: job.output },
    });
  }
  const native = await openNative(job.input);
  try {
    const tensors: OutputTensor[] = [];
    for await (const row of native.rowHeaders()) {
      if (row.chunkIndex > 0) continue;
      tensors.push({ name: row.layerName, dtype: exportedDtype(row, job.dtype), shape: row.shape });
    }
    const layout = layOutSafetensors(tensors);
    const target = await OutputTarget.prepare(job.output, {
      kind: "file",
      force: job.force ?? false,
      inputs: [job.input],
      isOurs: isExportOfOurs,
    });
    const meter = new ProgressMeter(
      "export",
      { layers: tensors.length, bytes: layout.byteLength },
      job.onProgress,
      abort,
    );
    let file: OutputFile | null = null;
    try {
      file = await OutputFile.create(target.temporaryPath);
      await file.write(layout.header);
      const tracker = new RowTracker();
      for await (const row of native.rows({ reuseBuffers: true })) {
        signal.throwIfAborted();
        const place = tracker.place(row);
        const dtype = exportedDtype(row, job.dtype);
        const byteOffset = layout.byteOffsets.get(row.layerName) as number;
        const rowBytes = (place.cols * DTYPES[dtype].bits) / 8;
        const byteCount = await writeRow(
          row,
          place,
          dtype,
          file,
          byteOffset + place.firstRow * rowBytes,
          session,
          signal,
        );
        meter.add(native.component, row.layerName, byteCount, row.chunkIndex === row.chunkCount - 1 ? 1 : 0);
      }
      await file.sync();
      await file.close();
      await meter.finish(native.component, signal);
      await target.commit();
    } catch (thrown) {
      abort(thrown);
      await file?.close();
      await target.discard();
      throw job.signal?.aborted ? job.signal.reason : signal.reason;
    }
    return {
      output: target.path,
      tensors: tensors.length,
      bytesOut: layout.byteLength,
      seconds: (performance.now() - startedAt) / 1000,
      warnings: session.warnings,
    };
  } finally {
    native.close();
  }
}

interface PieceShape {
  readonly rows: number;
  readonly cols: number;
  readonly slabRows: number;
  readonly dtype: ExportDtype;
  readonly output: ArrayBuffer;
}

/** Rebuilds a row of the file piece by piece, each written as soon as it is done. */
async function writeRow(
  row: NativeRow,
  { rows, cols }: RowPlace,
  dtype: Dtype,
  file: OutputFile,
  byteOffset: number,
  session: Session,
  signal: AbortSignal,
): Promise<number> {
  const { buffers, budget } = session;
  const storedDtype = row.storedDtype ?? row.dtype;
  if (isKept(row) && storedDtype === dtype) {
    await file.writeAt(row.data, byteOffset);
    return row.data.byteLength;
  }
  const rowBytes = (cols * DTYPES[dtype].bits) / 8;
  const pieceRows = Math.max(1, Math.floor(PIECE_BYTES / Math.max(1, rowBytes)));
  const slabRows = Math.max(1, Math.min(pieceRows, Math.floor(session.slabBytes / Math.max(1, rowBytes))));
  const pieces = runInOrder(Math.ceil(rows / pieceRows), PIECES_PER_THREAD * session.threads, async (index) => {
    const run = { firstRow: index * pieceRows, rows: Math.min(pieceRows, rows - index * pieceRows) };
    const reserved = run.rows * rowBytes + Math.ceil((row.data.byteLength / rows) * run.rows);
    if (reserved > budget.capacity) throw session.memoryError(`"${row.layerName}"`, 0, reserved - budget.capacity);
    await budget.acquire(reserved, signal);
    try {
      const output = buffers.take(run.rows * rowBytes);
      const shape = { rows: run.rows, cols, slabRows, dtype: dtype as ExportDtype, output };
      const reply = isKept(row) ? await convert(shape, run) : await rebuild(shape, run);
      await file.writeAt(new Uint8Array(reply.output, 0, reply.byteLength), byteOffset + run.firstRow * rowBytes);
      buffers.give(reply.input);
      buffers.give(reply.output);
      return reply.byteLength;
    } finally {
      budget.release(reserved);
    }
  });
  let byteCount = 0;
  for await (const byteLength of pieces) byteCount += byteLength;
  return byteCount;

  function convert(shape: PieceShape, run: RowRun) {
    const storedRowBytes = (cols * DTYPES[storedDtype].bits) / 8;
    const stored = { byteOffset: run.firstRow * storedRowBytes, byteLength: run.rows * storedRowBytes };
    const input = packKeptRow(row, buffers, stored);
    return session.run({ kind: "convert", ...shape, storedDtype, input }, [input, shape.output], signal);
  }

  function rebuild(shape: PieceShape, run: RowRun) {
    const { buffer: input, parts, stored, equalizationScales } = packRow(row, buffers, run);
    const task = { kind: "rebuild", ...shape, stored, parts, equalizationScales, input } as const;
    return session.run(task, [input, shape.output], signal);
  }
}

function exportedDtype(row: Pick<NativeRow, "quantType" | "storedDtype" | "dtype">, dtype: ExportDtype): Dtype {
  const storedDtype = row.storedDtype ?? row.dtype;
  return isKept(row) && !isFloat(storedDtype) ? storedDtype : dtype;
}

/** Whether a file bears the mark that exports carry in their metadata. */
async function isExportOfOurs(path: string): Promise<boolean> {
  try {
    const { metadata } = await openSafetensors(path, basename(path));
    return metadata[0]?.get(WRITER_KEY) === WRITER_NAME;
  } catch {
    return false;
  }
}
