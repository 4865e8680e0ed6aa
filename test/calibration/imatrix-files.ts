/** Importance matrices, built byte by byte. */

export interface Entry {
  readonly name: string;
  /** Σ x² per column; of several matrices one after the other. */
  readonly sums: readonly number[];
  /** How many x there were, per matrix. */
  readonly counts: readonly number[];
}

const u32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};
const u64 = (value: number | bigint) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
};
const text = (value: string) => Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)]);
const floats = (values: readonly number[]) => Buffer.from(Float32Array.from(values).buffer);

/** The form of today (docs/gguf.md), with keys of every shape that such files have. */
export function buildGguf(entries: readonly Entry[], type = "imatrix"): Buffer {
  const keys = [
    Buffer.concat([text("general.type"), u32(8), text(type)]),
    Buffer.concat([text("imatrix.datasets"), u32(9), u32(8), u64(2), text("a.txt"), text("b.txt")]),
    Buffer.concat([text("imatrix.chunk_count"), u32(4), u32(7)]),
    Buffer.concat([text("some.numbers"), u32(9), u32(6), u64(3), floats([1, 2, 3])]),
  ];
  const tensors = entries.flatMap(({ name, sums, counts }) => [
    { name: `${name}.in_sum2`, dims: [sums.length / counts.length, counts.length], values: sums },
    { name: `${name}.counts`, dims: [1, counts.length], values: counts },
  ]);
  let offset = 0;
  const infos: Buffer[] = [];
  const data: Buffer[] = [];
  for (const { name, dims, values } of tensors) {
    infos.push(Buffer.concat([text(name), u32(dims.length), ...dims.map(u64), u32(0), u64(offset)]));
    const bytes = floats(values);
    const padded = Math.ceil(bytes.length / 32) * 32;
    data.push(Buffer.concat([bytes, Buffer.alloc(padded - bytes.length)]));
    offset += padded;
  }
  const head = Buffer.concat([Buffer.from("GGUF"), u32(3), u64(tensors.length), u64(keys.length), ...keys, ...infos]);
  return Buffer.concat([head, Buffer.alloc(Math.ceil(head.length / 32) * 32 - head.length), ...data]);
}

/** The older form, which holds means times calls. */
export function buildLegacy(entries: readonly Entry[], calls: number, dataSet: string | null): Buffer {
  const parts = entries.map(({ name, sums, counts: [count = 1] }) => {
    const values = sums.map((sum) => (sum / count) * calls);
    return Buffer.concat([
      u32(Buffer.byteLength(name)),
      Buffer.from(name),
      u32(calls),
      u32(values.length),
      floats(values),
    ]);
  });
  const tail = dataSet === null ? [] : [u32(calls), u32(Buffer.byteLength(dataSet)), Buffer.from(dataSet)];
  return Buffer.concat([u32(entries.length), ...parts, ...tail]);
}
