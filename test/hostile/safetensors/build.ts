/** Builds safetensors files, sound and broken, byte by byte. */

export interface Entry {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data_offsets: readonly [number, number];
}

/** A file of exactly these parts; `length` lies about the header where given. */
export function buildFile(header: string | Uint8Array, data: Uint8Array = new Uint8Array(0), length?: bigint): Buffer {
  const text = typeof header === "string" ? Buffer.from(header, "utf8") : Buffer.from(header);
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(length ?? BigInt(text.length));
  return Buffer.concat([prefix, text, data]);
}

export interface Part {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** A sound file of these tensors, one after the other. */
export function buildSafetensors(parts: readonly Part[], metadata?: Readonly<Record<string, string>>): Buffer {
  let begin = 0;
  const members = metadata === undefined ? [] : [`"__metadata__":${JSON.stringify(metadata)}`];
  for (const { name, dtype, shape, bytes } of parts) {
    const entry: Entry = { dtype, shape, data_offsets: [begin, begin + bytes.length] };
    members.push(`${JSON.stringify(name)}:${JSON.stringify(entry)}`);
    begin += bytes.length;
  }
  return buildFile(`{${members.join(",")}}`, Buffer.concat(parts.map(({ bytes }) => bytes)));
}

/** The bytes of float32 values. */
export function float32Bytes(...values: readonly number[]): Uint8Array {
  return new Uint8Array(new Float32Array(values).buffer);
}

/** A tensor of `F8_E4M3` codes 0 … 126 in turn. */
export function float8Part(name: string, shape: readonly number[], dtype = "F8_E4M3"): Part {
  const count = shape.reduce((product, size) => product * size, 1);
  return { name, dtype, shape, bytes: Uint8Array.from({ length: count }, (_, index) => index % 127) };
}

export function float32Part(name: string, shape: readonly number[], ...values: readonly number[]): Part {
  return { name, dtype: "F32", shape, bytes: float32Bytes(...values) };
}
