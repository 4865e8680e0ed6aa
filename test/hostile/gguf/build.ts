/** GGUF files made to order, legal or not. */

/** Numbers of value types (gguf_metadata_value_type). */
export const VALUE_TYPES = {
  uint8: 0,
  int8: 1,
  uint16: 2,
  int16: 3,
  uint32: 4,
  int32: 5,
  float32: 6,
  bool: 7,
  string: 8,
  array: 9,
  uint64: 10,
  int64: 11,
  float64: 12,
} as const;

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

export function u64(value: number | bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

export function text(value: string | Uint8Array, length?: number | bigint): Buffer {
  const bytes = Buffer.from(value as string);
  return Buffer.concat([u64(length ?? bytes.length), bytes]);
}

/** A key, the number of its type, and its value as bytes. */
export function entry(key: string, type: number, value: Uint8Array): Buffer {
  return Buffer.concat([text(key), u32(type), value]);
}

export const uint32Entry = (key: string, value: number): Buffer => entry(key, VALUE_TYPES.uint32, u32(value));
export const stringEntry = (key: string, value: string): Buffer => entry(key, VALUE_TYPES.string, text(value));

export function listEntry(key: string, elementType: number, count: number | bigint, elements: Uint8Array): Buffer {
  return entry(key, VALUE_TYPES.array, Buffer.concat([u32(elementType), u64(count), elements]));
}

export function int32List(key: string, values: readonly number[]): Buffer {
  const bytes = Buffer.from(Int32Array.from(values).buffer);
  return listEntry(key, VALUE_TYPES.int32, values.length, bytes);
}

export interface TensorPart {
  readonly name: string;
  /** Innermost first, as the header has it. */
  readonly sizes: readonly (number | bigint)[];
  /** Number of the type; 0 is F32. */
  readonly type?: number;
  readonly offset: number | bigint;
  /** What the header says of the number of sizes. */
  readonly sizeCount?: number;
}

export function tensorInfo({ name, sizes, type = 0, offset, sizeCount = sizes.length }: TensorPart): Buffer {
  return Buffer.concat([text(name), u32(sizeCount), ...sizes.map(u64), u32(type), u64(offset)]);
}

export interface FileParts {
  readonly magic?: string;
  readonly version?: number;
  readonly entries?: readonly Buffer[];
  readonly tensors?: readonly Buffer[];
  /** What the header says of their numbers. */
  readonly entryCount?: number | bigint;
  readonly tensorCount?: number | bigint;
  /** What the data is padded to; the header says it only in an entry. */
  readonly alignment?: number;
  readonly data?: Uint8Array;
}

export function buildGguf(parts: FileParts = {}): Buffer {
  const { magic = "GGUF", version = 3, entries = [], tensors = [], alignment = 32, data = Buffer.alloc(0) } = parts;
  const header = Buffer.concat([
    Buffer.from(magic, "latin1"),
    u32(version),
    u64(parts.tensorCount ?? tensors.length),
    u64(parts.entryCount ?? entries.length),
    ...entries,
    ...tensors,
  ]);
  const padding = Buffer.alloc(data.length === 0 ? 0 : (alignment - (header.length % alignment)) % alignment);
  return Buffer.concat([header, padding, data]);
}
