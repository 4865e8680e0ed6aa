/**
 * Thrift's compact protocol, as far as Parquet's footer and page headers use it.
 * Spec: https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
 *
 * The footer is read and written here because parquet-wasm neither keeps the order of key/value metadata
 * nor survives a damaged footer, and knows only files that lie in memory as a whole.
 */
import { ArrowQuantError } from "../../errors.js";

/** Element types of the compact protocol. Booleans of a struct carry their value in the type. */
export const THRIFT = {
  stop: 0,
  true: 1,
  false: 2,
  int8: 3,
  int16: 4,
  int32: 5,
  int64: 6,
  double: 7,
  binary: 8,
  list: 9,
  set: 10,
  map: 11,
  struct: 12,
} as const;

/** Parquet's own structures nest six deep; a file that nests deeper only wants to exhaust the stack. */
const MAX_DEPTH = 16;

/** Bytes of the longest varint: 64 bits in sevens. */
const MAX_VARINT_BYTES = 10;

const utf8Decoder = new TextDecoder("utf-8", { fatal: true });
const utf8Encoder = new TextEncoder();

/** Reads compact-protocol values from bytes; every read is checked against their end. */
export class ThriftReader {
  readonly #bytes: Uint8Array;
  readonly #what: string;
  position: number;

  /** @param what names the bytes in errors, e.g. `footer of "model.parquet"`. */
  constructor(bytes: Uint8Array, what: string, position = 0) {
    this.#bytes = bytes;
    this.#what = what;
    this.position = position;
  }

  fail(problem: string): never {
    throw new ArrowQuantError("E_NATIVE", `${this.#what}: ${problem} at byte ${this.position}`, {
      details: { position: this.position, byteLength: this.#bytes.length },
    });
  }

  #byte(): number {
    const byte = this.#bytes[this.position];
    if (byte === undefined) this.fail("ends in the middle of a value");
    this.position += 1;
    return byte;
  }

  /** Unsigned varint as a double: exact up to 2^53, which `integer` enforces. */
  #varint(): number {
    let value = 0;
    let factor = 1;
    for (let index = 0; index < MAX_VARINT_BYTES; index++) {
      const byte = this.#byte();
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
      factor *= 128;
    }
    return this.fail("an integer has more than 64 bits");
  }

  /** A zigzag integer of any width. */
  integer(): number {
    const raw = this.#varint();
    if (raw > Number.MAX_SAFE_INTEGER) this.fail("an integer is beyond 2^53 - 1");
    const half = Math.floor(raw / 2);
    return raw % 2 === 0 ? half : -half - 1;
  }

  /** A zigzag integer that counts or places something: 0 … 2^53 − 1. */
  count(): number {
    const value = this.integer();
    return value < 0 ? this.fail(`a size or count is ${value}`) : value;
  }

  /** A view of the bytes, not a copy. */
  binary(): Uint8Array {
    const length = this.#varint();
    const end = this.position + length;
    if (end > this.#bytes.length) this.fail(`a text of ${length} bytes does not fit`);
    const view = this.#bytes.subarray(this.position, end);
    this.position = end;
    return view;
  }

  string(): string {
    const bytes = this.binary();
    try {
      return utf8Decoder.decode(bytes);
    } catch {
      return this.fail("a text is not UTF-8");
    }
  }

  /** Header of a list; the element count never passes the bytes that are left, so it may size an array. */
  list(elementType: number): number {
    const header = this.#byte();
    const short = header >> 4;
    const length = short === 15 ? this.#varint() : short;
    if (length > this.#bytes.length - this.position) this.fail(`a list of ${length} elements does not fit`);
    if (length > 0 && (header & 15) !== elementType) {
      this.fail(`a list holds type ${header & 15}, expected ${elementType}`);
    }
    return length;
  }

  /**
   * Walks one struct. `field` reads the value and returns true, or leaves it and returns false: it is
   * skipped. A boolean's value is its type.
   */
  struct(field: (id: number, type: number) => boolean): void {
    let id = 0;
    for (;;) {
      const header = this.#byte();
      const type = header & 15;
      if (type === THRIFT.stop) return;
      id = header >> 4 === 0 ? this.integer() : id + (header >> 4);
      const start = this.position;
      if (!field(id, type)) {
        this.position = start;
        this.skip(type);
      }
    }
  }

  skip(type: number, depth = 0): void {
    if (depth > MAX_DEPTH) this.fail(`nested deeper than ${MAX_DEPTH}`);
    switch (type) {
      case THRIFT.true:
      case THRIFT.false:
        return;
      case THRIFT.int8:
        this.#advance(1);
        return;
      case THRIFT.int16:
      case THRIFT.int32:
      case THRIFT.int64:
        this.#varint();
        return;
      case THRIFT.double:
        this.#advance(8);
        return;
      case THRIFT.binary:
        this.binary();
        return;
      case THRIFT.list:
      case THRIFT.set:
        this.#skipList(depth);
        return;
      case THRIFT.map:
        this.#skipMap(depth);
        return;
      case THRIFT.struct:
        this.#skipStruct(depth);
        return;
      default:
        this.fail(`unknown type ${type}`);
    }
  }

  #advance(byteCount: number): void {
    if (this.position + byteCount > this.#bytes.length) this.fail("ends in the middle of a value");
    this.position += byteCount;
  }

  #skipStruct(depth: number): void {
    for (;;) {
      const header = this.#byte();
      if ((header & 15) === THRIFT.stop) return;
      if (header >> 4 === 0) this.#varint();
      this.skip(header & 15, depth + 1);
    }
  }

  #skipList(depth: number): void {
    const elementType = (this.#bytes[this.position] ?? 0) & 15;
    const length = this.list(elementType);
    for (let index = 0; index < length; index++) this.#skipElement(elementType, depth);
  }

  #skipMap(depth: number): void {
    const length = this.#varint();
    if (length === 0) return;
    if (length > this.#bytes.length - this.position) this.fail(`a map of ${length} entries does not fit`);
    const types = this.#byte();
    for (let index = 0; index < length; index++) {
      this.#skipElement(types >> 4, depth);
      this.#skipElement(types & 15, depth);
    }
  }

  /** Booleans take a byte where they are elements and none where they are fields. */
  #skipElement(type: number, depth: number): void {
    if (type === THRIFT.true || type === THRIFT.false) this.#advance(1);
    else this.skip(type, depth + 1);
  }
}

