/**
 * A strict JSON scanner over bytes (RFC 8259).
 *
 * Why not JSON.parse: it keeps the last of two equal keys in silence, rounds integers beyond 2^53, needs
 * the text as one string and says nothing of where it stopped. Header, index and configuration files come
 * from strangers, so here keys are unique (compared after unescaping), integers are exact, nesting is
 * bounded, surrogates come in pairs and every error names its byte.
 */
import { isUtf8 } from "node:buffer";
import { ArrowQuantError, type ErrorCode } from "../errors.js";

/** Deepest nesting of arrays and objects: what serde_json, the reference reader's parser, allows. */
export const MAX_JSON_DEPTH = 128;

/** Most keys of one object, or elements of one array, that are taken: far above any model, far below what a
 * Map can hold (2^24), so that a header made to exhaust memory ends in an error and not in a crash. */
export const MAX_JSON_ITEMS = 2 ** 20;

/** How much of a name an error message repeats: names may be as long as the file. */
const MAX_QUOTED_LENGTH = 200;

export type JsonValue = null | boolean | number | string | readonly JsonValue[] | JsonObject;
export type JsonObject = ReadonlyMap<string, JsonValue>;

export interface JsonOptions {
  /** Takes `NaN`, `Infinity` and `-Infinity`, which Python's json module writes into configurations. */
  readonly allowNonFinite?: boolean;
}

/** A name for a message: quoted, control characters escaped, shortened where it is very long. */
export function quoteName(name: string): string {
  const shown = name.length > MAX_QUOTED_LENGTH ? `${name.slice(0, MAX_QUOTED_LENGTH)}…` : name;
  return JSON.stringify(shown);
}

/** One whole JSON text. `source` names it in errors: `E_UTF8`, `E_JSON`, `E_DUPLICATE`, `E_LIMIT`. */
export function parseJson(bytes: Uint8Array, source: string, options: JsonOptions = {}): JsonValue {
  const scanner = new JsonScanner(bytes, source, options);
  const value = scanner.readValue();
  scanner.skipWhitespace();
  if (scanner.offset < bytes.length) scanner.fail("E_JSON", "text goes on after the value");
  return value;
}

/** `parseJson` of a text that must be an object. */
export function parseJsonObject(bytes: Uint8Array, source: string, options: JsonOptions = {}): JsonObject {
  const value = parseJson(bytes, source, options);
  if (!isJsonObject(value)) {
    throw new ArrowQuantError("E_JSON", `${source}: an object is expected, this is ${describe(value)}`);
  }
  return value;
}

export function isJsonObject(value: JsonValue | undefined): value is JsonObject {
  return value instanceof Map;
}

/** `a string`, `an array`, …: what a value is, for messages. */
export function describe(value: JsonValue | undefined): string {
  if (value === undefined) return "missing";
  if (value === null) return "null";
  if (Array.isArray(value)) return "an array";
  return isJsonObject(value) ? "an object" : `a ${typeof value}`;
}

const QUOTE = 0x22;
const COMMA = 0x2c;
const MINUS = 0x2d;
const ZERO = 0x30;
const NINE = 0x39;
const COLON = 0x3a;
const OPEN_BRACKET = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const END = -1;

/** Whether a byte can go on in a number: used to find where one ends. */
const IN_NUMBER = new Uint8Array(256);
for (const character of "+-.0123456789Ee") IN_NUMBER[character.charCodeAt(0)] = 1;

const NUMBER = /^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?$/;

/** What may follow a backslash, but for `u`. */
const PLAIN_ESCAPES = new Set(['"', "\\", "/", "b", "f", "n", "r", "t"].map((letter) => letter.charCodeAt(0)));
const LETTER_U = 0x75;

const LITERALS: readonly (readonly [string, JsonValue])[] = [
  ["true", true],
  ["false", false],
  ["null", null],
];
const NON_FINITE: typeof LITERALS = [
  ["NaN", NaN],
  ["Infinity", Infinity],
  ["-Infinity", -Infinity],
];

/** A cursor over one JSON text. Linear: no byte is looked at more than a fixed number of times. */
export class JsonScanner {
  offset = 0;
  private depth = 0;
  private readonly bytes: Buffer;
  private readonly source: string;
  private readonly literals: typeof LITERALS;

  constructor(bytes: Uint8Array, source: string, options: JsonOptions = {}) {
    this.bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.source = source;
    this.literals = options.allowNonFinite === true ? [...LITERALS, ...NON_FINITE] : LITERALS;
    if (!isUtf8(bytes)) throw new ArrowQuantError("E_UTF8", `${source} is not valid UTF-8`);
  }

