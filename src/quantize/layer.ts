/**
 * One layer from source to stored chunks: quantized, measured, and where it is not good enough quantized again
 * with more bits, until it is or stays as it was (fallback 2 → 4 → 8 → kept).
 */

import { runInOrder } from "../engine/queue.js";
import type { Session } from "../engine/session.js";
import { ArrowQuantError } from "../errors.js";
import { nextSpec } from "../plan/fallback.js";
import type { LayerPlan } from "../plan/plan.js";
import { DTYPES, type Dtype } from "../tensor/dtype.js";
import { countElements, type QuantSpec } from "../tensor/layout.js";
import { addSums, deriveMetrics, type ErrorSums, zeroSums } from "../tensor/metrics.js";
import type { NonFiniteWeight, PartRanges, SourceRows } from "../worker/messages.js";
import { partsEnd } from "../worker/parts.js";
import { type ChunkGrid, keptGrid, quantizedBufferBytes, quantizedGrid, rowsOfChunk } from "./layer-layout.js";
import type { LayerReport } from "./result.js";
import type { Spill } from "./spill.js";

/** What all layers of a component's run share. */
export interface LayerContext {
  readonly session: Session;
  readonly signal: AbortSignal;
  readonly component: string;
  /** Open file descriptors and paths, by index of the component's files. */
  readonly files: readonly { readonly fd: number; readonly path: string }[];
  readonly minAccuracy: number;
  readonly failFast: boolean;
  readonly onNonFinite: "error" | "keep";
  readonly openSpill: () => Promise<Spill>;
  /** Tells the meter of source bytes done. */
  readonly onBytes: (layer: string, byteCount: number) => void;
}

/** One chunk as it goes into the file. `buffer` is the session's again once the chunk is written. */
export interface StoredChunkOutput {
  readonly chunkIndex: number;
  readonly chunkCount: number;
  readonly buffer: ArrayBuffer;
  readonly parts: PartRanges;
  readonly crc32: number;
  /** null when kept. */
  readonly sums: ErrorSums | null;
}

/** How a layer is stored, and why. */
export interface SettledLayer {
  /** null: kept, as the plan's `storedDtype`. */
  readonly spec: QuantSpec | null;
  readonly reason: string;
  readonly fallbackFrom: LayerReport["fallbackFrom"];
}

/** A settled layer with its chunks, which are produced as they are asked for. */
export interface LayerOutcome {
  readonly settled: SettledLayer;
  readonly chunks: AsyncIterable<StoredChunkOutput>;
}

interface Attempt {
  readonly sums: ErrorSums;
  readonly nonFinite: NonFiniteWeight | null;
  readonly chunks: AsyncIterable<StoredChunkOutput>;
  discard(): Promise<void>;
}

/**
 * Settles how a layer is stored.
 *
 * @param reservedBytes what the caller holds of the session's budget for this layer's buffers
 * @param slabRows rows a worker reads at a time
 * @param sourceScales values of the tensor's source scale, where it has one
 * @throws E_NONFINITE, E_QUALITY (with `failFast`), errors of reading, the signal's reason
 */
export async function settleLayer(
  context: LayerContext,
  layer: LayerPlan,
  reservedBytes: number,
  slabRows: number,
  sourceScales: Float32Array | null,
): Promise<LayerOutcome> {
  const source: LayerSource = { context, layer, reservedBytes, slabRows, sourceScales };
  if (layer.spec === null) return keptOutcome(source, layer.reason, []);
  const measures = context.minAccuracy > 0 && !layer.pinned;
  // Nothing can change what is stored: chunks go out as they come.
  if (!measures && context.onNonFinite === "error") return streamedOutcome(source, layer.spec);

  const tried: { quantType: string; cosineSimilarity: number }[] = [];
  let countsBytes = true;
  for (let spec: QuantSpec | null = layer.spec; spec !== null; spec = nextSpec(spec)) {
    const attempt = await measureLayer(source, spec, countsBytes);
    countsBytes = false;
    if (attempt.nonFinite !== null) {
      await attempt.discard();
      const { row, col, value } = attempt.nonFinite;
      return keptOutcome(source, `keep: weight at row ${row}, column ${col} is ${value} (on_nonfinite keep)`, tried);
    }
    const { cosineSimilarity } = deriveMetrics(attempt.sums);
    if (!measures || cosineSimilarity >= context.minAccuracy) {
      return quantizedOutcome(source, spec, attempt.chunks, tried);
    }
    await attempt.discard();
    if (context.failFast) throw qualityError(source, spec, cosineSimilarity);
    tried.push({ quantType: `int${spec.bits}`, cosineSimilarity });
  }
  return keptOutcome(source, `keep: below min_accuracy ${context.minAccuracy} at every width`, tried);
}

