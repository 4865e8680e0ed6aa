/** The tensors of a GGUF output on their way into its files: cut into chunks that workers settle, written at their places. */
import { closeSync, openSync } from "node:fs";
import type { Statistics } from "../../calibration/statistics.js";
import type { ProgressMeter } from "../../engine/meter.js";
import { runInOrder } from "../../engine/queue.js";
import type { Session } from "../../engine/session.js";
import { raceSignal } from "../../engine/signal.js";
import { ArrowQuantError } from "../../errors.js";
import { quoteName } from "../../formats/json.js";
import { readSourceScales } from "../../formats/scale.js";
import { OutputFile } from "../../io/output.js";
import { type Dtype, isBlockQuantized, spanOf } from "../../tensor/dtype.js";
import type { Component } from "../../tensor/info.js";
import { CHUNK_BYTES, countElements, viewAs2d } from "../../tensor/layout.js";
import { addSums, deriveMetrics, type ErrorSums, zeroSums } from "../../tensor/metrics.js";
import type { NonFiniteWeight, SourceRows } from "../../worker/messages.js";
import { layerCalibration } from "../layer-calibration.js";
import type { PlannedFile } from "./files.js";
import type { GgufLayerReport, GgufTensorPlan, RowView } from "./job.js";
import { joinedRows, plainRows, usualRows, wholeRows } from "./row-view.js";
import { type OpenSource, type RowSpan, tensorRows } from "./tensor-rows.js";

/** Chunks begun and not yet written, per thread: one at work, one waiting. */
const CHUNKS_PER_THREAD = 2;

/** Weights of a chunk: a second or so of searching codes, so that a few large tensors keep all threads busy. */
const CHUNK_WEIGHTS = 1024 * 1024;

/** float16: from here on weights round to infinity. */
const F16_LIMIT = 65_520;
/** bfloat16: the same. */
const BF16_LIMIT = (2 - 2 ** -8) * 2 ** 127;
/** The first float32 above float16's largest number: scales of blocks are float16 (kernels/ggml-quantizer.ts). */
const BLOCK_LIMIT = 65_504 + 2 ** -8;

export interface GgufRun {
  readonly session: Session;
  readonly component: Component;
  /** null: nothing was measured. */
  readonly statistics: Statistics | null;
  readonly signal: AbortSignal;
  readonly abort: (reason: unknown) => void;
  readonly meter: ProgressMeter;
}

/** A tensor with all that its chunks share. */
interface TensorWork {
  readonly plan: GgufTensorPlan;
  readonly view: RowView;
  readonly rowsPerChunk: number;
  readonly chunkCount: number;
  /** Read with the first chunk, let go with the last. */
  shared: Promise<SharedParts> | null;
}

interface SharedParts {
  readonly scales: Float32Array | null;
  /** float32[cols]; null: all ones. */
  readonly importance: Float32Array | null;
}

interface ChunkReply {
  readonly sums: ErrorSums | null;
  readonly nonFinite: NonFiniteWeight | null;
}

/** Open files of the source. */
type SourceFiles = readonly OpenSource[];

/**
 * Writes every file whole and syncs it.
 * @param files with paths of the temporary files
 * @returns one report per tensor, in order
 */
export async function writeGguf(run: GgufRun, files: readonly PlannedFile[]): Promise<GgufLayerReport[]> {
  return withSources(run, async (sources) => {
    const outputs: OutputFile[] = [];
    try {
      const places: { output: OutputFile; byteOffset: number }[] = [];
      for (const { path, layout } of files) {
        const output = await OutputFile.create(path);
        outputs.push(output);
        await output.write(layout.header);
        places.push(...layout.byteOffsets.map((byteOffset) => ({ output, byteOffset })));
      }
      const work = files.flatMap(({ tensors }) => tensors.map((plan) => planWork(run, plan)));
      const reports = await settleTensors(run, work, async (index, firstRow, rows) => {
        const { output, byteOffset } = places[index] as (typeof places)[number];
        return writeChunk(run, sources, work[index] as TensorWork, { firstRow, rows }, async (bytes) => {
          const rowBytes = storedRowBytes(work[index] as TensorWork);
          await raceSignal(output.writeAt(bytes, byteOffset + firstRow * rowBytes), run.signal);
        });
      });
      for (const [index, output] of outputs.entries()) await finish(output, files[index] as PlannedFile, run.signal);
      return reports;
    } catch (thrown) {
      run.abort(thrown);
      throw thrown;
    } finally {
      for (const output of outputs) {
        const closed = output.close();
        // After an abort nobody waits for the disk.
        if (run.signal.aborted) closed.catch(() => undefined);
        else await closed;
      }
    }
  });
}

