/**
 * Importance matrices of llama.cpp, also made by tools for diffusion models: second moments of the inputs of matrix
 * multiplications, in GGUF or in the older binary form.
 *
 * Source: https://github.com/ggml-org/llama.cpp, tools/imatrix/imatrix.cpp (`save_imatrix`, `save_imatrix_legacy`)
 * and docs/gguf.md of https://github.com/ggml-org/ggml.
 *
 *     GGUF    general.type = "imatrix"; tensors NAME.in_sum2 F32 [columns, matrices], Σ x², and NAME.counts
 *             F32 [1, matrices], how many x there were
 *     legacy  i32 entries, then of each: i32 length and NAME, i32 calls, i32 columns, F32 [columns], mean x² · calls;
 *             then perhaps i32 calls in all, i32 length and the name of the data set
 */
import { ArrowQuantError } from "../errors.js";
import { quoteName } from "../formats/json.js";
import { readSmallFile } from "../io/read.js";
import { ByteCursor } from "./byte-cursor.js";

export interface ImatrixEntry {
  /** As in the file. */
  readonly name: string;
  /** Mean of x² per column. */
  readonly meansq: Float32Array;
  /** Rows seen; of the older form only the number of chunks of them. */
  readonly count: number;
}

/** The largest models' matrices are below 100 MB. */
export const MAX_IMATRIX_BYTES = 512 * 1024 * 1024;

/** More entries than any model has tensors. */
const MAX_ENTRIES = 2 ** 20;
/** llama.cpp: GGML_MAX_NAME is 64; stable-diffusion.cpp raises it to 160. Names with a suffix are a little longer. */
const MAX_NAME_BYTES = 1024;
/** ggml: GGML_MAX_DIMS. */
const MAX_DIMENSIONS = 4;
const GGUF_VERSIONS = [2, 3];
const DEFAULT_ALIGNMENT = 32;
const F32_TYPE = 0;
const STRING_TYPE = 8;
const ARRAY_TYPE = 9;

/** Bytes of GGUF's metadata types by number; strings and arrays have none. */
const VALUE_BYTES: Readonly<Record<number, number>> = {
  0: 1, // u8
  1: 1, // i8
  2: 2, // u16
  3: 2, // i16
  4: 4, // u32
  5: 4, // i32
  6: 4, // f32
  7: 1, // bool
  10: 8, // u64
  11: 8, // i64
  12: 8, // f64
};

/** Whether a file that begins so is GGUF. */
export function isGguf(head: Uint8Array): boolean {
  return Buffer.from(head.subarray(0, 4)).toString("latin1") === "GGUF";
}

/**
 * Reads an importance matrix of either form. Throws `E_TRUNCATED`, `E_TRAILING`, `E_UTF8`, `E_INTEGER`, `E_LIMIT`,
 * `E_DUPLICATE`, and `E_CALIBRATION` for GGUF files of another kind and for figures that no moments can be.
 */
export async function readImatrix(path: string): Promise<ImatrixEntry[]> {
  const bytes = await readSmallFile(path, MAX_IMATRIX_BYTES);
  const source = `imatrix "${path}"`;
  const entries = isGguf(bytes) ? parseGguf(bytes, source) : parseLegacy(bytes, source);
  const names = new Set<string>();
  for (const { name, meansq, count } of entries) {
    if (names.has(name)) throw new ArrowQuantError("E_DUPLICATE", `${source}: ${quoteName(name)} stands twice`);
    names.add(name);
    const bad = meansq.findIndex((value) => !(value >= 0 && value < Infinity));
    if (bad < 0 && Number.isSafeInteger(count) && count > 0) continue;
    const found = bad < 0 ? `is made of ${count} rows` : `has ${meansq[bad]} as second moment of column ${bad}`;
    throw malformed(source, `${quoteName(name)} ${found}`, { name, count });
  }
  if (entries.length === 0) throw malformed(source, "it has no entries", {});
  return entries;
}

interface GgufTensor {
  readonly name: string;
  readonly dims: readonly number[];
  readonly type: number;
  readonly byteOffset: number;
}