interface LayerSource {
  readonly context: LayerContext;
  readonly layer: LayerPlan;
  readonly reservedBytes: number;
  readonly slabRows: number;
  readonly sourceScales: Float32Array | null;
}

/** Quantizes all chunks and holds them, in memory where they fit what is reserved, else in a spill file. */
async function measureLayer(source: LayerSource, spec: QuantSpec, countsBytes: boolean): Promise<Attempt> {
  const { context, layer, reservedBytes } = source;
  const grid = quantizedGrid(layer.tensor.shape, spec);
  const fits = grid.totalBufferBytes <= reservedBytes;
  const spill = fits ? null : await context.openSpill();
  const held: StoredChunkOutput[] = [];
  const spilled: { byteOffset: number; chunk: StoredChunkOutput }[] = [];
  const discard = async () => {
    for (const chunk of held) context.session.buffers.give(chunk.buffer);
    await spill?.remove();
  };
  const sums = zeroSums();
  try {
    for await (const { chunk, nonFinite } of quantizeChunks(source, spec, grid, countsBytes)) {
      if (nonFinite !== null) return { sums, nonFinite, chunks: toAsync([]), discard };
      addSums(sums, chunk.sums as ErrorSums);
      if (spill === null) {
        held.push(chunk);
      } else {
        spilled.push({ byteOffset: await spill.append(new Uint8Array(chunk.buffer, 0, partsEnd(chunk.parts))), chunk });
        context.session.buffers.give(chunk.buffer);
      }
    }
  } catch (thrown) {
    await discard();
    throw thrown;
  }
  const chunks = spill === null ? toAsync(held) : readSpill(context.session, spill, spilled);
  return { sums, nonFinite: null, chunks, discard };
}

async function* readSpill(
  session: Session,
  spill: Spill,
  spilled: readonly { readonly byteOffset: number; readonly chunk: StoredChunkOutput }[],
): AsyncGenerator<StoredChunkOutput> {
  try {
    for (const { byteOffset, chunk } of spilled) {
      const byteLength = partsEnd(chunk.parts);
      const buffer = session.buffers.take(byteLength);
      await spill.read(new Uint8Array(buffer, 0, byteLength), byteOffset);
      yield { ...chunk, buffer };
    }
  } finally {
    await spill.remove();
  }
}

/** Chunks of a quantized layer in order, as many at work at once as the reserved bytes allow. */
function quantizeChunks(
  source: LayerSource,
  spec: QuantSpec,
  grid: ChunkGrid,
  countsBytes: boolean,
): AsyncGenerator<{ chunk: StoredChunkOutput; nonFinite: NonFiniteWeight | null }> {
  const { context, layer, slabRows } = source;
  const { session, signal } = context;
  const window = Math.max(1, Math.floor(source.reservedBytes / grid.chunkBufferBytes));
  const replies = runInOrder(grid.chunkCount, window, async (chunkIndex) => {
    const rows = rowsOfChunk(grid, chunkIndex);
    const output = session.buffers.take(quantizedBufferBytes(rows, grid.cols, spec));
    const task = {
      kind: "quantize",
      source: sourceRows(source, grid, chunkIndex),
      spec,
      slabRows: Math.min(slabRows, rows),
      output,
    } as const;
    return session.run(task, [output], signal);
  });
  return (async function* () {
    let chunkIndex = 0;
    for await (const { output, parts, sums, crc32, nonFinite } of replies) {
      if (nonFinite !== null && context.onNonFinite === "error") throw nonFiniteError(source, nonFinite);
      if (countsBytes) context.onBytes(layer.tensor.name, chunkSourceBytes(source, grid, chunkIndex));
      const chunk = { chunkIndex, chunkCount: grid.chunkCount, buffer: output, parts, crc32, sums };
      yield { chunk, nonFinite };
      chunkIndex += 1;
    }
  })();
}

/** Chunks of a kept layer in order: the source's bytes, or float32 where a source scale applies. */
function keepChunks(source: LayerSource, countsBytes: boolean): AsyncGenerator<StoredChunkOutput> {
  const { context, layer, slabRows } = source;
  const { session, signal } = context;
  const grid = keptGrid(layer.tensor.shape, layer.storedDtype);
  const window = Math.max(1, Math.floor(source.reservedBytes / Math.max(1, grid.chunkBufferBytes)));
  const replies = runInOrder(grid.chunkCount, window, async (chunkIndex) => {
    const rows = rowsOfChunk(grid, chunkIndex);
    const output = session.buffers.take(Math.max(1, keptBytes(grid, rows, layer.storedDtype)));
    const task = {
      kind: "keep",
      source: sourceRows(source, grid, chunkIndex),
      storedDtype: layer.storedDtype,
      slabRows: Math.max(1, Math.min(slabRows, rows)),
      output,
    } as const;
    return session.run(task, [output], signal);
  });
  return (async function* () {
    let chunkIndex = 0;
    for await (const { output, byteLength, crc32 } of replies) {
      if (countsBytes) context.onBytes(layer.tensor.name, chunkSourceBytes(source, grid, chunkIndex));
      const parts = { data: { byteOffset: 0, byteLength } };
      yield { chunkIndex, chunkCount: grid.chunkCount, buffer: output, parts, crc32, sums: null };
      chunkIndex += 1;
    }
  })();
}

