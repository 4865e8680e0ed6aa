/** Tensors of an ONNX graph: their element types, sizes, and where their bytes lie. */
import { basename, dirname } from "node:path";
import type { DescMessage, Message } from "@bufbuild/protobuf";
import { ArrowQuantError } from "../../errors.js";
import { confinePath } from "../../io/confine.js";
import { fileIdentity, statOrThrow } from "../../io/read.js";
import type { Dtype } from "../../tensor/dtype.js";
import type { SourceFile } from "../../tensor/info.js";
import { quoteName } from "../json.js";
import { type ModelProto, ModelProtoSchema, type TensorProto, TensorProto_DataLocation } from "./onnx-pb.js";

interface ElementType {
  readonly name: string;
  /** Bits of an element; null: strings, which have no fixed size. */
  readonly bits: number | null;
  /** The type in safetensors' spelling, where it has one. */
  readonly dtype: Dtype | null;
}

/** By `TensorProto.data_type`. Source: onnx.proto, enum TensorProto.DataType. */
const ELEMENT_TYPES: ReadonlyMap<number, ElementType> = new Map([
  [1, { name: "FLOAT", bits: 32, dtype: "F32" }],
  [2, { name: "UINT8", bits: 8, dtype: "U8" }],
  [3, { name: "INT8", bits: 8, dtype: "I8" }],
  [4, { name: "UINT16", bits: 16, dtype: "U16" }],
  [5, { name: "INT16", bits: 16, dtype: "I16" }],
  [6, { name: "INT32", bits: 32, dtype: "I32" }],
  [7, { name: "INT64", bits: 64, dtype: "I64" }],
  [8, { name: "STRING", bits: null, dtype: null }],
  [9, { name: "BOOL", bits: 8, dtype: "BOOL" }],
  [10, { name: "FLOAT16", bits: 16, dtype: "F16" }],
  [11, { name: "DOUBLE", bits: 64, dtype: "F64" }],
  [12, { name: "UINT32", bits: 32, dtype: "U32" }],
  [13, { name: "UINT64", bits: 64, dtype: "U64" }],
  [14, { name: "COMPLEX64", bits: 64, dtype: "C64" }],
  [15, { name: "COMPLEX128", bits: 128, dtype: null }],
  [16, { name: "BFLOAT16", bits: 16, dtype: "BF16" }],
  [17, { name: "FLOAT8E4M3FN", bits: 8, dtype: "F8_E4M3" }],
  [18, { name: "FLOAT8E4M3FNUZ", bits: 8, dtype: null }],
  [19, { name: "FLOAT8E5M2", bits: 8, dtype: "F8_E5M2" }],
  [20, { name: "FLOAT8E5M2FNUZ", bits: 8, dtype: null }],
  [21, { name: "UINT4", bits: 4, dtype: null }],
  [22, { name: "INT4", bits: 4, dtype: null }],
  [23, { name: "FLOAT4E2M1", bits: 4, dtype: "F4" }],
  [24, { name: "FLOAT8E8M0", bits: 8, dtype: "F8_E8M0" }],
  [25, { name: "UINT2", bits: 2, dtype: null }],
  [26, { name: "INT2", bits: 2, dtype: null }],
  [27, { name: "FLOAT6E2M3", bits: 6, dtype: "F6_E2M3" }],
  [28, { name: "FLOAT6E3M2", bits: 6, dtype: "F6_E3M2" }],
] satisfies [number, ElementType][]);

/** Most dimensions of a tensor, as for safetensors. */
const MAX_RANK = 64;

/** A run of bytes of a file: the little-endian, row-major elements of a tensor. */
export interface TensorPlace {
  /** Absolute path. */
  readonly path: string;
  readonly byteOffset: number;
  readonly byteLength: number;
}

/** `data_type` of a type in safetensors' spelling, or of UINT4. Throws `E_DTYPE` where ONNX has no such type. */
export function dataTypeOf(dtype: Dtype | "UINT4"): number {
  for (const [dataType, { dtype: known, name }] of ELEMENT_TYPES) {
    if (known === dtype || (known === null && name === dtype)) return dataType;
  }
  throw new ArrowQuantError("E_DTYPE", `ONNX has no element type for ${dtype}`, { details: { dtype } });
}

/** The type in safetensors' spelling; null for what has none there (STRING, INT4, COMPLEX128 …). */
export function dtypeOf(tensor: TensorProto): Dtype | null {
  return elementType(tensor).dtype;
}

function elementType(tensor: TensorProto): ElementType {
  const type = ELEMENT_TYPES.get(tensor.dataType);
  if (type === undefined) {
    throw new ArrowQuantError("E_DTYPE", `tensor ${quoteName(tensor.name)} has unknown type ${tensor.dataType}`, {
      details: { tensor: tensor.name, dataType: tensor.dataType },
    });
  }
  return type;
}

