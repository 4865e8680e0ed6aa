/** GGUF files: headers first of all, and their data's length. */
import assert from "node:assert/strict";
import { openModel } from "../../../dist/formats/open.js";
import { mutateBytes, repeatSteps } from "../mutate.mjs";
import { INPUT_CODES, settle } from "./outcome.mjs";

/** Elements and bytes of a block by the number of the type. */
const TYPES = new Map([
  [0, ["F32", 1, 4]],
  [1, ["F16", 1, 2]],
  [2, ["Q4_0", 32, 18]],
  [3, ["Q4_1", 32, 20]],
  [6, ["Q5_0", 32, 22]],
  [7, ["Q5_1", 32, 24]],
  [8, ["Q8_0", 32, 34]],
  [10, ["Q2_K", 256, 84]],
  [11, ["Q3_K", 256, 110]],
  [12, ["Q4_K", 256, 144]],
  [13, ["Q5_K", 256, 176]],
  [14, ["Q6_K", 256, 210]],
  [24, ["I8", 1, 1]],
  [25, ["I16", 1, 2]],
  [26, ["I32", 1, 4]],
  [27, ["I64", 1, 8]],
  [28, ["F64", 1, 8]],
  [30, ["BF16", 1, 2]],
]);

/** Bytes of a value by the number of its type; 8 is a text, 9 a list. */
const VALUE_BYTES = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];

const number = (width, value) => {
  const bytes = Buffer.alloc(width);
  if (width === 4) bytes.writeUInt32LE(Number(BigInt.asUintN(32, BigInt(value))));
  else bytes.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)));
  return bytes;
};
const text = (value) => Buffer.concat([number(8, Buffer.byteLength(value)), Buffer.from(value)]);
const entry = (key, type, ...value) => Buffer.concat([text(key), number(4, type), ...value]);
const list = (key, type, elements) =>
  entry(key, 9, number(4, type), number(8, elements.length), Buffer.concat([...elements]));

function build({ version = 3, entries = [], tensors = [], alignment = 32 }) {
  const infos = [];
  let offset = 0;
  for (const { name, sizes, type } of tensors) {
    const [, elements, bytes] = TYPES.get(type);
    infos.push(text(name), number(4, sizes.length), ...sizes.map((size) => number(8, size)));
    infos.push(number(4, type), number(8, offset));
    const byteLength = (sizes.reduce((product, size) => product * size, 1) / elements) * bytes;
    offset += Math.ceil(byteLength / alignment) * alignment;
  }
  const counts = [number(4, version), number(8, tensors.length), number(8, entries.length)];
  const header = Buffer.concat([Buffer.from("GGUF"), ...counts, ...entries, ...infos]);
  return Buffer.concat([
    header,
    Buffer.alloc((alignment - (header.length % alignment)) % alignment),
    Buffer.alloc(offset, 0x2a),
  ]);
}

const SEEDS = [
  build({}),
  build({ version: 2, tensors: [{ name: "a", sizes: [3, 2], type: 0 }] }),
  build({
    entries: [
      entry("general.architecture", 8, text("flux")),
      entry("general.alignment", 4, number(4, 8)),
      list("words", 8, ["a", "", "bc"].map(text)),
      list(
        "comfy.gguf.orig_shape.b.weight",
        5,
        [64, 2, 2].map((size) => number(4, size)),
      ),
      entry("x", 12, number(8, 5)),
    ],
    tensors: [
      { name: "b.weight", sizes: [256], type: 12 },
      { name: "empty", sizes: [0, 4], type: 28 },
      { name: "conv.weight", sizes: [3, 3, 1, 2, 2], type: 30 },
      { name: "c.weight", sizes: [32, 2], type: 8 },
    ],
    alignment: 8,
  }),
  build({
    entries: [
      list("numbers", 6, Array(70).fill(number(4, 1))),
      entry("split.count", 4, number(4, 1)),
      entry("flag", 7, Buffer.from([1])),
    ],
    tensors: [...TYPES].map(([type, [name, elements]]) => ({ name, sizes: [elements, 2], type })),
  }),
];

