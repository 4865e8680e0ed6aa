/**
 * The key/value pairs of a GGUF header. Single values and short lists of numbers are decoded; long lists, a
 * tokenizer's vocabulary say, are checked and stay in the file, where a writer can copy them from.
 * Source: docs/gguf.md of ggml ("gguf_metadata_kv_t").
 */
import { quoteName } from "../json.js";
import { type HeaderCursor, MAX_TEXT_BYTES } from "./cursor.js";

/** Most pairs: models of many files of configuration have some hundred. */
export const MAX_ENTRIES = 65_536;

/** Longest list that is decoded: shapes are lists, and none is longer. */
export const MAX_DECODED_ELEMENTS = 64;

type GgufScalar = number | bigint | boolean;

interface ScalarType {
  readonly name: string;
  readonly byteLength: number;
  readonly read: (bytes: Buffer) => GgufScalar;
}

/** By number (gguf_metadata_value_type). 8 is a string, 9 a list. */
const SCALAR_TYPES: ReadonlyMap<number, ScalarType> = new Map([
  [0, { name: "uint8", byteLength: 1, read: (bytes) => bytes.readUInt8() }],
  [1, { name: "int8", byteLength: 1, read: (bytes) => bytes.readInt8() }],
  [2, { name: "uint16", byteLength: 2, read: (bytes) => bytes.readUInt16LE() }],
  [3, { name: "int16", byteLength: 2, read: (bytes) => bytes.readInt16LE() }],
  [4, { name: "uint32", byteLength: 4, read: (bytes) => bytes.readUInt32LE() }],
  [5, { name: "int32", byteLength: 4, read: (bytes) => bytes.readInt32LE() }],
  [6, { name: "float32", byteLength: 4, read: (bytes) => bytes.readFloatLE() }],
  [7, { name: "bool", byteLength: 1, read: (bytes) => bytes.readUInt8() !== 0 }],
  [10, { name: "uint64", byteLength: 8, read: (bytes) => bytes.readBigUInt64LE() }],
  [11, { name: "int64", byteLength: 8, read: (bytes) => bytes.readBigInt64LE() }],
  [12, { name: "float64", byteLength: 8, read: (bytes) => bytes.readDoubleLE() }],
] satisfies [number, ScalarType][]);

const STRING = 8;
const LIST = 9;

export interface GgufEntry {
  /** `uint32`, `string`, `list of int32`, … */
  readonly type: string;
  /** null: too long to be decoded. */
  readonly value: GgufScalar | string | readonly GgufScalar[] | null;
  /** Where the entry lies in its file, from the key's length on. */
  readonly byteOffset: number;
  readonly byteLength: number;
}

/** Reads `entryCount` pairs. @throws E_LIMIT, E_DUPLICATE, E_HEADER and what the cursor does */
export async function readMetadata(cursor: HeaderCursor, entryCount: number): Promise<Map<string, GgufEntry>> {
  if (entryCount > MAX_ENTRIES) {
    cursor.fail("E_LIMIT", `${entryCount} keys, the limit is ${MAX_ENTRIES}`, {
      details: { entryCount, limit: MAX_ENTRIES },
    });
  }
  const entries = new Map<string, GgufEntry>();
  for (let index = 0; index < entryCount; index += 1) {
    const byteOffset = cursor.byteOffset;
    const key = await cursor.text(`key ${index}`);
    const what = `key ${quoteName(key)}`;
    if (key === "") cursor.fail("E_HEADER", `key ${index} is empty`);
    if (entries.has(key)) cursor.fail("E_DUPLICATE", `${what} stands twice`);
    const { type, value } = await readValue(cursor, what);
    entries.set(key, { type, value, byteOffset, byteLength: cursor.byteOffset - byteOffset });
  }
  return entries;
}

async function readValue(cursor: HeaderCursor, what: string): Promise<Pick<GgufEntry, "type" | "value">> {
  const typeNumber = await cursor.u32(`type of ${what}`);
  if (typeNumber === STRING) return { type: "string", value: await readText(cursor, what) };
  if (typeNumber === LIST) return readList(cursor, what);
  const type = SCALAR_TYPES.get(typeNumber);
  if (type === undefined) return cursor.fail("E_HEADER", `${what} has type ${typeNumber}, which there is not`);
  return { type: type.name, value: type.read(await cursor.bytes(type.byteLength, what)) };
}

/** A string's value, or null for one that is only passed over. */
async function readText(cursor: HeaderCursor, what: string): Promise<string | null> {
  const at = cursor.byteOffset;
  const byteLength = await cursor.count(`length of ${what}`);
  if (byteLength > MAX_TEXT_BYTES) {
    cursor.skip(byteLength, what);
    return null;
  }
  cursor.byteOffset = at;
  return cursor.text(what);
}

async function readList(cursor: HeaderCursor, what: string): Promise<Pick<GgufEntry, "type" | "value">> {
  const typeNumber = await cursor.u32(`type of ${what}`);
  const elementCount = await cursor.count(`length of ${what}`);
  if (typeNumber === STRING) {
    await cursor.skipTexts(elementCount, what);
    return { type: "list of string", value: null };
  }
  // ggml reads no lists of lists, and no writer writes them; to follow them as deep as they go is what an attack wants.
  if (typeNumber === LIST) cursor.fail("E_HEADER", `${what} is a list of lists, which ggml does not read either`);
  const type = SCALAR_TYPES.get(typeNumber);
  if (type === undefined)
    return cursor.fail("E_HEADER", `${what} has elements of type ${typeNumber}, which there is not`);
  const typeName = `list of ${type.name}`;
  if (elementCount > MAX_DECODED_ELEMENTS) {
    cursor.skip(elementCount * type.byteLength, what);
    return { type: typeName, value: null };
  }
  const bytes = await cursor.bytes(elementCount * type.byteLength, what);
  const value = Array.from({ length: elementCount }, (_, index) => type.read(bytes.subarray(index * type.byteLength)));
  return { type: typeName, value };
}