function streamedOutcome(source: LayerSource, spec: QuantSpec): LayerOutcome {
  const quantized = quantizeChunks(source, spec, quantizedGrid(source.layer.tensor.shape, spec), true);
  const chunks = (async function* () {
    for await (const { chunk } of quantized) yield chunk;
  })();
  return quantizedOutcome(source, spec, chunks, []);
}

function quantizedOutcome(
  source: LayerSource,
  spec: QuantSpec,
  chunks: AsyncIterable<StoredChunkOutput>,
  fallbackFrom: LayerReport["fallbackFrom"],
): LayerOutcome {
  const fallback = fallbackFrom.length === 0 ? "" : `, fell back to ${spec.bits} bits (min_accuracy)`;
  return { settled: { spec, reason: source.layer.reason + fallback, fallbackFrom }, chunks };
}

function keptOutcome(source: LayerSource, reason: string, fallbackFrom: LayerReport["fallbackFrom"]): LayerOutcome {
  return { settled: { spec: null, reason, fallbackFrom }, chunks: keepChunks(source, source.layer.spec === null) };
}

/** @param sums over all chunks; of no meaning where the layer is kept */
export function reportLayer(
  component: string,
  { tensor, storedDtype }: LayerPlan,
  { spec, reason, fallbackFrom }: SettledLayer,
  sums: ErrorSums,
): LayerReport {
  const grid = spec === null ? keptGrid(tensor.shape, storedDtype) : quantizedGrid(tensor.shape, spec);
  return {
    name: tensor.name,
    shape: tensor.shape,
    dtype: tensor.dtype,
    component,
    quantType: spec === null ? "none" : `int${spec.bits}`,
    groupSize: spec?.groupSize ?? null,
    method: spec?.method ?? null,
    reason,
    fallbackFrom,
    parameterCount: countElements(tensor.shape),
    bytesIn: tensor.location.byteLength,
    bytesOut: grid.storedBytes,
    metrics: spec === null ? null : deriveMetrics(sums),
  };
}

function sourceRows(source: LayerSource, grid: ChunkGrid, chunkIndex: number): SourceRows {
  const { context, layer, sourceScales } = source;
  const { tensor } = layer;
  const file = context.files[tensor.location.file] as { fd: number; path: string };
  const firstRow = chunkIndex * grid.rowsPerChunk;
  const rows = rowsOfChunk(grid, chunkIndex);
  return {
    fd: file.fd,
    path: file.path,
    tensorName: tensor.name,
    byteOffset: tensor.location.byteOffset + (firstRow * grid.cols * DTYPES[tensor.dtype].bits) / 8,
    dtype: tensor.dtype,
    rows,
    cols: grid.cols,
    firstRow,
    scales:
      sourceScales === null || tensor.sourceScale?.per === "tensor"
        ? sourceScales
        : sourceScales.slice(firstRow, firstRow + rows),
  };
}

function chunkSourceBytes(source: LayerSource, grid: ChunkGrid, chunkIndex: number): number {
  return (rowsOfChunk(grid, chunkIndex) * grid.cols * DTYPES[source.layer.tensor.dtype].bits) / 8;
}

function keptBytes(grid: ChunkGrid, rows: number, dtype: Dtype): number {
  return (rows * grid.cols * DTYPES[dtype].bits) / 8;
}

async function* toAsync<T>(items: readonly T[]): AsyncGenerator<T> {
  yield* items;
}

function nonFiniteError(source: LayerSource, { row, col, value }: NonFiniteWeight): ArrowQuantError {
  const { name } = source.layer.tensor;
  return new ArrowQuantError("E_NONFINITE", `"${name}" is ${value} at row ${row}, column ${col}`, {
    hint: "keep such layers unquantized with --on-nonfinite keep",
    details: { tensor: name, component: source.context.component, row, col, value: String(value) },
  });
}

function qualityError(source: LayerSource, spec: QuantSpec, cosineSimilarity: number): ArrowQuantError {
  const { name } = source.layer.tensor;
  const { minAccuracy } = source.context;
  return new ArrowQuantError(
    "E_QUALITY",
    `"${name}" has a cosine similarity of ${cosineSimilarity.toFixed(4)} at ${spec.bits} bits, least is ${minAccuracy}`,
    {
      hint: "drop --fail-fast to fall back to more bits for this layer alone, or lower --min-accuracy",
      details: { tensor: name, component: source.context.component, bits: spec.bits, cosineSimilarity, minAccuracy },
    },
  );
}
