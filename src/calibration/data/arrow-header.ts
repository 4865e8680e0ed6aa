/**
 * The few numbers of Arrow's headers that say where things lie. Headers are flatbuffers (Message.fbs, File.fbs); all
 * that they say besides is checked by parquet-wasm, which verifies the whole of them, where apache-arrow goes by
 * every length that it meets. Spec: https://flatbuffers.dev/internals
 */

/** Before each message: this mark and the length of its header. */
export const PREFIX_BYTES = 8;
export const CONTINUATION = 0xffffffff;

/** `header_type` of a message. */
export const SCHEMA = 1;
export const DICTIONARY = 2;
export const RECORD_BATCH = 3;

export interface MessageHeader {
  readonly type: number;
  readonly bodyBytes: number;
  /** 0 of what is no record batch. */
  readonly rowCount: number;
}

/** @throws RangeError where the bytes make no sense */
export function parseMessage(bytes: Uint8Array): MessageHeader {
  const view = viewOf(bytes);
  const root = view.getUint32(0, true);
  const typeAt = fieldAt(view, root, 1);
  const headerAt = fieldAt(view, root, 2);
  const bodyAt = fieldAt(view, root, 3);
  const type = typeAt === null ? 0 : view.getUint8(typeAt);
  const lengthAt = type === RECORD_BATCH && headerAt !== null ? fieldAt(view, follow(view, headerAt), 0) : null;
  return {
    type,
    bodyBytes: bodyAt === null ? 0 : countAt(view, bodyAt),
    rowCount: lengthAt === null ? 0 : countAt(view, lengthAt),
  };
}

export interface ArrowFooter {
  /** A schema message as a stream begins with. */
  readonly schema: Uint8Array;
  /** Where messages start in the file. */
  readonly dictionaries: readonly number[];
  readonly batches: readonly number[];
}

/** Bytes of a Block: where a message starts, and twice the length of something. */
const BLOCK_BYTES = 24;

/** @throws RangeError where the bytes make no sense */
export function parseFooter(bytes: Uint8Array): ArrowFooter {
  const view = viewOf(bytes);
  const root = view.getUint32(0, true);
  const versionAt = fieldAt(view, root, 0);
  const schemaAt = fieldAt(view, root, 1);
  if (schemaAt === null) throw new RangeError("no schema");
  const version = versionAt === null ? 0 : view.getInt16(versionAt, true);
  const blocks = (field: number): number[] => {
    const at = fieldAt(view, root, field);
    return at === null ? [] : readBlocks(view, follow(view, at));
  };
  return { schema: schemaMessage(bytes, follow(view, schemaAt), version), dictionaries: blocks(2), batches: blocks(3) };
}

function readBlocks(view: DataView, vector: number): number[] {
  const length = view.getUint32(vector, true);
  if (vector + 4 + length * BLOCK_BYTES > view.byteLength) throw new RangeError(`${length} blocks do not fit`);
  return Array.from({ length }, (_, index) => countAt(view, vector + 4 + index * BLOCK_BYTES));
}

/** A message's table and its vtable, before the bytes that its header lies in; keeps those aligned. */
const MESSAGE_BYTES = 32;

/**
 * Some writers put the schema into the footer only. The message made here has the footer's bytes as its end, and
 * points into them, so that nothing of the schema need be understood or written anew.
 */
function schemaMessage(footer: Uint8Array, schema: number, version: number): Uint8Array {
  const headerBytes = Math.ceil((MESSAGE_BYTES + footer.length) / 8) * 8;
  const message = new Uint8Array(PREFIX_BYTES + headerBytes);
  message.set(footer, PREFIX_BYTES + MESSAGE_BYTES);
  const view = new DataView(message.buffer);
  view.setUint32(0, CONTINUATION, true);
  view.setUint32(4, headerBytes, true);
  const start = PREFIX_BYTES;
  // Root: where the table is. Then the vtable: its size, the table's, places of version, header_type and header.
  view.setUint32(start, 16, true);
  for (const [index, value] of [10, 12, 4, 6, 8].entries()) view.setUint16(start + 4 + 2 * index, value, true);
  // The table: how far before it the vtable is, then its fields.
  view.setInt32(start + 16, 12, true);
  view.setInt16(start + 20, version, true);
  view.setUint8(start + 22, SCHEMA);
  view.setUint32(start + 24, MESSAGE_BYTES + schema - 24, true);
  return message;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Where a table has its field; null where it has none. */
function fieldAt(view: DataView, table: number, field: number): number | null {
  const vtable = table - view.getInt32(table, true);
  const entry = 4 + 2 * field;
  const offset = entry < view.getUint16(vtable, true) ? view.getUint16(vtable + entry, true) : 0;
  return offset === 0 ? null : table + offset;
}

/** Where the table or vector lies that a field points to. */
function follow(view: DataView, at: number): number {
  return at + view.getUint32(at, true);
}

function countAt(view: DataView, at: number): number {
  const number = Number(view.getBigInt64(at, true));
  if (number < 0 || !Number.isSafeInteger(number)) throw new RangeError(`a count of ${number}`);
  return number;
}
