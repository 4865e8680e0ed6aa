/**
 * The header of a GGUF file of version 2 or 3, little-endian.
 * Source: docs/gguf.md of ggml; where it leaves something open, ggml/src/gguf.cpp decides.
 *
 * Not read by @huggingface/gguf (0.4.6): it takes a file that is cut off in its header for one with zeros there (20
 * tensors of no name and no size, no error), needs 22 s and 360 MB to refuse 24 bytes that promise five million
 * tensors, keeps the whole header with every vocabulary decoded, lets keys of the file overwrite its own fields and
 * each other, takes an alignment of 24, and looks at no offset and no shape.
 */
import type { OpenFile } from "../../io/read.js";
import { HeaderCursor } from "./cursor.js";
import { type GgufEntry, readMetadata } from "./metadata.js";
import { alignUp, type GgufTensor, placeTensors, readTensors } from "./tensors.js";

const MAGIC = "GGUF";

/** Where a file does not say (GGUF_DEFAULT_ALIGNMENT). */
const DEFAULT_ALIGNMENT = 32;

/** Largest alignment: that of huge pages. Writers use 32; a larger one only makes the file long. */
const MAX_ALIGNMENT = 2 * 1024 * 1024;

export interface GgufHeader {
  readonly metadata: ReadonlyMap<string, GgufEntry>;
  /** In order of their bytes. */
  readonly tensors: readonly GgufTensor[];
  /** Where the tensors' data begins in the file. */
  readonly dataByteOffset: number;
  /** Bytes that follow the last tensor and its padding. */
  readonly trailingBytes: number;
}

/**
 * Reads the header by position, a window at a time.
 * @param source what messages call the header
 * @throws E_HEADER, E_HEADER_SIZE, E_TRUNCATED, E_LIMIT, E_INTEGER, E_UTF8, E_DUPLICATE, E_DTYPE, E_PREQUANTIZED,
 *   E_SHAPE, E_BOUNDS, E_OVERLAP, E_HOLE
 */
export async function readHeader(file: OpenFile, source: string): Promise<GgufHeader> {
  const cursor = new HeaderCursor(file, source);
  const magic = (await cursor.bytes(MAGIC.length, "the magic number")).toString("latin1");
  if (magic !== MAGIC) cursor.fail("E_HEADER", `it begins with ${JSON.stringify(magic)}, not "${MAGIC}"`);
  checkVersion(cursor, await cursor.u32("the version"));
  const tensorCount = await cursor.count("the number of tensors");
  const entryCount = await cursor.count("the number of keys");
  const metadata = await readMetadata(cursor, entryCount);
  const alignment = readAlignment(cursor, metadata);
  const tensors = await readTensors(cursor, tensorCount);
  const dataByteOffset = alignUp(cursor.byteOffset, alignment);
  const data = { alignment, byteOffset: dataByteOffset, fileByteLength: file.byteLength };
  const { placed, trailingBytes } = placeTensors(tensors, data, source);
  return { metadata, tensors: placed, dataByteOffset, trailingBytes };
}

/** Whether a file begins as GGUF does. */
export function looksLikeGguf(head: Uint8Array): boolean {
  return Buffer.from(head.subarray(0, MAGIC.length)).toString("latin1") === MAGIC;
}

function checkVersion(cursor: HeaderCursor, version: number): void {
  if (version === 2 || version === 3) return;
  // A small number whose bytes stand the other way round.
  if (version !== 0 && (version & 0xffff) === 0) {
    cursor.fail("E_HEADER", "it is big-endian, only little-endian files are read", {
      hint: "convert it with gguf-convert-endian of the Python package gguf",
    });
  }
  cursor.fail("E_HEADER", `it is version ${version}, only 2 and 3 are read`, { details: { version } });
}

function readAlignment(cursor: HeaderCursor, metadata: ReadonlyMap<string, GgufEntry>): number {
  const entry = metadata.get("general.alignment");
  if (entry === undefined) return DEFAULT_ALIGNMENT;
  const { type, value } = entry;
  if (type !== "uint32" || typeof value !== "number") {
    return cursor.fail("E_HEADER", `"general.alignment" is of type ${type}, not uint32`);
  }
  if (value === 0 || (value & (value - 1)) !== 0) {
    cursor.fail("E_HEADER", `"general.alignment" is ${value}, no power of two`, { details: { alignment: value } });
  }
  if (value > MAX_ALIGNMENT) {
    cursor.fail("E_LIMIT", `"general.alignment" is ${value}, the limit is ${MAX_ALIGNMENT}`, {
      details: { alignment: value, limit: MAX_ALIGNMENT },
    });
  }
  return value;
}
