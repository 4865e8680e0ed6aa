/** Little-endian numbers and strings of a GGUF header, read by position through one small window. */
import { ArrowQuantError, type ErrorCode } from "../../errors.js";
import { type OpenFile, readExactly } from "../../io/read.js";

/** Bytes held of the header; more than the longest string that is decoded. */
const WINDOW_BYTES = 256 * 1024;

/**
 * Longest header, the same as of safetensors. The largest vocabularies of tokenizers take about 20 MB, headers of
 * diffusion models some hundred KB.
 */
export const MAX_HEADER_BYTES = 100_000_000;

/** Longest string that is decoded: keys may have 65,535 bytes, and no other string is looked at. */
export const MAX_TEXT_BYTES = 65_535;

export class HeaderCursor {
  readonly #file: OpenFile;
  readonly #source: string;
  readonly #window = Buffer.allocUnsafeSlow(WINDOW_BYTES);
  /** Where the window begins in the file, and how many of its bytes are filled. */
  #windowStart = 0;
  #windowLength = 0;
  /** Of the next byte, in the file. */
  byteOffset = 0;

  /** @param source what messages call the header */
  constructor(file: OpenFile, source: string) {
    this.#file = file;
    this.#source = source;
  }

  get bytesLeft(): number {
    return this.#file.byteLength - this.byteOffset;
  }

  fail(code: ErrorCode, problem: string, options: { hint?: string; details?: Record<string, unknown> } = {}): never {
    throw new ArrowQuantError(code, `${this.#source}: ${problem}`, {
      ...options,
      details: { byteOffset: this.byteOffset, ...options.details },
    });
  }

  async u8(what: string): Promise<number> {
    return this.#window.readUInt8(await this.#need(1, what));
  }

  async u32(what: string): Promise<number> {
    return this.#window.readUInt32LE(await this.#need(4, what));
  }

  /** The next bytes, good until the next call; at most `MAX_TEXT_BYTES`. */
  async bytes(byteLength: number, what: string): Promise<Buffer> {
    const at = await this.#need(byteLength, what);
    return this.#window.subarray(at, at + byteLength);
  }

  /** A u64 that counts something. @throws E_INTEGER beyond 2^53 − 1 */
  async count(what: string): Promise<number> {
    const value = this.#window.readBigUInt64LE(await this.#need(8, what));
    if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
    return this.fail("E_INTEGER", `${what} is ${value}, beyond 2^53 - 1`, { details: { value: value.toString() } });
  }

  /** A string: its length in eight bytes, then that many of UTF-8. @throws E_LIMIT, E_TRUNCATED, E_UTF8 */
  async text(what: string): Promise<string> {
    const byteLength = await this.count(`length of ${what}`);
    this.assertLeft(byteLength, what);
    if (byteLength > MAX_TEXT_BYTES) {
      this.fail("E_LIMIT", `${what} has ${byteLength} bytes, the limit is ${MAX_TEXT_BYTES}`, {
        details: { byteLength, limit: MAX_TEXT_BYTES },
      });
    }
    const bytes = await this.bytes(byteLength, what);
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch (cause) {
      throw new ArrowQuantError("E_UTF8", `${this.#source}: ${what} is not UTF-8`, {
        cause,
        details: { byteOffset: this.byteOffset - byteLength },
      });
    }
  }

  /** Passes over bytes without reading them. */
  skip(byteLength: number, what: string): void {
    this.assertLeft(byteLength, what);
    this.byteOffset += byteLength;
  }

  /** Passes over strings; only their lengths are read. */
  async skipTexts(textCount: number, what: string): Promise<void> {
    for (let index = 0; index < textCount; index += 1) {
      // Vocabularies have some hundred thousand: a read is waited for only where the window ends.
      const byteLength = this.#holds(8)
        ? Number(this.#window.readBigUInt64LE(this.#take(8)))
        : await this.count(`length of ${what}[${index}]`);
      if (byteLength > this.bytesLeft || this.byteOffset > MAX_HEADER_BYTES)
        this.assertLeft(byteLength, `${what}[${index}]`);
      this.byteOffset += byteLength;
    }
  }

  /** Throws `E_TRUNCATED` where the file ends within the next bytes, `E_HEADER_SIZE` where the header gets too long. */
  assertLeft(byteLength: number, what: string): void {
    if (byteLength > this.bytesLeft) {
      this.fail(
        "E_TRUNCATED",
        `${what} at byte ${this.byteOffset} needs ${byteLength} bytes, ${this.bytesLeft} are left`,
        {
          hint: "the file is cut off or damaged: download it again",
          details: { byteLength, bytesLeft: this.bytesLeft },
        },
      );
    }
    if (this.byteOffset + byteLength > MAX_HEADER_BYTES) {
      this.fail(
        "E_HEADER_SIZE",
        `${what} ends at byte ${this.byteOffset + byteLength}, the limit is ${MAX_HEADER_BYTES}`,
        {
          details: { limit: MAX_HEADER_BYTES },
        },
      );
    }
  }

  /** Where the next bytes lie in the window, filled anew where it must be; they are passed over. */
  async #need(byteLength: number, what: string): Promise<number> {
    this.assertLeft(byteLength, what);
    if (!this.#holds(byteLength)) {
      this.#windowStart = this.byteOffset;
      this.#windowLength = Math.min(WINDOW_BYTES, this.bytesLeft);
      await readExactly(this.#file, this.#window.subarray(0, this.#windowLength), this.byteOffset);
    }
    return this.#take(byteLength);
  }

  /** Whether the next bytes are in the window. */
  #holds(byteLength: number): boolean {
    const at = this.byteOffset - this.#windowStart;
    return at >= 0 && at + byteLength <= this.#windowLength;
  }

  #take(byteLength: number): number {
    const at = this.byteOffset - this.#windowStart;
    this.byteOffset += byteLength;
    return at;
  }
}