  /** Throws with the byte offset `at`, by default where the scanner stands. */
  fail(code: ErrorCode, problem: string, at: number = this.offset): never {
    const details = { source: this.source, byteOffset: at };
    throw new ArrowQuantError(code, `${this.source}, byte ${at}: ${problem}`, { details });
  }

  skipWhitespace(): void {
    for (;;) {
      const byte = this.bytes[this.offset];
      if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return;
      this.offset += 1;
    }
  }

  /** The next byte that is not whitespace, left unread; −1 at the end. */
  peek(): number {
    this.skipWhitespace();
    return this.bytes[this.offset] ?? END;
  }

  /** Whether an object opens here. */
  atObject(): boolean {
    return this.peek() === OPEN_BRACE;
  }

  atArray(): boolean {
    return this.peek() === OPEN_BRACKET;
  }

  atString(): boolean {
    return this.peek() === QUOTE;
  }

  /** Calls `member` for each key, standing before its value, which `member` must read. */
  readObject(member: (key: string, keyOffset: number) => void): void {
    this.open(OPEN_BRACE, "an object");
    if (this.peek() === CLOSE_BRACE) return this.close();
    for (let count = 1; ; count += 1) {
      if (count > MAX_JSON_ITEMS) this.fail("E_LIMIT", `an object of more than ${MAX_JSON_ITEMS} keys`);
      if (this.peek() !== QUOTE) this.unexpected("a key in quotes");
      const keyOffset = this.offset;
      const key = this.readString();
      if (this.peek() !== COLON) this.unexpected('":"');
      this.offset += 1;
      member(key, keyOffset);
      const next = this.peek();
      if (next === CLOSE_BRACE) return this.close();
      if (next !== COMMA) this.unexpected('"," or "}"');
      this.offset += 1;
    }
  }

  /** Calls `element` before each element, which it must read. */
  readArray(element: () => void): void {
    this.open(OPEN_BRACKET, "an array");
    if (this.peek() === CLOSE_BRACKET) return this.close();
    for (let count = 1; ; count += 1) {
      if (count > MAX_JSON_ITEMS) this.fail("E_LIMIT", `an array of more than ${MAX_JSON_ITEMS} elements`);
      element();
      const next = this.peek();
      if (next === CLOSE_BRACKET) return this.close();
      if (next !== COMMA) this.unexpected('"," or "]"');
      this.offset += 1;
    }
  }

  readString(): string {
    if (this.peek() !== QUOTE) this.unexpected("a string");
    const { bytes } = this;
    const start = this.offset + 1;
    let end = start;
    let isAscii = true;
    for (;;) {
      const byte = bytes[end];
      if (byte === QUOTE) break;
      if (byte === BACKSLASH) return this.readEscapedString(start, end);
      if (byte === undefined) this.fail("E_JSON", "the text ends inside a string", end);
      if (byte < 0x20) this.fail("E_JSON", `control character ${byte} inside a string`, end);
      if (byte > 0x7f) isAscii = false;
      end += 1;
    }
    this.offset = end + 1;
    return bytes.toString(isAscii ? "latin1" : "utf8", start, end);
  }

  /**
   * A plain decimal integer 0 … 2^53 − 1; `E_INTEGER` for any other number, `E_HEADER` for no number.
   * `what` names it in the message.
   */
  readCount(what: () => string): number {
    const first = this.peek();
    const start = this.offset;
    if (first !== MINUS && !(first >= ZERO && first <= NINE)) {
      this.fail("E_HEADER", `${what()}: a number is expected, this is ${this.describeNext()}`);
    }
    let value = 0;
    let end = start;
    for (;;) {
      const byte = this.bytes[end] ?? END;
      if (byte < ZERO || byte > NINE) break;
      // The largest integer before the last digit is below 2^57: large enough to be seen as too large.
      if (value <= Number.MAX_SAFE_INTEGER) value = value * 10 + (byte - ZERO);
      end += 1;
    }
    const hasLeadingZero = first === ZERO && end - start > 1;
    const goesOn = IN_NUMBER[this.bytes[end] ?? 0] === 1;
    if (first === MINUS || hasLeadingZero || goesOn || value > Number.MAX_SAFE_INTEGER) {
      const text = quoteName(this.numberText());
      this.fail("E_INTEGER", `${what()}: ${text} is not a plain integer from 0 to 2^53 - 1`, start);
    }
    this.offset = end;
    return value;
  }

  readValue(): JsonValue {
    switch (this.peek()) {
      case OPEN_BRACE: {
        const object = new Map<string, JsonValue>();
        this.readObject((key, keyOffset) => {
          if (object.has(key)) this.fail("E_DUPLICATE", `key ${quoteName(key)} stands twice`, keyOffset);
          object.set(key, this.readValue());
        });
        return object;
      }
      case OPEN_BRACKET: {
        const array: JsonValue[] = [];
        this.readArray(() => array.push(this.readValue()));
        return array;
      }
      case QUOTE:
        return this.readString();
      default:
        return this.readLiteralOrNumber();
    }
  }

