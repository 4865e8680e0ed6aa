/**
 * Where the messages of an Arrow IPC stream or file lie, by their headers alone.
 * Spec: https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc
 */
import { ArrowQuantError } from "../../errors.js";
import { type OpenFile, readExactly } from "../../io/read.js";
import {
  CONTINUATION,
  DICTIONARY,
  type MessageHeader,
  PREFIX_BYTES,
  parseFooter,
  parseMessage,
  RECORD_BATCH,
  SCHEMA,
} from "./arrow-header.js";

/** First and last six bytes of an Arrow file. */
export const ARROW_MAGIC = Buffer.from("ARROW1");

/** The magic and two bytes of padding. */
const FILE_START = 8;

/** After an Arrow file's footer: its length and the magic. */
const FILE_TRAILER_BYTES = 10;

/** Headers say where columns lie: some ten bytes a column, and the footer some 24 bytes a batch. */
const MAX_HEADER_BYTES = 16 * 1024 * 1024;

/** Batches hold hundreds of rows where others write them; the places of so many take some 100 MiB. */
const MAX_MESSAGES = 1024 * 1024;

export interface MessagePlace {
  readonly byteOffset: number;
  /** Prefix, header and body. */
  readonly byteLength: number;
}

export interface BatchPlace extends MessagePlace {
  readonly firstRow: number;
  readonly rowCount: number;
  /** Dictionaries that it may refer to: so many of the first. */
  readonly dictionaryCount: number;
}

export interface ArrowMessages {
  /** The message that a stream begins with. */
  readonly schema: Uint8Array;
  readonly dictionaries: readonly MessagePlace[];
  readonly batches: readonly BatchPlace[];
  readonly rowCount: number;
}

/** @throws E_TRUNCATED, E_TRAILING, E_LIMIT; E_CALIBRATION where the headers make no sense */
export async function findMessages(file: OpenFile, kind: "file" | "stream"): Promise<ArrowMessages> {
  return kind === "file" ? findInFile(file) : findInStream(file);
}

async function findInStream(file: OpenFile): Promise<ArrowMessages> {
  const end = file.byteLength;
  const batches: BatchPlace[] = [];
  const dictionaries: MessagePlace[] = [];
  let rowCount = 0;
  let position = 0;
  let schema: Uint8Array | null = null;
  for (;;) {
    const message = await readMessage(file, position, end, rowCount);
    if (message === null) break;
    checkCount(file.path, batches.length + dictionaries.length + 1);
    const place = { byteOffset: position, byteLength: message.byteLength };
    if (schema === null) {
      if (message.type !== SCHEMA) throw malformed(file.path, position, "the stream does not begin with a schema");
      schema = new Uint8Array(message.byteLength);
      await readExactly(file, schema, position);
    } else if (message.type === DICTIONARY) dictionaries.push(place);
    else if (message.type === RECORD_BATCH) {
      batches.push({
        ...place,
        firstRow: rowCount,
        rowCount: message.rowCount,
        dictionaryCount: dictionaries.length,
      });
      rowCount += message.rowCount;
    } else throw malformed(file.path, position, `a message of type ${message.type} is no batch of rows`);
    position += message.byteLength;
  }
  if (schema === null) throw malformed(file.path, position, "the stream does not begin with a schema");
  if (position + PREFIX_BYTES !== end) throw goesOn(file, position + PREFIX_BYTES);
  return { schema, dictionaries, batches, rowCount };
}

async function findInFile(file: OpenFile): Promise<ArrowMessages> {
  const trailer = Buffer.alloc(FILE_TRAILER_BYTES);
  const trailerStart = file.byteLength - FILE_TRAILER_BYTES;
  if (trailerStart >= FILE_START) await readExactly(file, trailer, trailerStart);
  if (!trailer.subarray(4).equals(ARROW_MAGIC)) {
    const message = `"${file.path}" ends at byte ${file.byteLength} without Arrow's closing mark`;
    throw new ArrowQuantError("E_TRUNCATED", message, {
      hint: "the file was cut off; copy or write it again",
      details: { path: file.path, byteLength: file.byteLength },
    });
  }
  const footerBytes = trailer.readInt32LE(0);
  const end = trailerStart - footerBytes;
  if (end < FILE_START || footerBytes < 0) {
    throw malformed(file.path, trailerStart, `a footer of ${footerBytes} bytes does not fit`);
  }
  const bytes = await readHeader(file, end, footerBytes);
  const footer = parse(() => parseFooter(bytes), file.path, end);
  checkCount(file.path, footer.batches.length + footer.dictionaries.length);
  const dictionaries: MessagePlace[] = [];
  for (const byteOffset of footer.dictionaries) {
    const { byteLength } = await readBlock(file, byteOffset, end, DICTIONARY, 0);
    dictionaries.push({ byteOffset, byteLength });
  }
  const batches: BatchPlace[] = [];
  let firstRow = 0;
  for (const byteOffset of footer.batches) {
    const { byteLength, rowCount } = await readBlock(file, byteOffset, end, RECORD_BATCH, firstRow);
    batches.push({ byteOffset, byteLength, firstRow, rowCount, dictionaryCount: dictionaries.length });
    firstRow += rowCount;
  }
  return { schema: footer.schema, dictionaries, batches, rowCount: firstRow };
}

