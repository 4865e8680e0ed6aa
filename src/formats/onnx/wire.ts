/**
 * A model file's protobuf, walked field by field with positioned reads: everything but the large payloads of
 * tensors is gathered, the payloads are only located. What is gathered is checked first, so that decoding it
 * afterwards can neither run deep, nor read past its end, nor make objects without bound.
 *
 * Spec: https://protobuf.dev/programming-guides/encoding. Stricter than there: no groups (ONNX has none), known
 * fields in their own wire type only, text in UTF-8.
 */
import { isUtf8 } from "node:buffer";
import { create, type DescField, type DescMessage, ScalarType, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter } from "@bufbuild/protobuf/wire";
import { ArrowQuantError, type ErrorCode } from "../../errors.js";
import { type OpenFile, readExactly } from "../../io/read.js";
import { TensorProto_DataLocation, TensorProtoSchema } from "./onnx-pb.js";

/** Payloads of tensors from this size on are located, not read; smaller ones (shapes, biases) are part of the graph. */
export const LOCATED_BYTES = 4096;

/** Largest graph without located payloads. Those of 10,000 nodes have a few MiB; this bounds what decoding allocates. */
export const MAX_GRAPH_BYTES = 128 * 1024 * 1024;

/** Messages within messages. A subgraph takes three levels; protobuf's own decoders stop at 100. */
export const MAX_NESTING = 64;

/** Messages of a graph: an empty one takes 2 bytes of file but some hundred of memory. Large models have 100,000. */
export const MAX_MESSAGES = 2 ** 20;

/** Fields and list elements of a graph: a 1-byte integer becomes a bigint of 24 bytes. */
export const MAX_VALUES = 2 ** 22;

/** Fields that the schema does not know: kept, each as an object and a view of its bytes. */
export const MAX_UNKNOWN_FIELDS = 2 ** 16;

/** One text. Names have some hundred bytes, exporters' stack traces thousands, embedded configurations more. */
export const MAX_TEXT_BYTES = 16 * 1024 * 1024;

/** Bytes of the longest varint: 64 bits in sevens. */
const MAX_VARINT_BYTES = 10;

/** A field's tag and length stand in this many bytes. */
const MAX_FIELD_HEAD_BYTES = 2 * MAX_VARINT_BYTES;

const WINDOW_BYTES = 64 * 1024;

/** Wire types of the spec; 3 and 4 are groups. */
const WIRE = { varint: 0, fixed64: 1, bytes: 2, fixed32: 5 } as const;

/** `raw_data`, `float_data`, `double_data` of TensorProto: little-endian elements. Packed varints are none. */
const LOCATABLE: ReadonlySet<number> = new Set([9, 4, 10]);

/** `external_data` and `data_location` of TensorProto: where a payload is located these are rewritten. */
const EXTERNAL_FIELDS: ReadonlySet<number> = new Set([13, 14]);

const { EXTERNAL } = TensorProto_DataLocation;

/** Bytes from the file or new ones. */
type Piece = { readonly from: number; readonly to: number } | Uint8Array;

/** The part of a file around the place that is being read. */
class FileWindow {
  readonly #file: OpenFile;
  readonly #bytes = Buffer.allocUnsafe(WINDOW_BYTES);
  #start = 0;
  #end = 0;

  constructor(file: OpenFile) {
    this.#file = file;
  }

  has(position: number, byteLength: number): boolean {
    return position >= this.#start && Math.min(position + byteLength, this.#file.byteLength) <= this.#end;
  }