/** The first weight of each tensor that cannot be stored as planned; tensors without are left out. */
export async function findNonFinite(
  run: GgufRun,
  tensors: readonly GgufTensorPlan[],
): Promise<ReadonlyMap<string, NonFiniteWeight>> {
  return withSources(run, async (sources) => {
    const found = new Map<string, NonFiniteWeight>();
    for (const plan of tensors.filter(isLossy)) {
      const work = planWork(run, plan);
      const chunks = runInOrder(work.chunkCount, CHUNKS_PER_THREAD * run.session.threads, async (index) => {
        const firstRow = index * work.rowsPerChunk;
        const rows = Math.min(work.rowsPerChunk, work.view.rows - firstRow);
        const source = await sourceRows(run, sources, work, { firstRow, rows });
        const limit = limitOf(plan.dtype);
        const slabRows = slabRowsOf(run.session, work);
        return run.session.run({ kind: "cast", source, dtype: "F32", limit, slabRows, output: null }, [], run.signal);
      });
      for await (const { nonFinite } of chunks) {
        if (nonFinite === null || found.has(plan.tensor.name)) continue;
        found.set(plan.tensor.name, inSource(plan, work.view, nonFinite));
      }
      run.meter.add(run.component.name, plan.tensor.name, plan.tensor.location.byteLength, 0);
    }
    return found;
  });
}

/** Whether writing can lose something: neither a copy nor float32. */
export function isLossy({ tensor, dtype }: GgufTensorPlan): boolean {
  return dtype !== "F32" && !isCopied(tensor.dtype, dtype, tensor.sourceScale !== null);
}

async function withSources<T>(run: GgufRun, work: (sources: SourceFiles) => Promise<T>): Promise<T> {
  const sources = run.component.files.map(({ path }) => ({ path, fd: openSync(path, "r") }));
  try {
    return await work(sources);
  } finally {
    // Of chunks that were begun, threads may still read.
    await run.session.settle(run.signal);
    for (const { fd } of sources) closeSync(fd);
  }
}

async function finish(output: OutputFile, { layout }: PlannedFile, signal: AbortSignal): Promise<void> {
  const padding = layout.byteLength - output.byteLength;
  if (padding > 0) await output.write(new Uint8Array(padding));
  await raceSignal(output.sync(), signal);
}

/** Runs the chunks of all tensors, in order, a few at a time. */
async function settleTensors(
  { session, component, meter, signal }: GgufRun,
  work: readonly TensorWork[],
  start: (index: number, firstRow: number, rows: number) => Promise<ChunkReply>,
): Promise<GgufLayerReport[]> {
  const chunks = work.flatMap(({ view, rowsPerChunk, chunkCount }, index) =>
    Array.from({ length: chunkCount }, (_, chunk) => {
      const firstRow = chunk * rowsPerChunk;
      return { index, firstRow, rows: Math.min(rowsPerChunk, view.rows - firstRow) };
    }),
  );
  const replies = runInOrder(chunks.length, CHUNKS_PER_THREAD * session.threads, (number) => {
    const { index, firstRow, rows } = chunks[number] as (typeof chunks)[number];
    return start(index, firstRow, rows);
  });
  const reports: GgufLayerReport[] = [];
  try {
    for (const each of work) {
      const { plan, view, chunkCount } = each;
      const sums = zeroSums();
      let isMeasured = false;
      for (let chunk = 0; chunk < chunkCount; chunk += 1) {
        signal.throwIfAborted();
        const { value } = await replies.next();
        const reply = value as ChunkReply;
        if (reply.nonFinite !== null) throw nonFiniteError(component.name, plan, view, reply.nonFinite);
        if (reply.sums !== null) {
          addSums(sums, reply.sums);
          isMeasured = true;
        }
        const share = plan.tensor.location.byteLength / chunkCount;
        meter.add(component.name, plan.tensor.name, share, chunk === chunkCount - 1 ? 1 : 0);
      }
      if (chunkCount === 0) meter.add(component.name, plan.tensor.name, 0, 1);
      each.shared = null;
      reports.push(reportTensor(component.name, plan, isMeasured ? sums : null));
    }
  } finally {
    await replies.return(undefined);
  }
  return reports;
}