function parseGguf(bytes: Uint8Array, source: string): ImatrixEntry[] {
  const cursor = new ByteCursor(bytes, source);
  cursor.skip(4, "the magic");
  const version = cursor.u32("the version");
  if (!GGUF_VERSIONS.includes(version)) {
    throw malformed(source, `GGUF version ${version}, known are ${GGUF_VERSIONS.join(" and ")}`, { version });
  }
  const tensorCount = readCount(cursor, cursor.u64("the number of tensors"), source);
  const keyCount = readCount(cursor, cursor.u64("the number of keys"), source);
  const strings = new Map<string, string>();
  let alignment = DEFAULT_ALIGNMENT;
  for (let index = 0; index < keyCount; index++) {
    const key = readString(cursor, source);
    const type = cursor.u32("a value's type");
    if (type === STRING_TYPE) strings.set(key, cursor.text(cursor.u64("a string's length"), "a string"));
    else if (key === "general.alignment" && type === 4) alignment = cursor.u32("the alignment");
    else skipValue(cursor, type, source);
  }
  const kind = strings.get("general.type");
  if (kind !== "imatrix") {
    const found = kind === undefined ? "has no general.type" : `is of type ${quoteName(kind)}`;
    throw malformed(source, `this GGUF file ${found}, "imatrix" is expected`, { kind: kind ?? null });
  }
  if (alignment === 0 || alignment > bytes.byteLength) {
    throw malformed(source, `its alignment is ${alignment}`, { alignment });
  }
  const tensors = new Map<string, GgufTensor>();
  for (let index = 0; index < tensorCount; index++) {
    const tensor = readTensor(cursor, source);
    if (tensors.has(tensor.name)) {
      throw new ArrowQuantError("E_DUPLICATE", `${source}: ${quoteName(tensor.name)} stands twice`);
    }
    tensors.set(tensor.name, tensor);
  }
  const dataOffset = Math.ceil(cursor.byteOffset / alignment) * alignment;
  const floatsOf = ({ name, dims, byteOffset }: GgufTensor): Float32Array => {
    const data = new ByteCursor(bytes, source);
    data.skip(dataOffset, "the data");
    data.skip(byteOffset, `the data of ${quoteName(name)}`);
    return data.floats(
      dims.reduce((product, dim) => product * dim, 1),
      `the data of ${quoteName(name)}`,
    );
  };
  return [...tensors.values()].flatMap((sums) => {
    const name = /^(.+)\.in_sum2$/s.exec(sums.name)?.[1];
    if (name === undefined) return [];
    const counts = tensors.get(`${name}.counts`);
    if (counts === undefined) throw malformed(source, `${quoteName(name)} has sums and no counts`, { name });
    return [meanOverMatrices(name, floatsOf(sums), floatsOf(counts), source)];
  });
}

/** Of experts, one matrix each, the mean over all rows that any of them saw: they are one tensor of the model. */
function meanOverMatrices(name: string, sums: Float32Array, counts: Float32Array, source: string): ImatrixEntry {
  const columns = sums.length / counts.length;
  if (!Number.isInteger(columns) || columns < 1) {
    throw malformed(source, `${quoteName(name)} has ${sums.length} sums and ${counts.length} counts`, { name });
  }
  const total = counts.reduce((sum, count) => sum + count, 0);
  const meansq = Float32Array.from({ length: columns }, (_, column) => {
    let sum = 0;
    for (let at = column; at < sums.length; at += columns) sum += sums[at] as number;
    return sum / total;
  });
  return { name, meansq, count: total };
}

function parseLegacy(bytes: Uint8Array, source: string): ImatrixEntry[] {
  const cursor = new ByteCursor(bytes, source);
  const entryCount = readCount(cursor, cursor.i32("the number of entries"), source);
  const entries: ImatrixEntry[] = [];
  for (let index = 0; index < entryCount; index++) {
    const nameBytes = cursor.i32("a name's length");
    if (nameBytes < 1 || nameBytes > MAX_NAME_BYTES) {
      throw malformed(source, `the name of entry ${index} has ${nameBytes} bytes`, { index, nameBytes });
    }
    const name = cursor.text(nameBytes, "a name");
    const calls = cursor.i32("a number of calls");
    const columns = cursor.i32("a number of columns");
    if (calls < 1 || columns < 1) {
      throw malformed(source, `${quoteName(name)} has ${columns} columns of ${calls} calls`, { name, calls, columns });
    }
    const meansq = cursor.floats(columns, `the moments of ${quoteName(name)}`).map((moment) => moment / calls);
    entries.push({ name, meansq, count: calls });
  }
  if (cursor.bytesLeft > 0) {
    cursor.skip(4, "the number of calls");
    const nameBytes = cursor.bytesLeft === 0 ? 0 : cursor.i32("a length");
    if (nameBytes !== cursor.bytesLeft) {
      throw new ArrowQuantError("E_TRAILING", `${source} goes on for ${cursor.bytesLeft} bytes after its last entry`, {
        hint: "is this an imatrix at all?",
        details: { bytesLeft: cursor.bytesLeft },
      });
    }
  }
  return entries;
}

