/** Little-endian numbers and strings one after the other, never past the end of the bytes. */
import { ArrowQuantError } from "../errors.js";

export class ByteCursor {
  readonly #view: DataView;
  readonly #bytes: Uint8Array;
  readonly #source: string;
  byteOffset = 0;

  /** @param source what messages call the bytes */
  constructor(bytes: Uint8Array, source: string) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#source = source;
  }

  get bytesLeft(): number {
    return this.#bytes.byteLength - this.byteOffset;
  }

  /** Where `byteLength` bytes begin, which are then passed over. @throws E_TRUNCATED */
  skip(byteLength: number, what: string): number {
    const at = this.byteOffset;
    if (byteLength > this.bytesLeft) {
      throw new ArrowQuantError(
        "E_TRUNCATED",
        `${this.#source}: ${what} at byte ${at} needs ${byteLength} bytes, ${this.bytesLeft} are left`,
        { details: { byteOffset: at, byteLength, bytesLeft: this.bytesLeft } },
      );
    }
    this.byteOffset = at + byteLength;
    return at;
  }

  u32(what: string): number {
    return this.#view.getUint32(this.skip(4, what), true);
  }

  i32(what: string): number {
    return this.#view.getInt32(this.skip(4, what), true);
  }

  /** @throws E_INTEGER beyond 2^53 − 1 */
  u64(what: string): number {
    const at = this.skip(8, what);
    const value = this.#view.getBigUint64(at, true);
    if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
    throw new ArrowQuantError("E_INTEGER", `${this.#source}: ${what} at byte ${at} is ${value}, beyond 2^53 - 1`, {
      details: { byteOffset: at, value: value.toString() },
    });
  }

  /** A string of `byteLength` bytes; @throws E_UTF8 */
  text(byteLength: number, what: string): string {
    const at = this.skip(byteLength, what);
    try {
      return new TextDecoder("utf-8", { fatal: true }).decode(this.#bytes.subarray(at, at + byteLength));
    } catch (cause) {
      throw new ArrowQuantError("E_UTF8", `${this.#source}: ${what} at byte ${at} is not UTF-8`, {
        cause,
        details: { byteOffset: at },
      });
    }
  }

  /** A copy of `count` float32. */
  floats(count: number, what: string): Float32Array {
    const at = this.skip(4 * count, what);
    const floats = new Float32Array(count);
    new Uint8Array(floats.buffer).set(this.#bytes.subarray(at, at + 4 * count));
    return floats;
  }
}
