/**
 * The values and levels of one stored column of a row group, in Parquet's PLAIN and RLE encodings.
 * Spec: https://github.com/apache/parquet-format/blob/master/Encodings.md
 */
import type { ScalarType } from "./columns.js";
import type { Leaf } from "./schema.js";

/** From here on a value is written from its own memory instead of being gathered with others. */
const BORROW_BYTES = 16 * 1024;

const INITIAL_BYTES = 64;

const utf8Encoder = new TextEncoder();

/** Bytes that grow at their end, with runs of other memory between them. */
class ByteRuns {
  readonly #runs: Uint8Array[] = [];
  readonly #borrowed: number[] = [];
  #tail = new Uint8Array(INITIAL_BYTES);
  #view = new DataView(this.#tail.buffer);
  #start = 0;
  #end = 0;

  /** Room for `byteCount` bytes at the end; returns the view to write them with and where. */
  reserve(byteCount: number): { view: DataView; at: number } {
    if (this.#end + byteCount > this.#tail.length) {
      const kept = this.#tail.subarray(this.#start, this.#end);
      this.#tail = new Uint8Array(Math.max(INITIAL_BYTES, 2 * (kept.length + byteCount)));
      this.#tail.set(kept);
      this.#view = new DataView(this.#tail.buffer);
      this.#end = kept.length;
      this.#start = 0;
    }
    const at = this.#end;
    this.#end += byteCount;
    return { view: this.#view, at };
  }

  append(bytes: Uint8Array): void {
    if (bytes.length < BORROW_BYTES) {
      const { at } = this.reserve(bytes.length);
      this.#tail.set(bytes, at);
      return;
    }
    this.#closeTail();
    this.#borrowed.push(this.#runs.length);
    this.#runs.push(bytes);
  }

  #closeTail(): void {
    if (this.#end > this.#start) this.#runs.push(this.#tail.subarray(this.#start, this.#end));
    this.#start = this.#end;
  }

  /** Copies what still lies in somebody else's memory. */
  own(): void {
    for (const index of this.#borrowed) this.#runs[index] = (this.#runs[index] as Uint8Array).slice();
    this.#borrowed.length = 0;
  }

  /** All bytes in order; nothing may be appended afterwards. */
  finish(): readonly Uint8Array[] {
    this.#closeTail();
    return this.#runs;
  }
}

/** Levels as runs of equal ones. */
class LevelRuns {
  readonly #levels: number[] = [];
  readonly #counts: number[] = [];

  push(level: number, count: number): void {
    const last = this.#levels.length - 1;
    if (this.#levels[last] === level) this.#counts[last] = (this.#counts[last] as number) + count;
    else {
      this.#levels.push(level);
      this.#counts.push(count);
    }
  }

  /** RLE runs behind their length, as a V1 data page wants them; levels here take one byte. */
  encode(): Uint8Array {
    const bytes: number[] = [0, 0, 0, 0];
    for (const [index, level] of this.#levels.entries()) {
      let header = (this.#counts[index] as number) * 2;
      for (; header >= 128; header = Math.floor(header / 128)) bytes.push((header % 128) | 0x80);
      bytes.push(header, level);
    }
    const encoded = Uint8Array.from(bytes);
    new DataView(encoded.buffer).setUint32(0, encoded.length - 4, true);
    return encoded;
  }
}

/** Bytes of a value of a fixed-size type. */
const FIXED_BYTES = { int32: 4, uint32: 4, int64: 8, float32: 4, float64: 8 } as const;

/** Bytes that PLAIN encoding gives one scalar; booleans count as a byte each. */
export function plainBytes(type: ScalarType, value: unknown): number {
  if (type === "utf8") return 4 + Buffer.byteLength(value as string);
  if (type === "binary") return 4 + (value as Uint8Array).length;
  return type === "bool" ? 1 : FIXED_BYTES[type];
}

/** One stored column of a row group that is being filled. */
export class PlainValues {
  readonly #leaf: Leaf;
  readonly #bytes = new ByteRuns();
  readonly #repetitions = new LevelRuns();
  readonly #definitions = new LevelRuns();
  readonly #booleans: boolean[] = [];
  #levelCount = 0;

  constructor(leaf: Leaf) {
    this.#leaf = leaf;
  }

  /** Values of the page with nulls and empty lists, as Parquet counts them. */
  get levelCount(): number {
    return this.#levelCount;
  }

  /** Levels of `count` values, or of a null or empty list that stands where they would. */
  levels(repetition: number, definition: number, count: number): void {
    if (count === 0) return;
    this.#levelCount += count;
    if (this.#leaf.maxRepetition > 0) this.#repetitions.push(repetition, count);
    if (this.#leaf.maxDefinition > 0) this.#definitions.push(definition, count);
  }

  scalar(value: unknown): void {
    const { type } = this.#leaf;
    if (type === "bool") {
      this.#booleans.push(value as boolean);
      return;
    }
    if (type === "utf8" || type === "binary") {
      const bytes = type === "utf8" ? utf8Encoder.encode(value as string) : (value as Uint8Array);
      const { view, at } = this.#bytes.reserve(4);
      view.setUint32(at, bytes.length, true);
      this.#bytes.append(bytes);
      return;
    }
    const { view, at } = this.#bytes.reserve(FIXED_BYTES[type]);
    if (type === "int64") view.setBigInt64(at, BigInt(value as number), true);
    else if (type === "float64") view.setFloat64(at, value as number, true);
    else if (type === "float32") view.setFloat32(at, value as number, true);
    else view.setInt32(at, value as number, true);
  }

  floats(values: Float32Array): void {
    this.#bytes.append(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  }

  own(): void {
    this.#bytes.own();
  }

  /** The page's content: repetition levels, definition levels, values. */
  finish(): readonly Uint8Array[] {
    return [
      ...(this.#leaf.maxRepetition > 0 ? [this.#repetitions.encode()] : []),
      ...(this.#leaf.maxDefinition > 0 ? [this.#definitions.encode()] : []),
      ...(this.#leaf.type === "bool" ? [packBooleans(this.#booleans)] : this.#bytes.finish()),
    ];
  }
}

function packBooleans(values: readonly boolean[]): Uint8Array {
  const packed = new Uint8Array((values.length + 7) >> 3);
  for (const [index, value] of values.entries()) {
    if (value) packed[index >> 3] = (packed[index >> 3] as number) | (1 << (index & 7));
  }
  return packed;
}
