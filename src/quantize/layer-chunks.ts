/** A layer's chunks: read, quantized or kept by the workers, and handed on in order. */
import { runInOrder } from "../engine/queue.js";
import type { Session } from "../engine/session.js";
import { ArrowQuantError } from "../errors.js";
import type { LayerPlan } from "../plan/plan.js";
import { DTYPES, type Dtype } from "../tensor/dtype.js";
import type { QuantSpec } from "../tensor/layout.js";
import {
  addOutputSums,
  addSums,
  type ErrorSums,
  type OutputSums,
  zeroOutputSums,
  zeroSums,
} from "../tensor/metrics.js";
import type { ChunkCalibration, NonFiniteWeight, PartRanges, SourceRows } from "../worker/messages.js";
import { partsEnd } from "../worker/parts.js";
import { type ChunkGrid, keptGrid, quantizedBufferBytes, quantizedGrid, rowsOfChunk } from "./layer-layout.js";
import { placeRows } from "./source-place.js";
import type { Spill } from "./spill.js";

/** What a layer is read from, and whom to ask. */
export interface LayerSource {
  readonly session: Session;
  readonly signal: AbortSignal;
  readonly component: string;
  /** Open file descriptors and paths, by index of the component's files. */
  readonly files: readonly { readonly fd: number; readonly path: string }[];
  readonly onNonFinite: "error" | "keep";
  readonly openSpill: () => Promise<Spill>;
  /** Tells the meter of source bytes done. */
  readonly onBytes: (layer: string, byteCount: number) => void;
  readonly layer: LayerPlan;
  /** What the caller holds of the session's budget for this layer's buffers. */
  readonly reservedBytes: number;
  /** Attempts that may hold their chunks at once; each may hold its part of what is reserved. */
  readonly heldAttempts: number;
  /** Rows a worker reads at a time. */
  readonly slabRows: number;
  /** Values of the tensor's source scale, where it has one. */
  readonly sourceScales: Float32Array | null;
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

/** All chunks of a layer quantized in one way, held back until it is decided whether they are good enough. */
export interface Attempt {
  readonly sums: ErrorSums;
  /** null where no output was measured. */
  readonly outputSums: OutputSums | null;
  readonly nonFinite: NonFiniteWeight | null;
  readonly chunks: AsyncIterable<StoredChunkOutput>;
  discard(): Promise<void>;
}

/** Quantizes all chunks and holds them, in memory where they fit what is reserved, else in a spill file. */
export async function measureLayer(
  source: LayerSource,
  spec: QuantSpec,
  calibration: ChunkCalibration | null,
  countsBytes: boolean,
): Promise<Attempt> {
  const { session, layer } = source;
  const grid = quantizedGrid(layer.tensor.shape, spec);
  const fits = grid.totalBufferBytes <= source.reservedBytes / source.heldAttempts;
  const spill = fits ? null : await source.openSpill();
  const held: StoredChunkOutput[] = [];
  const spilled: { byteOffset: number; chunk: StoredChunkOutput }[] = [];
  const discard = async () => {
    for (const chunk of held) session.buffers.give(chunk.buffer);
    await spill?.remove();
  };
  const sums = zeroSums();
  const outputSums = calibration?.heldBack ? zeroOutputSums() : null;
  try {
    const chunks = quantizeChunks(source, spec, calibration, grid, countsBytes);
    for await (const { chunk, outputSums: part, nonFinite } of chunks) {
      if (nonFinite !== null) return { sums, outputSums, nonFinite, chunks: toAsync([]), discard };
      addSums(sums, chunk.sums as ErrorSums);
      if (outputSums !== null && part !== null) addOutputSums(outputSums, part);
      if (spill === null) {
        held.push(chunk);
      } else {
        spilled.push({ byteOffset: await spill.append(new Uint8Array(chunk.buffer, 0, partsEnd(chunk.parts))), chunk });
        session.buffers.give(chunk.buffer);
      }
    }
  } catch (thrown) {
    await discard();
    throw thrown;
  }
  const chunks = spill === null ? toAsync(held) : readSpill(session, spill, spilled);
  return { sums, outputSums, nonFinite: null, chunks, discard };
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

/** Chunks of a quantized layer as they come, none of them held. */
export async function* streamLayer(
  source: LayerSource,
  spec: QuantSpec,
  calibration: ChunkCalibration | null,
): AsyncGenerator<StoredChunkOutput> {
  const grid = quantizedGrid(source.layer.tensor.shape, spec);
  for await (const { chunk } of quantizeChunks(source, spec, calibration, grid, true)) yield chunk;
}

/** Chunks of a quantized layer in order, as many at work at once as the reserved bytes allow. */
function quantizeChunks(
  source: LayerSource,
  spec: QuantSpec,
  calibration: ChunkCalibration | null,
  grid: ChunkGrid,
  countsBytes: boolean,
): AsyncGenerator<{ chunk: StoredChunkOutput; outputSums: OutputSums | null; nonFinite: NonFiniteWeight | null }> {
  const { session, signal, layer, slabRows } = source;
  const window = Math.max(1, Math.floor(source.reservedBytes / source.heldAttempts / grid.chunkBufferBytes));
  const replies = runInOrder(grid.chunkCount, window, async (chunkIndex) => {
    const rows = rowsOfChunk(grid, chunkIndex);
    const output = session.buffers.take(quantizedBufferBytes(rows, grid.cols, spec));
    const task = {
      kind: "quantize",
      source: sourceRows(source, grid, chunkIndex),
      spec,
      calibration,
      slabRows: Math.min(slabRows, rows),
      output,
    } as const;
    return session.run(task, [output], signal);
  });
  return (async function* () {
    let chunkIndex = 0;
    for await (const { output, parts, sums, outputSums, crc32, nonFinite } of replies) {
      if (nonFinite !== null && source.onNonFinite === "error") throw nonFiniteError(source, nonFinite);
      if (countsBytes) source.onBytes(layer.tensor.name, chunkSourceBytes(source, grid, chunkIndex));
      const chunk = { chunkIndex, chunkCount: grid.chunkCount, buffer: output, parts, crc32, sums };
      yield { chunk, outputSums, nonFinite };
      chunkIndex += 1;
    }
  })();
}

/** Chunks of a kept layer in order: the source's bytes, or float32 where a source scale applies. */
export function keepChunks(source: LayerSource, countsBytes: boolean): AsyncGenerator<StoredChunkOutput> {
  const { session, signal, layer, slabRows } = source;
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
      if (countsBytes) source.onBytes(layer.tensor.name, chunkSourceBytes(source, grid, chunkIndex));
      const parts = { data: { byteOffset: 0, byteLength } };
      yield { chunkIndex, chunkCount: grid.chunkCount, buffer: output, parts, crc32, sums: null };
      chunkIndex += 1;
    }
  })();
}