function planWork({ statistics }: GgufRun, plan: GgufTensorPlan): TensorWork {
  const { tensor, dtype } = plan;
  const view = viewOf(plan, statistics !== null);
  const outputRowBytes = spanOf(dtype, 0, view.cols).byteLength;
  const rowsPerChunk = Math.max(
    1,
    Math.min(Math.floor(CHUNK_BYTES / Math.max(1, outputRowBytes)), Math.floor(CHUNK_WEIGHTS / Math.max(1, view.cols))),
  );
  const chunkCount = countElements(tensor.shape) === 0 ? 0 : Math.ceil(view.rows / rowsPerChunk);
  return { plan, view, rowsPerChunk, chunkCount, shared: null };
}

/** The rows that workers take: those that importances and scales belong to, where there are any. */
function viewOf({ tensor, dtype, calibrated }: GgufTensorPlan, hasStatistics: boolean): RowView {
  const { shape, sourceScale, transposed } = tensor;
  if (countElements(shape) === 0) return { rows: 0, cols: 0 };
  if (sourceScale?.per === "row" || transposed) return viewAs2d(shape);
  if (calibrated && hasStatistics) return (wholeRows(shape, dtype) ?? joinedRows(shape, dtype)) as RowView;
  // What is copied may be of types without rows of their own.
  return isBlockQuantized(dtype) ? usualRows(shape, dtype) : plainRows(countElements(shape), dtype);
}

async function writeChunk(
  run: GgufRun,
  sources: SourceFiles,
  work: TensorWork,
  { firstRow, rows }: RowSpan,
  write: (bytes: Uint8Array) => Promise<void>,
): Promise<ChunkReply> {
  const { session, signal } = run;
  const { plan } = work;
  const byteCount = rows * storedRowBytes(work);
  if (byteCount > session.budget.capacity) {
    throw session.memoryError(quoteName(plan.tensor.name), 0, byteCount - session.budget.capacity);
  }
  await session.budget.acquire(byteCount, signal);
  try {
    const source = await sourceRows(run, sources, work, { firstRow, rows });
    const { importance } = await sharedParts(run, work);
    const output = session.buffers.take(byteCount);
    const common = { source, slabRows: slabRowsOf(session, work), output };
    const reply = await storeRows(run, plan, common, importance);
    if (reply.nonFinite === null) await write(new Uint8Array(reply.output, 0, byteCount));
    session.buffers.give(reply.output);
    return reply;
  } finally {
    session.budget.release(byteCount);
  }
}

async function storeRows(
  { session, signal }: GgufRun,
  plan: GgufTensorPlan,
  common: { readonly source: SourceRows; readonly slabRows: number; readonly output: ArrayBuffer },
  importance: Float32Array | null,
): Promise<ChunkReply & { readonly output: ArrayBuffer }> {
  const { dtype } = plan;
  const transfer = [common.output];
  if (!isLossy(plan)) {
    const kept = await session.run({ kind: "keep", ...common, storedDtype: dtype }, transfer, signal);
    return { output: kept.output, sums: null, nonFinite: null };
  }
  if (isBlockQuantized(dtype)) {
    return session.run({ kind: "ggml", ...common, type: dtype, importance }, transfer, signal);
  }
  const task = { kind: "cast", ...common, dtype: dtype as "F16" | "BF16", limit: limitOf(dtype) } as const;
  const cast = await session.run(task, transfer, signal);
  return { ...cast, output: cast.output as ArrayBuffer };
}

