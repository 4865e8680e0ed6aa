/** Calibration samples on disk: a set may be larger than memory, and every pass reads all of it in order of time. */
import { createHash, type Hash } from "node:crypto";
import { OutputFile } from "../io/output.js";
import type { CalibrationSample, SampleArray } from "./data/sample.js";

/** Samples are gathered to writes of this size. */
const WRITE_BYTES = 1024 * 1024;

const ELEMENT_TYPES = { f32: Float32Array, i64: BigInt64Array, i32: Int32Array } as const;
type ElementType = keyof typeof ELEMENT_TYPES;

interface InputLayout {
  readonly name: string;
  readonly type: ElementType;
  readonly shape: readonly number[];
  readonly byteOffset: number;
  readonly byteLength: number;
}

/** Samples of one layout can share a batch. */
interface SampleLayout {
  readonly key: string;
  readonly inputs: readonly InputLayout[];
  readonly byteLength: number;
}

interface SampleEntry {
  readonly layout: SampleLayout;
  readonly time: number;
  readonly byteOffset: number;
}

export class SampleSpool {
  readonly #file: OutputFile;
  readonly #layouts = new Map<string, SampleLayout>();
  readonly #entries: SampleEntry[] = [];
  readonly #hash: Hash = createHash("sha256");
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  #byteLength = 0;

  private constructor(file: OutputFile) {
    this.#file = file;
  }

  static async create(path: string): Promise<SampleSpool> {
    return new SampleSpool(await OutputFile.create(path));
  }

  get count(): number {
    return this.#entries.length;
  }

  get byteLength(): number {
    return this.#byteLength;
  }

  /** SHA-256 over layouts, times and elements of all samples in order. */
  fingerprint(): string {
    return this.#hash.copy().digest("hex");
  }

  times(): Float64Array {
    return Float64Array.from(this.#entries, ({ time }) => time);
  }

  time(index: number): number {
    return this.#entry(index).time;
  }

  /** Equal for samples whose inputs have equal names, types and shapes. */
  layoutKey(index: number): string {
    return this.#entry(index).layout.key;
  }

  async append({ time, inputs, shapes }: CalibrationSample): Promise<void> {
    const layout = this.#layoutOf(inputs, shapes);
    const bytes = new Uint8Array(layout.byteLength);
    for (const { name, byteOffset } of layout.inputs) {
      const array = inputs.get(name) as SampleArray;
      bytes.set(new Uint8Array(array.buffer, array.byteOffset, array.byteLength), byteOffset);
    }
    this.#hash
      .update(layout.key)
      .update(new Uint8Array(Float64Array.of(time).buffer))
      .update(bytes);
    this.#entries.push({ layout, time, byteOffset: this.#byteLength });
    this.#pending.push(bytes);
    this.#pendingBytes += bytes.byteLength;
    this.#byteLength += bytes.byteLength;
    if (this.#pendingBytes >= WRITE_BYTES) await this.flush();
  }

  /** Writes what is gathered; before anything is read. */
  async flush(): Promise<void> {
    const bytes = Buffer.concat(this.#pending);
    this.#pending = [];
    this.#pendingBytes = 0;
    await this.#file.write(bytes);
  }

  /** Inputs of a sample by name. */
  async read(index: number): Promise<{ inputs: Map<string, SampleArray>; shapes: Map<string, readonly number[]> }> {
    const { layout, byteOffset } = this.#entry(index);
    const bytes = new Uint8Array(layout.byteLength);
    await this.#file.read(bytes, byteOffset);
    const inputs = new Map<string, SampleArray>();
    for (const input of layout.inputs) {
      const part = bytes.slice(input.byteOffset, input.byteOffset + input.byteLength).buffer;
      inputs.set(input.name, new ELEMENT_TYPES[input.type](part));
    }
    return { inputs, shapes: new Map(layout.inputs.map(({ name, shape }) => [name, shape])) };
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  #entry(index: number): SampleEntry {
    return this.#entries[index] as SampleEntry;
  }

  #layoutOf(inputs: CalibrationSample["inputs"], shapes: CalibrationSample["shapes"]): SampleLayout {
    let byteLength = 0;
    const parts = [...inputs.keys()].sort().map((name): InputLayout => {
      const array = inputs.get(name) as SampleArray;
      const byteOffset = byteLength;
      byteLength += array.byteLength;
      return { name, type: typeOf(array), shape: shapes.get(name) ?? [], byteOffset, byteLength: array.byteLength };
    });
    const key = JSON.stringify(parts.map(({ name, type, shape }) => [name, type, shape]));
    const known = this.#layouts.get(key);
    if (known !== undefined) return known;
    const layout = { key, inputs: parts, byteLength };
    this.#layouts.set(key, layout);
    return layout;
  }
}

function typeOf(array: SampleArray): ElementType {
  if (array instanceof Float32Array) return "f32";
  return array instanceof BigInt64Array ? "i64" : "i32";
}