/** Writes compact-protocol values into a growing buffer. */
export class ThriftWriter {
  #bytes = new Uint8Array(64);
  #length = 0;
  #lastField = 0;

  /** The bytes written so far: a view, valid until the next write. */
  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  #reserve(byteCount: number): void {
    if (this.#length + byteCount <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(this.#bytes.length * 2, this.#length + byteCount));
    grown.set(this.bytes);
    this.#bytes = grown;
  }

  #varint(value: number): void {
    this.#reserve(MAX_VARINT_BYTES);
    let rest = value;
    while (rest >= 128) {
      this.#bytes[this.#length++] = (rest % 128) | 0x80;
      rest = Math.floor(rest / 128);
    }
    this.#bytes[this.#length++] = rest;
  }

  /** Bytes that are encoded already. */
  raw(bytes: Uint8Array): void {
    this.#reserve(bytes.length);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  /** A field's header. Ids of a struct must ascend by at most 15, which holds for all of Parquet's here. */
  field(id: number, type: number): void {
    this.#reserve(1);
    this.#bytes[this.#length++] = ((id - this.#lastField) << 4) | type;
    this.#lastField = id;
  }

  /** An integer of 0 … 2^52 in zigzag form, without a header: an element of a list. */
  element(value: number): void {
    this.#varint(value * 2);
  }

  integer(id: number, type: typeof THRIFT.int32 | typeof THRIFT.int64, value: number): void {
    this.field(id, type);
    this.element(value);
  }

  text(value: string): void {
    const bytes = utf8Encoder.encode(value);
    this.#varint(bytes.length);
    this.raw(bytes);
  }

  list(elementType: number, length: number): void {
    this.#reserve(1);
    this.#bytes[this.#length++] = (Math.min(length, 15) << 4) | elementType;
    if (length >= 15) this.#varint(length);
  }

  /** A struct's fields and its end; nested structs keep their own field numbers. */
  struct(fields: () => void): void {
    const outerField = this.#lastField;
    this.#lastField = 0;
    fields();
    this.#reserve(1);
    this.#bytes[this.#length++] = THRIFT.stop;
    this.#lastField = outerField;
  }
}