  async moveTo(position: number): Promise<void> {
    const byteLength = Math.min(WINDOW_BYTES, this.#file.byteLength - position);
    this.#start = this.#end = position;
    await readExactly(this.#file, this.#bytes.subarray(0, byteLength), position);
    this.#end = position + byteLength;
  }

  /** The byte at a position that `has` answered for; 0 past the end of the file, where callers have stopped. */
  at(position: number): number {
    return position < this.#end ? (this.#bytes[position - this.#start] as number) : 0;
  }

  /** A run of bytes: a view into the window, valid until it moves, or where they do not fit, a copy. */
  async slice(from: number, to: number): Promise<Uint8Array> {
    if (to - from > WINDOW_BYTES) {
      const copy = Buffer.allocUnsafeSlow(to - from);
      await readExactly(this.#file, copy, from);
      return copy;
    }
    if (!this.has(from, to - from)) await this.moveTo(from);
    return this.#bytes.subarray(from - this.#start, to - this.#start);
  }
}

/**
 * The bytes of a message of type `schema` that a file holds, large payloads of tensors replaced by
 * `external_data` that names `ownName`, offset and length: what a decoder takes.
 * @param locatedBytes least bytes of a payload that is large
 *
 * Throws `E_HEADER` where the bytes are no such message, `E_TRUNCATED` where a field ends after the file,
 * `E_UTF8` and `E_LIMIT` (see the limits of this module).
 */
export async function gatherGraph(
  file: OpenFile,
  schema: DescMessage,
  ownName: string,
  locatedBytes: number = LOCATED_BYTES,
): Promise<Uint8Array> {
  const walk = new GraphWalk(file, ownName, locatedBytes);
  const whole: Piece = { from: 0, to: file.byteLength };
  const pieces = (await walk.message(schema, 0, file.byteLength, 1)) ?? [whole];
  const bytes = Buffer.alloc(pieces.reduce((sum, piece) => sum + pieceLength(piece), 0));
  let filled = 0;
  for (const piece of pieces) {
    const target = bytes.subarray(filled, filled + pieceLength(piece));
    if (piece instanceof Uint8Array) target.set(piece);
    else await readExactly(file, target, piece.from);
    filled += target.byteLength;
  }
  return bytes;
}

class GraphWalk {
  readonly #file: OpenFile;
  readonly #ownName: string;
  readonly #locatedBytes: number;
  readonly #window: FileWindow;
  #graphBytes = 0;
  #messageCount = 0;
  #valueCount = 0;
  #unknownCount = 0;

  constructor(file: OpenFile, ownName: string, locatedBytes: number) {
    this.#file = file;
    this.#ownName = ownName;
    this.#locatedBytes = locatedBytes;
    this.#window = new FileWindow(file);
  }

  /** Walks the message in `start` … `end`; null where it stays as it is, else its new pieces. */
  async message(schema: DescMessage, start: number, end: number, depth: number): Promise<Piece[] | null> {
    if (depth > MAX_NESTING) this.#fail("E_LIMIT", `messages nest deeper than ${MAX_NESTING}`, start);
    this.#messageCount += 1;
    if (this.#messageCount > MAX_MESSAGES) this.#fail("E_LIMIT", `holds more than ${MAX_MESSAGES} messages`, start);
    const fields = fieldsByNumber(schema);
    const isTensor = schema === TensorProtoSchema;
    const external: { from: number; to: number }[] = [];
    const replaced: { from: number; to: number; by: Piece[] }[] = [];
    let payload: { from: number; to: number } | null = null;
    let isExternal = false;
    for (let at = start; at < end; ) {
      // Awaited only where the window must move: one microtask per field would cost more than the walk itself.
      if (!this.#window.has(at, MAX_FIELD_HEAD_BYTES)) await this.#window.moveTo(at);
      const head = this.#fieldHead(at, end);
      const field = fields.get(head.number);
      this.#countValues(1, at);
      if (field === undefined) this.#countUnknown(at);
      else this.#checkWireType(field, head.wireType, at);
      if (field?.message !== undefined) {
        const child = await this.message(field.message, head.from, head.to, depth + 1);
        this.#countBytes(head.from - at, at);
        if (child !== null) replaced.push({ from: at, to: head.to, by: [...prefixed(head.number, child), ...child] });
      } else if (isTensor && head.wireType === WIRE.bytes && this.#isLarge(head)) {
        if (payload !== null) this.#fail("E_HEADER", "a tensor's data stands twice", at);
        payload = { from: head.from, to: head.to };
        replaced.push({ from: at, to: head.to, by: [] });
      } else {
        if (field !== undefined && head.wireType === WIRE.bytes) await this.#checkContent(field, head.from, head.to);
        this.#countBytes(head.to - at, at);
      }
      if (isTensor && EXTERNAL_FIELDS.has(head.number)) {
        external.push({ from: at, to: head.to });
        if (head.wireType === WIRE.varint) isExternal = this.#varint(head.from, head.to) === EXTERNAL;
      }
      at = head.to;
    }
    if (payload !== null) {
      if (isExternal) this.#fail("E_HEADER", "a tensor has data both inside the graph and outside", payload.from);
      const literal = this.#placeOf(payload);
      this.#countBytes(literal.byteLength, start);
      for (const range of external) replaced.push({ ...range, by: [] });
      replaced.push({ from: end, to: end, by: [literal] });
      replaced.sort((a, b) => a.from - b.from);
    }
    return replaced.length === 0 ? null : splice(start, end, replaced);
  }

  #isLarge(head: { number: number; from: number; to: number }): boolean {
    return LOCATABLE.has(head.number) && head.to - head.from >= this.#locatedBytes;
  }

  /** The payload as external data of the file itself, which is what it then is. */
  #placeOf(payload: { from: number; to: number }): Uint8Array {
    const externalData = [
      { key: "location", value: this.#ownName },
      { key: "offset", value: String(payload.from) },
      { key: "length", value: String(payload.to - payload.from) },
    ];
    const place = { externalData, dataLocation: EXTERNAL };
    return toBinary(TensorProtoSchema, create(TensorProtoSchema, place));
  }

  /** Tag and extent of the field at `at`, in the window: `from` … `to` is its content, without tag and length. */
  #fieldHead(at: number, end: number): { number: number; wireType: number; from: number; to: number } {
    const tagEnd = this.#varintEnd(at, end);
    const tag = this.#varint(at, tagEnd);
    const number = Math.floor(tag / 8);
    const wireType = tag % 8;
    if (number === 0 || tag > 0xffff_ffff) this.#fail("E_HEADER", `there is no field ${number}`, at);
    if (wireType === WIRE.varint) return { number, wireType, from: tagEnd, to: this.#varintEnd(tagEnd, end) };
    let from = tagEnd;
    let byteLength = wireType === WIRE.fixed64 ? 8 : 4;
    if (wireType === WIRE.bytes) {
      from = this.#varintEnd(tagEnd, end);
      byteLength = this.#varint(tagEnd, from);
    } else if (wireType !== WIRE.fixed64 && wireType !== WIRE.fixed32) {
      this.#fail("E_HEADER", `field ${number} has wire type ${wireType}, which no ONNX file uses`, at);
    }
    const to = from + byteLength;
    if (to > this.#file.byteLength) {
      this.#fail("E_TRUNCATED", `field ${number} ends at byte ${to}, the file has ${this.#file.byteLength}`, at);
    }
    if (to > end) this.#fail("E_HEADER", `field ${number} ends at byte ${to}, the message around it at ${end}`, at);
    return { number, wireType, from, to };
  }

  /** Where the varint at `at` ends. */
  #varintEnd(at: number, end: number): number {
    for (let index = 0; index < MAX_VARINT_BYTES; index++) {
      if (at + index >= end) {
        const code = end === this.#file.byteLength ? "E_TRUNCATED" : "E_HEADER";
        this.#fail(code, `an integer does not end before byte ${end}`, at);
      }
      const byte = this.#window.at(at + index);
      if (byte < 0x80) {
        // The tenth byte holds bit 63 alone.
        if (index === MAX_VARINT_BYTES - 1 && byte > 1) break;
        return at + index + 1;
      }
    }
    return this.#fail("E_HEADER", "an integer has more than 64 bits", at);
  }

  /** As a double: exact up to 2^53, and what is more passes every length that a file can have. */
  #varint(at: number, end: number): number {
    let value = 0;
    for (let position = end - 1; position >= at; position--) value = value * 128 + (this.#window.at(position) & 0x7f);
    return value;
  }

  #checkWireType(field: DescField, wireType: number, at: number): void {
    const expected = wireTypeOf(field);
    const isPacked = wireType === WIRE.bytes && field.fieldKind === "list";
    if (wireType !== expected && !isPacked) {
      this.#fail("E_HEADER", `field ${nameOf(field)} has wire type ${wireType}, expected ${expected}`, at);
    }
  }

  /** Content of a length-delimited field that is no message: text, bytes, or a packed list. */
  async #checkContent(field: DescField, from: number, to: number): Promise<void> {
    const byteLength = to - from;
    const wireType = wireTypeOf(field);
    if (isText(field)) {
      if (byteLength > MAX_TEXT_BYTES) {
        this.#fail("E_LIMIT", `${nameOf(field)} has ${byteLength} bytes, the limit is ${MAX_TEXT_BYTES}`, from);
      }
      if (!isUtf8(await this.#window.slice(from, to))) this.#fail("E_UTF8", `${nameOf(field)} is not UTF-8`, from);
    } else if (wireType === WIRE.varint) {
      await this.#checkPackedVarints(nameOf(field), from, to);
    } else if (wireType !== WIRE.bytes) {
      const itemCount = byteLength / (wireType === WIRE.fixed64 ? 8 : 4);
      if (!Number.isInteger(itemCount)) {
        this.#fail("E_HEADER", `${nameOf(field)} has ${byteLength} bytes, which are ${itemCount} elements`, from);
      }
      this.#countValues(itemCount, from);
    }
  }

  async #checkPackedVarints(name: string, from: number, to: number): Promise<void> {
    let itemBytes = 0;
    for (let at = from; at < to; ) {
      const bytes = await this.#window.slice(at, Math.min(to, at + WINDOW_BYTES));
      let itemCount = 0;
      for (const byte of bytes) {
        itemBytes += 1;
        if (itemBytes > MAX_VARINT_BYTES) this.#fail("E_HEADER", `${name}: an integer has more than 64 bits`, at);
        if (byte < 0x80) {
          itemCount += 1;
          itemBytes = 0;
        }
      }
      this.#countValues(itemCount, at);
      at += bytes.byteLength;
    }
    if (itemBytes > 0) this.#fail("E_HEADER", `${name} ends in the middle of an integer`, to);
  }

  #countBytes(byteLength: number, at: number): void {
    this.#graphBytes += byteLength;
    if (this.#graphBytes > MAX_GRAPH_BYTES) {
      this.#fail("E_LIMIT", `the graph without its initializers passes ${MAX_GRAPH_BYTES} bytes`, at);
    }
  }

  #countValues(count: number, at: number): void {
    this.#valueCount += count;
    if (this.#valueCount > MAX_VALUES) {
      this.#fail("E_LIMIT", `the graph holds more than ${MAX_VALUES} values outside of raw tensor data`, at);
    }
  }

