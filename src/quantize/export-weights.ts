/** The tensors of native files on their way into safetensors files: rebuilt by the workers, written as they come. */
import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import type { ProgressMeter } from "../engine/meter.js";
import { runInOrder } from "../engine/queue.js";
import type { Session } from "../engine/session.js";
import type { NativeRow } from "../formats/parquet/row.js";
import { layOutSafetensors, type OutputTensor, type SafetensorsLayout } from "../formats/safetensors/writer.js";
import { OutputFile, writeError } from "../io/output.js";
import { DTYPES, type Dtype } from "../tensor/dtype.js";
import { type ComponentForms, type TensorForm, tensorsOf } from "./export-forms.js";
import type { ExportDtype } from "./export-job.js";
import { PackedLayerWriter } from "./packed-rows.js";
import { isKept, packKeptRow, packRow, type RowPlace, type RowRun, RowTracker } from "./stored-rows.js";

/** Rows are rebuilt this much at a time: a chunk of 4 MiB of 2-bit codes would be 64 MiB of float32. */
const PIECE_BYTES = 4 * 1024 * 1024;

/** Pieces under way at once per thread: one at work, one being written. */
const PIECES_PER_THREAD = 2;

export interface WeightFile {
  readonly path: string;
  readonly tensors: readonly OutputTensor[];
}

/** Where a tensor's bytes go. */
export interface TensorPlace {
  readonly file: OutputFile;
  readonly byteOffset: number;
}

interface OpenableFile {
  readonly path: string;
  readonly layout: SafetensorsLayout;
  file: OutputFile | null;
  /** Tensors that are not written yet. */
  left: number;
}

/** A component's safetensors files under way: each is opened with its first tensor and closed, synced, with its last. */
export class WeightFiles {
  readonly byteLength: number;
  readonly #files: OpenableFile[] = [];
  readonly #fileOf = new Map<string, OpenableFile>();

  constructor(files: readonly WeightFile[]) {
    for (const { path, tensors } of files) {
      const openable = { path, layout: layOutSafetensors(tensors), file: null, left: tensors.length };
      this.#files.push(openable);
      for (const { name } of tensors) this.#fileOf.set(name, openable);
    }
    this.byteLength = this.#files.reduce((sum, { layout }) => sum + layout.byteLength, 0);
  }

  async open(tensorName: string): Promise<TensorPlace> {
    const openable = this.#fileOf.get(tensorName) as OpenableFile;
    const file = openable.file ?? (await this.#create(openable));
    return { file, byteOffset: openable.layout.byteOffsets.get(tensorName) as number };
  }

  /** A tensor is complete. */
  async end(tensorName: string): Promise<void> {
    const openable = this.#fileOf.get(tensorName) as OpenableFile;
    openable.left -= 1;
    if (openable.left === 0) await finish(openable);
  }

  /** Writes what has no tensors, after all have ended. */
  async finish(): Promise<void> {
    for (const openable of this.#files) {
      if (openable.layout.byteOffsets.size > 0) continue;
      await this.#create(openable);
      await finish(openable);
    }
  }

  /** Closes what a failure has left open. */
  async close(): Promise<void> {
    for (const openable of this.#files) await openable.file?.close();
  }

  async #create(openable: OpenableFile): Promise<OutputFile> {
    await mkdir(dirname(openable.path), { recursive: true }).catch((thrown) => {
      throw writeError(thrown, openable.path);
    });
    openable.file = await OutputFile.create(openable.path);
    await openable.file.write(openable.layout.header);
    return openable.file;
  }
}

async function finish(openable: OpenableFile): Promise<void> {
  await openable.file?.sync();
  await openable.file?.close();
  openable.file = null;
}

interface WriteOptions {
  readonly session: Session;
  readonly signal: AbortSignal;
  readonly meter: ProgressMeter;
}

/**
 * Writes every tensor of a native file.
 * @returns largest relative error of a packed layer's scales that rounding to their type made; 0 in float32
 */
export async function writeTensors(
  { native, forms }: Pick<ComponentForms, "native" | "forms">,
  files: WeightFiles,
  { session, signal, meter }: WriteOptions,
): Promise<number> {
  const tracker = new RowTracker();
  let packedWriter: PackedLayerWriter | null = null;
  let scaleRounding = 0;
  for await (const row of native.rows({ reuseBuffers: true })) {
    signal.throwIfAborted();
    const place = tracker.place(row);
    const form = forms.get(row.layerName) as TensorForm;
    const isLast = row.chunkIndex === row.chunkCount - 1;
    let byteCount: number;
    if (form.kind === "packed") {
      if (row.chunkIndex === 0) packedWriter = await PackedLayerWriter.open(form, files, session, signal);
      byteCount = await (packedWriter as PackedLayerWriter).add(row, place);
      scaleRounding = Math.max(scaleRounding, (packedWriter as PackedLayerWriter).scaleRounding);
    } else {
      const { file, byteOffset } = await files.open(form.tensor.name);
      const rowBytes = (place.cols * DTYPES[form.tensor.dtype].bits) / 8;
      const at = { file, byteOffset: byteOffset + place.firstRow * rowBytes };
      byteCount = await writeRow(row, place, form.tensor.dtype, at, session, signal);
    }
    if (isLast) for (const { name } of tensorsOf(form)) await files.end(name);
    meter.add(native.component, row.layerName, byteCount, isLast ? 1 : 0);
  }
  return scaleRounding;
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
  { file, byteOffset }: TensorPlace,
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