/** float32[channels]: the largest magnitude of the weights that each input channel meets. */
export async function findChannelMaxima(source: LayerSource, spec: QuantSpec, colsPerChannel: number) {
  const { session, signal, slabRows } = source;
  const grid = quantizedGrid(source.layer.tensor.shape, spec);
  const maxima = new Float32Array(grid.cols / colsPerChannel);
  // Two at a time keep the threads busy; their replies are a row each.
  const replies = runInOrder(grid.chunkCount, session.threads, (chunkIndex) =>
    session.run(
      {
        kind: "column-maxima",
        source: sourceRows(source, grid, chunkIndex),
        slabRows: Math.min(slabRows, rowsOfChunk(grid, chunkIndex)),
      },
      [],
      signal,
    ),
  );
  for await (const { maxima: ofColumns } of replies) {
    for (const [col, value] of ofColumns.entries()) {
      const channel = Math.floor(col / colsPerChannel);
      if (value > (maxima[channel] as number)) maxima[channel] = value;
    }
  }
  return maxima;
}

function sourceRows(source: LayerSource, grid: ChunkGrid, chunkIndex: number): SourceRows {
  return sourceRun(source, grid.cols, chunkIndex * grid.rowsPerChunk, rowsOfChunk(grid, chunkIndex));
}

/** A run of rows of the layer's source, as the workers take it. */
export function sourceRun(
  { files, layer, sourceScales }: Pick<LayerSource, "files" | "layer" | "sourceScales">,
  cols: number,
  firstRow: number,
  rows: number,
): SourceRows {
  const { tensor } = layer;
  const file = files[tensor.location.file] as { fd: number; path: string };
  return {
    fd: file.fd,
    path: file.path,
    tensorName: tensor.name,
    ...placeRows(tensor, firstRow),
    dtype: tensor.dtype,
    rows,
    cols,
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
    details: { tensor: name, component: source.component, row, col, value: String(value) },
  });
}
