/** A layer that is kept in a file as stored chunks, back to float32. */
import { runInOrder } from "../../engine/queue.js";
import type { Session } from "../../engine/session.js";
import type { StoredSpec } from "../../tensor/stored.js";
import type { PartRanges } from "../../worker/messages.js";
import { bytesOf, type Parts, packParts, partsByteLength, partsEnd } from "../../worker/parts.js";
import type { Spill } from "../spill.js";
import { sliceParts } from "../stored-rows.js";

/** Rows are rebuilt this much at a time: a chunk of 4 MiB of 2-bit codes would be 64 MiB of float32. */
const PIECE_BYTES = 4 * 1024 * 1024;

/** A quantized layer in a spill file. */
export interface KeptLayer {
  readonly rows: number;
  readonly cols: number;
  readonly stored: StoredSpec;
  readonly equalizationScales: Float32Array | null;
  readonly chunks: readonly { readonly rows: number; readonly parts: PartRanges; readonly byteOffset: number }[];
}

/** The whole layer; its memory is the caller's, what it is made with is counted in the session's budget. */
export async function rebuildLayer(
  name: string,
  layer: KeptLayer,
  spill: Spill,
  session: Session,
  signal: AbortSignal,
): Promise<Float32Array> {
  const { rows, cols, chunks } = layer;
  const weights = new Float32Array(rows * cols);
  const pieceRows = Math.max(1, Math.floor(PIECE_BYTES / (4 * cols)));
  let firstRow = 0;
  for (const chunk of chunks) {
    const chunkBytes = partsEnd(chunk.parts);
    // Codes of a piece are fewer bytes than its weights.
    const pieceBytes = 2 * 4 * cols * Math.min(pieceRows, chunk.rows);
    const least = chunkBytes + pieceBytes;
    if (least > session.budget.capacity) throw session.memoryError(`"${name}"`, 0, least - session.budget.capacity);
    const room = Math.floor((session.budget.capacity - chunkBytes) / pieceBytes);
    const window = Math.min(session.threads, Math.ceil(chunk.rows / pieceRows), room);
    const reservedBytes = chunkBytes + window * pieceBytes;
    await session.budget.acquire(reservedBytes, signal);
    try {
      const stored = session.buffers.take(chunkBytes);
      await spill.read(new Uint8Array(stored, 0, chunkBytes), chunk.byteOffset);
      const into = weights.subarray(firstRow * cols, (firstRow + chunk.rows) * cols);
      await rebuildChunk({ layer, chunk, stored, pieceRows, window, into }, session, signal);
      session.buffers.give(stored);
    } finally {
      session.budget.release(reservedBytes);
    }
    firstRow += chunk.rows;
  }
  return weights;
}

interface ChunkRebuild {
  readonly layer: KeptLayer;
  readonly chunk: KeptLayer["chunks"][number];
  readonly stored: ArrayBuffer;
  readonly pieceRows: number;
  /** Pieces under way at once. */
  readonly window: number;
  readonly into: Float32Array;
}

async function rebuildChunk(
  { layer, chunk, stored, pieceRows, window, into }: ChunkRebuild,
  session: Session,
  signal: AbortSignal,
): Promise<void> {
  const { cols, equalizationScales } = layer;
  const whole: Parts = {
    data: bytesOf(stored, chunk.parts, "data"),
    scales: bytesOf(stored, chunk.parts, "scales"),
    zeroPoints: bytesOf(stored, chunk.parts, "zeroPoints"),
    scaleCodes: bytesOf(stored, chunk.parts, "scaleCodes"),
    zeroPointCodes: bytesOf(stored, chunk.parts, "zeroPointCodes"),
    residualScaleCodes: bytesOf(stored, chunk.parts, "residualScaleCodes"),
  };
  const replies = runInOrder(Math.ceil(chunk.rows / pieceRows), window, (index) => {
    const firstRow = index * pieceRows;
    const rows = Math.min(pieceRows, chunk.rows - firstRow);
    const piece = sliceParts(whole, chunk.rows, { firstRow, rows });
    const input = session.buffers.take(partsByteLength(Object.values(piece).map((part) => part?.byteLength ?? 0)));
    const output = session.buffers.take(4 * rows * cols);
    const slabRows = Math.max(1, Math.min(rows, Math.floor(session.slabBytes / (4 * cols))));
    const parts = packParts(piece, input);
    const shape = { rows, cols, slabRows, dtype: "F32", stored: layer.stored, equalizationScales } as const;
    return session.run({ kind: "rebuild", ...shape, parts, input, output }, [input, output], signal);
  });
  let at = 0;
  for await (const { input, output, byteLength } of replies) {
    into.set(new Float32Array(output, 0, byteLength / 4), at);
    at += byteLength / 4;
    session.buffers.give(input);
    session.buffers.give(output);
  }
}