async function sourceRows(run: GgufRun, sources: SourceFiles, work: TensorWork, span: RowSpan): Promise<SourceRows> {
  const { tensor } = work.plan;
  const { scales } = await sharedParts(run, work);
  return tensorRows(sources[tensor.location.file] as OpenSource, tensor, work.view, span, scales);
}

function sharedParts(run: GgufRun, work: TensorWork): Promise<SharedParts> {
  work.shared ??= readShared(run, work);
  return work.shared;
}

async function readShared({ component, statistics }: GgufRun, { plan, view }: TensorWork): Promise<SharedParts> {
  const { tensor, calibrated } = plan;
  const { sourceScale } = tensor;
  const scales = sourceScale === null ? null : await readSourceScales(component.files, sourceScale);
  const measured = calibrated ? await statistics?.read(tensor.name) : null;
  const importance = measured ? layerCalibration(measured).importance : null;
  return { scales, importance: importance === null ? null : repeat(importance, view.cols) };
}

/** Side by side as often as rows are joined. */
function repeat(importance: Float32Array, cols: number): Float32Array {
  if (importance.length === cols) return importance;
  const repeated = new Float32Array(cols);
  for (let at = 0; at < cols; at += importance.length) repeated.set(importance, at);
  return repeated;
}

function storedRowBytes({ plan, view }: TensorWork): number {
  return spanOf(plan.dtype, 0, view.cols).byteLength;
}

function slabRowsOf(session: Session, { view }: TensorWork): number {
  return Math.max(1, Math.min(view.rows, Math.floor(session.slabBytes / Math.max(1, 4 * view.cols))));
}

function isCopied(source: Dtype, stored: Dtype, isScaled: boolean): boolean {
  return source === stored && !isScaled;
}

function limitOf(dtype: Dtype): number {
  if (dtype === "F16") return F16_LIMIT;
  return dtype === "BF16" ? BF16_LIMIT : BLOCK_LIMIT;
}

function reportTensor(component: string, plan: GgufTensorPlan, sums: ErrorSums | null): GgufLayerReport {
  const { tensor, dtype, reason, vetoed, byteLength } = plan;
  if (sums !== null && !Number.isFinite(sums.errorNorm2)) {
    throw new ArrowQuantError("E_NONFINITE", `${quoteName(tensor.name)} cannot be held by ${dtype.toLowerCase()}`, {
      hint: "its scales are float16: give the tensor another type with --tensor-type",
      details: { tensor: tensor.name, component, type: dtype },
    });
  }
  return {
    name: tensor.name,
    shape: tensor.shape,
    dtype: tensor.dtype,
    component,
    quantType: dtype.toLowerCase(),
    reason,
    vetoed,
    parameterCount: countElements(tensor.shape),
    bytesIn: tensor.location.byteLength,
    bytesOut: byteLength,
    metrics: sums === null ? null : deriveMetrics(sums),
  };
}

/** Where a weight stands in the source's own 2-D view. */
function inSource({ tensor }: GgufTensorPlan, { cols }: RowView, { row, col, value }: NonFiniteWeight) {
  const index = row * cols + col;
  const own = viewAs2d(tensor.shape).cols;
  return { row: Math.floor(index / own), col: index % own, value };
}

function nonFiniteError(component: string, plan: GgufTensorPlan, view: RowView, found: NonFiniteWeight) {
  const { tensor, dtype } = plan;
  const { row, col, value } = inSource(plan, view, found);
  const beyond = Number.isFinite(value) ? `, beyond ${dtype.toLowerCase()}` : "";
  const message = `${quoteName(tensor.name)} is ${value} at row ${row}, column ${col}${beyond}`;
  return new ArrowQuantError("E_NONFINITE", message, {
    hint: "store such tensors as f32 with --on-nonfinite keep, or with --tensor-type",
    details: { tensor: tensor.name, component, row, col, value: String(value) },
  });
}
