/**
 * What a stopped run had done, so that the next can go on from there (`--resume`): a log of settled layers, chunk by
 * chunk, beside the output. The native file itself cannot be gone on with, since its footer comes last; the log holds
 * the very buffers that were written, so that the resumed run gives the same bytes.
 *
 * A record is a length, a line of JSON, and the chunk's bytes. A killed run may leave half a record, a crash of the
 * machine anything: every checksum is verified when the log is opened, and it is used up to the last whole layer.
 */
import { type FileHandle, mkdir, open } from "node:fs/promises";
import { dirname } from "node:path";
import type { Session } from "../engine/session.js";
import { ArrowQuantError } from "../errors.js";
import { writeError } from "../io/output.js";
import type { ErrorSums } from "../tensor/metrics.js";
import type { PartRanges } from "../worker/messages.js";
import { checksumParts, partsEnd } from "../worker/parts.js";
import type { LayerOutcome, SettledLayer } from "./layer.js";
import type { StoredChunkOutput } from "./layer-chunks.js";

/** Length of a record's JSON, as u32 little-endian. */
const LENGTH_BYTES = 4;

/** A record's JSON is at most some 20 bytes per input channel; a longer one is not ours. */
const MAX_RECORD_BYTES = 16 * 1024 * 1024;

interface ChunkRecord {
  readonly chunkIndex: number;
  readonly chunkCount: number;
  readonly parts: PartRanges;
  readonly crc32: number;
  readonly sums: ErrorSums | null;
}

type JournalRecord =
  | { readonly key: string }
  | { readonly chunk: ChunkRecord; readonly byteLength: number }
  | { readonly layer: SettledLayer };

export interface JournaledLayer extends SettledLayer {
  readonly chunks: readonly (ChunkRecord & { readonly byteOffset: number; readonly byteLength: number })[];
}

export class Journal {
  readonly #path: string;
  readonly #handle: FileHandle;
  /** Layers settled before, from the first on without a gap. */
  readonly layers: readonly JournaledLayer[];
  #end: number;

  private constructor(path: string, handle: FileHandle, layers: readonly JournaledLayer[], end: number) {
    this.#path = path;
    this.#handle = handle;
    this.layers = layers;
    this.#end = end;
  }

  /**
   * Opens or begins the log of a run. One of another source, version or settings is begun anew.
   * @param key says which run this is: fingerprint, version and settings
   */
  static async open(path: string, key: string): Promise<Journal> {
    await mkdir(dirname(path), { recursive: true }).catch((thrown) => {
      throw writeError(thrown, path);
    });
    const handle = await open(path, "a+").then(
      async (created) => {
        await created.close();
        return open(path, "r+");
      },
      (thrown) => {
        throw writeError(thrown, path);
      },
    );
    const { layers, end } = await readLog(handle, key);
    await handle.truncate(end);
    const journal = new Journal(path, handle, layers, end);
    if (end === 0) await journal.#append({ key });
    return journal;
  }

  async appendChunk(chunk: StoredChunkOutput): Promise<void> {
    const { chunkIndex, chunkCount, parts, crc32, sums, buffer } = chunk;
    const bytes = new Uint8Array(buffer, 0, partsEnd(parts));
    await this.#append({ chunk: { chunkIndex, chunkCount, parts, crc32, sums }, byteLength: bytes.byteLength }, bytes);
  }

  /** Ends a layer; only now are its chunks used by a resumed run. */
  appendLayer(layer: SettledLayer): Promise<void> {
    return this.#append({ layer });
  }

  async readChunk(into: Uint8Array, byteOffset: number): Promise<void> {
    await readFully(this.#handle, into, byteOffset);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.close();
  }

  async #append(record: JournalRecord, bytes = new Uint8Array(0)): Promise<void> {
    const json = Buffer.from(JSON.stringify(record));
    const head = Buffer.alloc(LENGTH_BYTES);
    head.writeUInt32LE(json.length);
    try {
      for (const piece of [Buffer.concat([head, json]), bytes]) {
        for (let done = 0; done < piece.byteLength; ) {
          const { bytesWritten } = await this.#handle.write(piece, done, piece.byteLength - done, this.#end + done);
          done += bytesWritten;
        }
        this.#end += piece.byteLength;
      }
    } catch (thrown) {
      throw writeError(thrown, this.#path);
    }
  }
}

/** A layer of the log as if it had just been settled. */
export function replayLayer(journal: Journal, layer: JournaledLayer, session: Session): LayerOutcome {
  const { chunks: records, ...settled } = layer;
  const chunks = (async function* () {
    for (const { byteOffset, byteLength, ...chunk } of records) {
      const buffer = session.buffers.take(byteLength);
      await journal.readChunk(new Uint8Array(buffer, 0, byteLength), byteOffset);
      if (checksumParts(buffer, chunk.parts) !== chunk.crc32) {
        throw new ArrowQuantError("E_CRC", "what the stopped run left behind changed while it was read", {
          hint: "does another run resume the same output? Run again without --resume",
        });
      }
      yield { ...chunk, buffer };
    }
  })();
  return { settled, chunks };
}

/** Whole layers of a log, and where the last of them ends; nothing where the log is of another run. */
async function readLog(handle: FileHandle, key: string): Promise<{ layers: JournaledLayer[]; end: number }> {
  const { size } = await handle.stat();
  const layers: JournaledLayer[] = [];
  let chunks: JournaledLayer["chunks"][number][] = [];
  let end = 0;
  let at = 0;
  for (;;) {
    const record = await readRecord(handle, at, size);
    if (record === null) break;
    at = record.end;
    const { value } = record;
    if ("key" in value) {
      if (value.key !== key) break;
      end = at;
    } else if (end === 0) {
      break;
    } else if ("layer" in value) {
      layers.push({ ...value.layer, chunks });
      chunks = [];
      end = at;
    } else {
      const { byteLength } = value;
      if (at + byteLength > size) break;
      const buffer = new ArrayBuffer(byteLength);
      await readFully(handle, new Uint8Array(buffer), at);
      if (checksumParts(buffer, value.chunk.parts) !== value.chunk.crc32) break;
      chunks.push({ ...value.chunk, byteOffset: at, byteLength });
      at += byteLength;
    }
  }
  return { layers, end };
}

async function readRecord(
  handle: FileHandle,
  at: number,
  size: number,
): Promise<{ value: JournalRecord; end: number } | null> {
  if (at + LENGTH_BYTES > size) return null;
  const head = Buffer.alloc(LENGTH_BYTES);
  await readFully(handle, head, at);
  const length = head.readUInt32LE();
  const end = at + LENGTH_BYTES + length;
  if (length > MAX_RECORD_BYTES || end > size) return null;
  const json = Buffer.alloc(length);
  await readFully(handle, json, at + LENGTH_BYTES);
  try {
    return { value: JSON.parse(json.toString("utf8")) as JournalRecord, end };
  } catch {
    return null;
  }
}

async function readFully(handle: FileHandle, into: Uint8Array, byteOffset: number): Promise<void> {
  for (let done = 0; done < into.byteLength; ) {
    const { bytesRead } = await handle.read(into, done, into.byteLength - done, byteOffset + done);
    if (bytesRead === 0) throw new Error("the journal shrank while it was read");
    done += bytesRead;
  }
}