  #countUnknown(at: number): void {
    this.#unknownCount += 1;
    if (this.#unknownCount > MAX_UNKNOWN_FIELDS) {
      this.#fail("E_LIMIT", `holds more than ${MAX_UNKNOWN_FIELDS} fields that ONNX does not know`, at);
    }
  }

  #fail(code: ErrorCode, problem: string, position: number): never {
    const hints: Partial<Record<ErrorCode, string>> = {
      E_HEADER: "the file is damaged or no ONNX model (a clone without Git LFS leaves text in place of models)",
      E_TRUNCATED: "the file is cut off or no ONNX model: download it again",
      E_LIMIT: "save the model anew with onnx.save, which stores tensors as raw data",
    };
    const hint = hints[code];
    throw new ArrowQuantError(code, `"${this.#file.path}": ${problem} (at byte ${position})`, {
      ...(hint === undefined ? {} : { hint }),
      details: { path: this.#file.path, position, byteLength: this.#file.byteLength },
    });
  }
}

/** `start` … `end` of the file with some runs, in order, replaced by others. */
function splice(start: number, end: number, replaced: readonly { from: number; to: number; by: Piece[] }[]): Piece[] {
  const pieces: Piece[] = [];
  let done = start;
  for (const { from, to, by } of replaced) {
    if (from > done) pieces.push({ from: done, to: from });
    for (const piece of by) pieces.push(piece);
    done = to;
  }
  if (end > done) pieces.push({ from: done, to: end });
  return pieces;
}