  /** Reads a value of any kind and lets go of it; keys must be unique here too. */
  skipValue(): void {
    switch (this.peek()) {
      case OPEN_BRACE: {
        const keys = new Set<string>();
        this.readObject((key, keyOffset) => {
          if (keys.has(key)) this.fail("E_DUPLICATE", `key ${quoteName(key)} stands twice`, keyOffset);
          keys.add(key);
          this.skipValue();
        });
        return;
      }
      case OPEN_BRACKET:
        return this.readArray(() => this.skipValue());
      case QUOTE:
        this.readString();
        return;
      default:
        this.readLiteralOrNumber();
    }
  }

  /** What stands here, in words, for messages. */
  describeNext(): string {
    const byte = this.peek();
    if (byte === END) return "the end of the text";
    if (byte === OPEN_BRACE) return "an object";
    if (byte === OPEN_BRACKET) return "an array";
    if (byte === QUOTE) return "a string";
    if (byte === MINUS || (byte >= ZERO && byte <= NINE)) return "a number";
    const literal = this.literals.find(([word]) => this.startsWith(word));
    if (literal !== undefined) return literal[0];
    return byte > 0x20 && byte < 0x7f ? `"${String.fromCharCode(byte)}"` : `byte 0x${byte.toString(16)}`;
  }

  private readLiteralOrNumber(): JsonValue {
    for (const [word, value] of this.literals) {
      if (!this.startsWith(word)) continue;
      this.offset += word.length;
      return value;
    }
    const text = this.numberText();
    if (text === "") this.unexpected("a value");
    if (!NUMBER.test(text)) this.fail("E_JSON", `${quoteName(text)} is no number`);
    this.offset += text.length;
    return Number(text);
  }

  private numberText(): string {
    let end = this.offset;
    while (IN_NUMBER[this.bytes[end] ?? 0] === 1) end += 1;
    return this.bytes.toString("latin1", this.offset, end);
  }

  private startsWith(word: string): boolean {
    for (let index = 0; index < word.length; index += 1) {
      if (this.bytes[this.offset + index] !== word.charCodeAt(index)) return false;
    }
    return true;
  }

  private open(byte: number, what: string): void {
    if (this.peek() !== byte) this.unexpected(what);
    this.depth += 1;
    if (this.depth > MAX_JSON_DEPTH) this.fail("E_LIMIT", `nested deeper than ${MAX_JSON_DEPTH} levels`);
    this.offset += 1;
  }

  private close(): void {
    this.depth -= 1;
    this.offset += 1;
  }

  private unexpected(wanted: string): never {
    this.fail("E_JSON", `${wanted} is expected, this is ${this.describeNext()}`);
  }

  /** Goes through the rest of a string with escapes; JSON.parse then decodes what was found sound. */
  private readEscapedString(start: number, firstEscape: number): string {
    const { bytes } = this;
    let end = firstEscape;
    for (;;) {
      const byte = bytes[end];
      if (byte === undefined) this.fail("E_JSON", "the text ends inside a string", end);
      if (byte < 0x20) this.fail("E_JSON", `control character ${byte} inside a string`, end);
      if (byte === QUOTE) break;
      if (byte !== BACKSLASH) {
        end += 1;
        continue;
      }
      const escaped = bytes[end + 1] ?? END;
      if (PLAIN_ESCAPES.has(escaped)) end += 2;
      else if (escaped === LETTER_U) end += this.unicodeEscapeLength(end);
      else this.fail("E_JSON", "an unknown escape inside a string", end);
    }
    this.offset = end + 1;
    return JSON.parse(bytes.toString("utf8", start - 1, end + 1)) as string;
  }

  /** Bytes of the `\uXXXX` at `at`: 6, or 12 of a surrogate pair. Half a pair is no Unicode text. */
  private unicodeEscapeLength(at: number): number {
    const unit = this.hexUnit(at);
    if (unit < 0xd800 || unit > 0xdfff) return 6;
    const isPair = unit < 0xdc00 && this.bytes[at + 6] === BACKSLASH && this.bytes[at + 7] === LETTER_U;
    const second = isPair ? this.hexUnit(at + 6) : 0;
    if (second < 0xdc00 || second > 0xdfff) this.fail("E_JSON", "half a surrogate pair inside a string", at);
    return 12;
  }

  private hexUnit(at: number): number {
    const digits = this.bytes.toString("latin1", at + 2, at + 6);
    if (!/^[0-9a-fA-F]{4}$/.test(digits)) this.fail("E_JSON", "\\u without four hexadecimal digits", at);
    return Number.parseInt(digits, 16);
  }
}