/** A number of things of at least four bytes each. */
function readCount(cursor: ByteCursor, count: number, source: string): number {
  if (count >= 0 && count <= MAX_ENTRIES && 4 * count <= cursor.bytesLeft) return count;
  throw new ArrowQuantError("E_LIMIT", `${source}: ${count} entries in ${cursor.bytesLeft} bytes`, {
    hint: "is this an imatrix at all?",
    details: { count, bytesLeft: cursor.bytesLeft, limit: MAX_ENTRIES },
  });
}

function readString(cursor: ByteCursor, source: string): string {
  const byteLength = cursor.u64("a string's length");
  if (byteLength > MAX_NAME_BYTES) throw malformed(source, `a name of ${byteLength} bytes`, { byteLength });
  return cursor.text(byteLength, "a name");
}

function skipValue(cursor: ByteCursor, type: number, source: string): void {
  if (type === STRING_TYPE) {
    cursor.skip(cursor.u64("a string's length"), "a string");
    return;
  }
  if (type === ARRAY_TYPE) {
    const elementType = cursor.u32("an array's type");
    const length = cursor.u64("an array's length");
    // Arrays of arrays exist in the specification only.
    if (elementType === ARRAY_TYPE) throw malformed(source, "an array of arrays", {});
    if (elementType !== STRING_TYPE) {
      cursor.skip(length * valueBytes(elementType, source), "an array");
      return;
    }
    for (let index = 0; index < length; index++) cursor.skip(cursor.u64("a string's length"), "a string");
    return;
  }
  cursor.skip(valueBytes(type, source), "a value");
}

function valueBytes(type: number, source: string): number {
  const bytes = VALUE_BYTES[type];
  if (bytes === undefined) throw malformed(source, `a value of unknown type ${type}`, { type });
  return bytes;
}

function readTensor(cursor: ByteCursor, source: string): GgufTensor {
  const name = readString(cursor, source);
  const dimensionCount = cursor.u32("a number of dimensions");
  if (dimensionCount > MAX_DIMENSIONS) {
    throw malformed(source, `${quoteName(name)} has ${dimensionCount} dimensions`, { name, dimensionCount });
  }
  const dims = Array.from({ length: dimensionCount }, () => cursor.u64("a dimension"));
  const type = cursor.u32("a tensor's type");
  if (type !== F32_TYPE) throw malformed(source, `${quoteName(name)} is of type ${type}, not float32`, { name, type });
  return { name, dims, type, byteOffset: cursor.u64("a tensor's offset") };
}

function malformed(source: string, problem: string, details: Record<string, unknown>): ArrowQuantError {
  return new ArrowQuantError("E_CALIBRATION", `${source}: ${problem}`, { details });
}

/**
 * Whether a file's first bytes are those of the older form, which has no magic: a small number of entries, and a name
 * of printable characters. Parquet, Arrow, JSON and safetensors begin with larger numbers, or with zeros after them.
 */
export function looksLikeLegacyImatrix(head: Uint8Array): boolean {
  if (head.byteLength < 12) return false;
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  const entryCount = view.getInt32(0, true);
  const nameBytes = view.getInt32(4, true);
  if (entryCount < 1 || entryCount > MAX_ENTRIES || nameBytes < 1 || nameBytes > MAX_NAME_BYTES) return false;
  return head.subarray(8, 8 + nameBytes).every((byte) => byte >= 0x20 && byte < 0x7f);
}