/** Tag and length of a message made of `pieces`. */
function prefixed(number: number, pieces: readonly Piece[]): Piece[] {
  const byteLength = pieces.reduce((sum, piece) => sum + pieceLength(piece), 0);
  return [new BinaryWriter().tag(number, WIRE.bytes).uint32(byteLength).finish()];
}

function pieceLength(piece: Piece): number {
  return piece instanceof Uint8Array ? piece.byteLength : piece.to - piece.from;
}

const fieldsOfSchemas = new WeakMap<DescMessage, ReadonlyMap<number, DescField>>();

function fieldsByNumber(schema: DescMessage): ReadonlyMap<number, DescField> {
  const known = fieldsOfSchemas.get(schema);
  if (known !== undefined) return known;
  const fields = new Map(schema.fields.map((field) => [field.number, field]));
  fieldsOfSchemas.set(schema, fields);
  return fields;
}

function nameOf(field: DescField): string {
  return `${field.parent.name}.${field.name}`;
}

function isText(field: DescField): boolean {
  return "scalar" in field && field.scalar === ScalarType.STRING;
}

function wireTypeOf(field: DescField): number {
  if (field.message !== undefined) return WIRE.bytes;
  switch ("scalar" in field ? field.scalar : undefined) {
    case ScalarType.STRING:
    case ScalarType.BYTES:
      return WIRE.bytes;
    case ScalarType.FLOAT:
      return WIRE.fixed32;
    case ScalarType.DOUBLE:
      return WIRE.fixed64;
    default:
      return WIRE.varint;
  }
}