/** The header field by field, trusting every number; throws a RangeError where the bytes end. */
function parse(bytes) {
  const fields = [];
  let at = 4;
  const take = (kind, byteLength) => {
    if (at + byteLength > bytes.length) throw new RangeError("the bytes end");
    fields.push({ kind, begin: at, end: at + byteLength });
    at += byteLength;
    return at - byteLength;
  };
  const u32 = () => bytes.readUInt32LE(take("u32", 4));
  const u64 = () => Number(bytes.readBigUInt64LE(take("u64", 8)));
  const readText = () => {
    const byteLength = u64();
    const from = take("text", byteLength);
    return bytes.toString("utf8", from, from + byteLength);
  };
  u32();
  const [tensorCount, entryCount] = [u64(), u64()];
  const shapes = new Map();
  let alignment = 32;
  for (let index = 0; index < entryCount; index++) {
    const key = readText();
    const type = u32();
    if (type === 8) readText();
    else if (type !== 9) {
      const from = take("value", VALUE_BYTES[type]);
      if (key === "general.alignment") alignment = bytes.readUInt32LE(from);
    } else {
      const elementType = u32();
      const count = u64();
      if (elementType === 8) for (let element = 0; element < count; element++) readText();
      else {
        const from = take("value", count * VALUE_BYTES[elementType]);
        const [, name] = /^comfy\.gguf\.orig_shape\.(.*)$/s.exec(key) ?? [];
        const read = { 4: "readUInt32LE", 5: "readInt32LE" }[elementType];
        if (name !== undefined && read !== undefined)
          shapes.set(
            name,
            Array.from({ length: count }, (_, axis) => bytes[read](from + 4 * axis)),
          );
      }
    }
  }
  const tensors = [];
  for (let index = 0; index < tensorCount; index++) {
    const name = readText();
    const sizes = Array.from({ length: u32() }, u64);
    tensors.push({ name, sizes, type: u32(), offset: u64() });
  }
  return { fields, tensors, shapes, alignment, dataBegin: Math.ceil(at / alignment) * alignment };
}

const EDGES = [
  0n,
  1n,
  2n,
  3n,
  5n,
  8n,
  9n,
  13n,
  24n,
  31n,
  32n,
  64n,
  255n,
  256n,
  65536n,
  2n ** 20n + 1n,
  2n ** 31n,
  2n ** 32n,
].concat([2n ** 40n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n, 2n ** 64n - 32n]); // prettier-ignore

/** One field changed, left out or doubled. */
function mutateField(random, bytes) {
  let fields;
  try {
    ({ fields } = parse(bytes));
  } catch {
    return mutateBytes(random, bytes);
  }
  const { kind, begin, end } = random.pick(fields);
  const replace = (middle) => Buffer.concat([bytes.subarray(0, begin), middle, bytes.subarray(end)]);
  if (random.chance(0.1)) return replace(Buffer.alloc(0));
  if (random.chance(0.1)) return replace(Buffer.concat([bytes.subarray(begin, end), bytes.subarray(begin, end)]));
  if (kind !== "u32" && kind !== "u64") return replace(mutateBytes(random, bytes.subarray(begin, end)));
  const width = end - begin;
  const old = width === 4 ? BigInt(bytes.readUInt32LE(begin)) : bytes.readBigUInt64LE(begin);
  return replace(number(width, random.chance(0.5) ? random.pick(EDGES) : old + BigInt(random.below(17) - 8)));
}

function mutate(random, seeds) {
  return repeatSteps(random, random.pick(seeds), (bytes) =>
    random.chance(0.75) ? mutateField(random, bytes) : mutateBytes(random, bytes),
  );
}

async function check(path, bytes) {
  return settle(INPUT_CODES, async () => {
    const { components } = await openModel(path);
    // Whatever else the first bytes may have become is another format's to check.
    if (bytes.toString("latin1", 0, 4) !== "GGUF") return;
    const { tensors: listed, shapes, dataBegin, alignment } = parse(bytes);
    const [{ tensors }] = components;
    const expected = listed.map(({ name, sizes, type, offset }) => {
      const [dtype, elements, blockBytes] = TYPES.get(type);
      const count = sizes.reduce((product, size) => product * BigInt(size), 1n);
      const shape = shapes.get(name) ?? sizes.toReversed();
      assert.equal(
        shape.reduce((product, size) => product * BigInt(size), 1n),
        count,
        "a shape of other elements",
      );
      const byteLength = Number((count / BigInt(elements)) * BigInt(blockBytes));
      return { name, dtype, shape, begin: dataBegin + offset, end: dataBegin + offset + byteLength };
    });
    const found = tensors.map(({ name, dtype, shape, location }) => {
      return { name, dtype, shape, begin: location.byteOffset, end: location.byteOffset + location.byteLength };
    });
    const byName = (a, b) => (a.name < b.name ? -1 : 1);
    assert.deepEqual(found.toSorted(byName), expected.toSorted(byName));
    let free = dataBegin;
    for (const { begin, end } of found) {
      assert.equal(begin, free, "tensors do not follow each other");
      assert.ok(end <= bytes.length || begin === end, "a tensor ends beyond the file");
      free = Math.ceil(end / alignment) * alignment;
    }
  });
}

export default {
  module: import.meta.url,
  name: "gguf",
  fileName: "case.gguf",
  writeSeeds: async () => SEEDS,
  mutate,
  check,
};