/** Shape with sizes as numbers. Throws `E_SHAPE` for a size no tensor can have, `E_LIMIT` for too many. */
export function shapeOf(tensor: TensorProto): number[] {
  if (tensor.dims.length > MAX_RANK) {
    throw new ArrowQuantError(
      "E_LIMIT",
      `tensor ${quoteName(tensor.name)} has ${tensor.dims.length} dimensions, the limit is ${MAX_RANK}`,
      { details: { tensor: tensor.name, rank: tensor.dims.length, limit: MAX_RANK } },
    );
  }
  return tensor.dims.map((size) => {
    if (size >= 0n && size <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(size);
    throw new ArrowQuantError("E_SHAPE", `tensor ${quoteName(tensor.name)} has a dimension of ${size}`, {
      details: { tensor: tensor.name, shape: tensor.dims.map(String) },
    });
  });
}

/** Bytes of the elements by shape and type; null for strings. Throws `E_SHAPE` beyond 2^53 - 1. */
export function byteLengthOf(tensor: TensorProto): number | null {
  const { name, bits } = elementType(tensor);
  if (bits === null) return null;
  const shape = shapeOf(tensor);
  // A zero anywhere makes the tensor empty, whatever the other sizes multiply to.
  const count = shape.includes(0) ? 0n : shape.reduce((product, size) => product * BigInt(size), 1n);
  const byteLength = (count * BigInt(bits) + 7n) / 8n;
  if (byteLength <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(byteLength);
  throw new ArrowQuantError("E_SHAPE", `tensor ${quoteName(tensor.name)}: [${shape}] of ${name} is beyond 2^53 bytes`, {
    details: { tensor: tensor.name, shape, type: name },
  });
}

/** Whether the tensor's bytes lie in a file: the large payloads of the model file itself, and external data. */
export function isLocated(tensor: TensorProto): boolean {
  return tensor.dataLocation === TensorProto_DataLocation.EXTERNAL;
}

/** Whether there are elements in the graph itself. */
function holdsElements({ rawData, floatData, doubleData, int32Data, int64Data, uint64Data, stringData }: TensorProto) {
  return [rawData, floatData, doubleData, int32Data, int64Data, uint64Data, stringData].some(
    ({ length }) => length > 0,
  );
}

/** Finds the bytes of located tensors of the model at `path` (absolute), and checks them against their files. */
export class TensorPlaces {
  readonly #path: string;
  readonly #files = new Map<string, SourceFile>();

  constructor(path: string) {
    this.#path = path;
  }

  /** The model file, if any tensor lies in it, and the external data files met so far. */
  get files(): readonly SourceFile[] {
    return [...this.#files.values()];
  }

  /**
   * Throws `E_PATH` where external data leaves the model's folder, `E_NOT_FOUND`, `E_TRUNCATED` where a file
   * ends before the tensor does, `E_SHAPE` where the length is not that of shape and type, `E_HEADER`,
   * `E_DUPLICATE`, `E_INTEGER` and `E_DTYPE` for malformed entries.
   */
  async find(tensor: TensorProto): Promise<TensorPlace> {
    const name = quoteName(tensor.name);
    const entries = readEntries(tensor);
    const location = entries.get("location");
    if (location === undefined || location === "") {
      throw new ArrowQuantError("E_HEADER", `tensor ${name} has external data without a location`, {
        details: { tensor: tensor.name },
      });
    }
    if (holdsElements(tensor)) {
      throw new ArrowQuantError("E_HEADER", `tensor ${name} has data both inside the graph and outside`, {
        details: { tensor: tensor.name, location },
      });
    }
    const expected = byteLengthOf(tensor);
    if (expected === null) {
      throw new ArrowQuantError("E_DTYPE", `tensor ${name} holds strings, which cannot lie outside the graph`, {
        details: { tensor: tensor.name },
      });
    }
    const byteOffset = readCount(tensor, entries, "offset") ?? 0;
    const byteLength = readCount(tensor, entries, "length") ?? expected;
    if (byteLength !== expected) {
      const type = elementType(tensor).name;
      throw new ArrowQuantError(
        "E_SHAPE",
        `tensor ${name}: [${shapeOf(tensor)}] of ${type} is ${expected} bytes, its data has ${byteLength}`,
        { details: { tensor: tensor.name, shape: shapeOf(tensor), type, expected, byteLength } },
      );
    }
    const file = await this.#openFile(location);
    if (byteOffset + byteLength > file.byteLength) {
      throw new ArrowQuantError(
        "E_TRUNCATED",
        `tensor ${name} ends at byte ${byteOffset + byteLength}, "${file.path}" has ${file.byteLength}`,
        {
          hint: "the file is cut off or belongs to another model: download it again",
          details: { tensor: tensor.name, path: file.path, byteOffset, byteLength, fileByteLength: file.byteLength },
        },
      );
    }
    return { path: file.path, byteOffset, byteLength };
  }

  async #openFile(location: string): Promise<SourceFile> {
    const known = this.#files.get(location);
    if (known !== undefined) return known;
    const isOwn = location === basename(this.#path);
    const path = isOwn ? this.#path : await confinePath(dirname(this.#path), location);
    const stats = await statOrThrow(path);
    if (!stats.isFile()) {
      throw new ArrowQuantError("E_READ", `"${path}" holds external data but is no regular file`, {
        details: { path },
      });
    }
    const byteLength = Number(stats.size);
    const file = { path, name: location, byteLength, headerByteLength: 0, identity: fileIdentity(stats) };
    this.#files.set(location, file);
    return file;
  }
}

function readEntries(tensor: TensorProto): Map<string, string> {
  const entries = new Map<string, string>();
  for (const { key, value } of tensor.externalData) {
    if (entries.has(key)) {
      throw new ArrowQuantError("E_DUPLICATE", `tensor ${quoteName(tensor.name)}: external data has "${key}" twice`, {
        details: { tensor: tensor.name, key },
      });
    }
    entries.set(key, value);
  }
  return entries;
}

function readCount(tensor: TensorProto, entries: ReadonlyMap<string, string>, key: string): number | null {
  const text = entries.get(key);
  if (text === undefined) return null;
  const count = Number(text);
  if (/^\d{1,16}$/.test(text) && Number.isSafeInteger(count)) return count;
  throw new ArrowQuantError(
    "E_INTEGER",
    `tensor ${quoteName(tensor.name)}: "${key}" of its external data is ${quoteName(text)}`,
    { details: { tensor: tensor.name, key } },
  );
}

/**
 * The elements of a tensor that lies in the graph itself, as little-endian bytes.
 * Throws `E_SHAPE` where their number is not that of the shape.
 */
export function readInlineBytes(tensor: TensorProto, byteLength: number): Uint8Array {
  const bytes = Object.hasOwn(tensor, "rawData") ? tensor.rawData : gatherElements(tensor);
  if (bytes.byteLength === byteLength) return bytes;
  const type = elementType(tensor).name;
  throw new ArrowQuantError(
    "E_SHAPE",
    `tensor ${quoteName(tensor.name)}: [${shapeOf(tensor)}] of ${type} is ${byteLength} bytes, ` +
      `its data has ${bytes.byteLength}`,
    { details: { tensor: tensor.name, shape: shapeOf(tensor), type, expected: byteLength, found: bytes.byteLength } },
  );
}

/** From the typed lists, which hold elements as the comments of onnx.proto's TensorProto say. */
function gatherElements(tensor: TensorProto): Uint8Array {
  const { name, bits } = elementType(tensor);
  switch (name) {
    case "FLOAT":
    case "COMPLEX64":
      return fill(tensor.floatData, 4, (view, at, value) => view.setFloat32(at, value, true));
    case "DOUBLE":
    case "COMPLEX128":
      return fill(tensor.doubleData, 8, (view, at, value) => view.setFloat64(at, value, true));
    case "INT64":
      return fill(tensor.int64Data, 8, (view, at, value) => view.setBigInt64(at, value, true));
    case "UINT64":
      return fill(tensor.uint64Data, 8, (view, at, value) => view.setBigUint64(at, value, true));
    case "UINT32":
      return fill(tensor.uint64Data, 4, (view, at, value) => view.setUint32(at, Number(value & 0xffff_ffffn), true));
    case "INT32":
      return fill(tensor.int32Data, 4, (view, at, value) => view.setInt32(at, value, true));
    default:
      // One element each, or, of the types narrower than a byte, one byte of packed elements.
      return bits === 16
        ? fill(tensor.int32Data, 2, (view, at, value) => view.setUint16(at, value & 0xffff, true))
        : fill(tensor.int32Data, 1, (view, at, value) => view.setUint8(at, value & 0xff));
  }
}

function fill<T>(
  values: readonly T[],
  itemBytes: number,
  set: (view: DataView, at: number, value: T) => void,
): Uint8Array {
  const view = new DataView(new ArrayBuffer(values.length * itemBytes));
  values.forEach((value, index) => {
    set(view, index * itemBytes, value);
  });
  return new Uint8Array(view.buffer);
}

/** The messages directly inside a message, but those of oneofs (types of values), which hold no tensor. */
export function* childMessages(
  schema: DescMessage,
  message: Message,
): Generator<{ readonly number: number; readonly schema: DescMessage; readonly child: Message }> {
  for (const field of schema.fields) {
    if (field.message === undefined || field.oneof !== undefined) continue;
    const value = (message as unknown as Record<string, Message | Message[] | undefined>)[field.localName];
    if (value === undefined) continue;
    for (const child of Array.isArray(value) ? value : [value]) {
      yield { number: field.number, schema: field.message, child };
    }
  }
}

/** Every tensor of a model: initializers, constants in attributes, of subgraphs and functions too. */
export function* allTensors(model: ModelProto): Generator<TensorProto> {
  yield* tensorsOf(ModelProtoSchema, model);
}

function* tensorsOf(schema: DescMessage, message: Message): Generator<TensorProto> {
  for (const { schema: childSchema, child } of childMessages(schema, message)) {
    if (childSchema.typeName === "onnx.TensorProto") yield child as TensorProto;
    else yield* tensorsOf(childSchema, child);
  }
}