/** The message that the footer says starts at `position`. */
async function readBlock(
  file: OpenFile,
  position: number,
  end: number,
  type: number,
  row: number,
): Promise<MessageHeader & { readonly byteLength: number }> {
  const message = await readMessage(file, position, end, row);
  if (message?.type === type) return message;
  throw malformed(file.path, position, "the footer expects another message here");
}

/** The message at `position`; null where there is the mark of the end. `row` is the first that is missing in errors. */
async function readMessage(
  file: OpenFile,
  position: number,
  end: number,
  row: number,
): Promise<(MessageHeader & { readonly byteLength: number }) | null> {
  if (position + PREFIX_BYTES > end) throw endsEarly(file, position, position + PREFIX_BYTES, row);
  const prefix = Buffer.alloc(PREFIX_BYTES);
  await readExactly(file, prefix, position);
  if (prefix.readUInt32LE(0) !== CONTINUATION) throw malformed(file.path, position, "no message starts here");
  const headerBytes = prefix.readInt32LE(4);
  if (headerBytes === 0) return null;
  if (headerBytes < 0) throw malformed(file.path, position, `a header of ${headerBytes} bytes`);
  const start = position + PREFIX_BYTES;
  if (start + headerBytes > end) throw endsEarly(file, position, start + headerBytes, row);
  const bytes = await readHeader(file, start, headerBytes);
  const header = parse(() => parseMessage(bytes), file.path, start);
  const byteLength = PREFIX_BYTES + headerBytes + header.bodyBytes;
  if (position + byteLength > end) throw endsEarly(file, position, position + byteLength, row);
  return { ...header, byteLength };
}

async function readHeader(file: OpenFile, byteOffset: number, byteLength: number): Promise<Uint8Array> {
  if (byteLength > MAX_HEADER_BYTES) {
    const where = `"${file.path}", byte ${byteOffset}`;
    throw new ArrowQuantError(
      "E_LIMIT",
      `${where}: a header of ${byteLength} bytes, the limit is ${MAX_HEADER_BYTES}`,
      {
        details: { path: file.path, byteOffset, byteLength, limit: MAX_HEADER_BYTES },
      },
    );
  }
  const bytes = new Uint8Array(byteLength);
  await readExactly(file, bytes, byteOffset);
  return bytes;
}

function checkCount(path: string, count: number): void {
  if (count <= MAX_MESSAGES) return;
  throw new ArrowQuantError("E_LIMIT", `"${path}" has ${count} or more record batches, the limit is ${MAX_MESSAGES}`, {
    hint: "write the file again with more rows per record batch",
    details: { path, count, limit: MAX_MESSAGES },
  });
}

function parse<T>(work: () => T, path: string, position: number): T {
  try {
    return work();
  } catch (thrown) {
    if (!(thrown instanceof RangeError)) throw thrown;
    throw malformed(path, position, "the header makes no sense");
  }
}

function malformed(path: string, position: number, problem: string): ArrowQuantError {
  return new ArrowQuantError("E_CALIBRATION", `"${path}" is no sound Arrow data: byte ${position}: ${problem}`, {
    hint: "write the file again; Arrow of version 0.15 or newer is read",
    details: { path, byteOffset: position },
  });
}

function endsEarly(file: OpenFile, from: number, to: number, row: number): ArrowQuantError {
  const { path, byteLength } = file;
  const message = `"${path}" ends before row ${row}: that needs bytes ${from} to ${to}, the file has ${byteLength}`;
  return new ArrowQuantError("E_TRUNCATED", message, {
    hint: "the file was cut off; copy or write it again",
    details: { path, byteLength, from, to, row },
  });
}

function goesOn(file: OpenFile, end: number): ArrowQuantError {
  return new ArrowQuantError("E_TRAILING", `"${file.path}" goes on after its data ends at byte ${end}`, {
    hint: "two files were joined, or one was written over a longer one",
    details: { path: file.path, end, byteLength: file.byteLength },
  });
}
