/** Headers as they are written, read back by the reader. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { expect, it } from "vitest";
import { readHeader } from "../../../dist/formats/gguf/header.js";
import { blockElements, GGUF_OUTPUT_TYPES, GGUF_TYPE_NAMES } from "../../../dist/formats/gguf/output-type.js";
import { openGguf } from "../../../dist/formats/gguf/reader.js";
import { splitName } from "../../../dist/formats/gguf/split.js";
import { type GgufValue, ggufTensorBytes, layOutGguf } from "../../../dist/formats/gguf/writer.js";
import { withFile } from "../../../dist/io/read.js";
import { folderMaker } from "../folders.ts";

const path = join(folderMaker()({ "x.gguf": "" }), "x.gguf");

const values = fc.oneof(
  fc.record({ type: fc.constant("string" as const), value: fc.string({ unit: "binary", maxLength: 40 }) }),
  fc.record({ type: fc.constant("uint16" as const), value: fc.integer({ min: 0, max: 0xffff }) }),
  fc.record({ type: fc.constant("uint32" as const), value: fc.integer({ min: 0, max: 0xffffffff }) }),
  fc.record({ type: fc.constant("int32" as const), value: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }) }),
  fc.record({
    type: fc.constant("list of int32" as const),
    value: fc.array(fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }), { maxLength: 8 }),
  }),
) satisfies fc.Arbitrary<GgufValue>;

const tensors = fc.uniqueArray(
  fc
    .record({
      name: fc.string({ unit: "grapheme", minLength: 1, maxLength: 30 }).filter((name) => !name.includes("\0")),
      type: fc.constantFrom(...GGUF_TYPE_NAMES),
      outer: fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 4 }),
      last: fc.integer({ min: 0, max: 3 }),
      isScalar: fc.boolean(),
    })
    .map(({ name, type, outer, last, isScalar }) => {
      const { dtype } = GGUF_OUTPUT_TYPES[type];
      const block = blockElements(dtype);
      return { name, dtype, shape: isScalar && block === 1 ? [] : [...outer, last * block] };
    }),
  { selector: ({ name }) => name, maxLength: 12 },
);

it("says what was written: keys, names, shapes, types and places, each at a multiple of 32", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.dictionary(
        fc.string({ minLength: 1, maxLength: 30 }).filter((key) => !/^(?:general\.alignment|split\.|comfy)/.test(key)),
        values,
        { noNullPrototype: true },
      ),
      tensors,
      async (metadata, written) => {
        const entries = new Map(Object.entries(metadata));
        const { header, byteOffsets, byteLength } = layOutGguf(entries, written);
        writeFileSync(path, Buffer.concat([header, Buffer.alloc(byteLength - header.byteLength)]));
        const read = await withFile(path, (file) => readHeader(file, "header"));
        expect(new Map([...read.metadata].map(([key, { type, value }]) => [key, { type, value }]))).toEqual(entries);
        expect(read.trailingBytes).toBe(0);
        expect(read.dataByteOffset).toBe(header.byteLength);
        const places = new Map(written.map((tensor, index) => [tensor.name, { tensor, at: byteOffsets[index] }]));
        expect(read.tensors).toHaveLength(written.length);
        for (const { name, dtype, shape, begin, byteLength: bytes } of read.tensors) {
          const { tensor, at } = places.get(name) as { tensor: (typeof written)[number]; at: number };
          expect({ dtype, shape, bytes, at: read.dataByteOffset + begin }).toEqual({
            dtype: tensor.dtype,
            shape: tensor.shape,
            bytes: ggufTensorBytes(tensor),
            at,
          });
          expect(at % 32).toBe(0);
        }
      },
    ),
    { numRuns: 200 },
  );
});

it("names the parts of a split as the reader looks for them", async () => {
  const folder = folderMaker()({ keep: "" });
  const parts = ["a", "b", "c"].map((name, index): [string, Uint8Array] => {
    const entries = new Map<string, GgufValue>([
      ["split.no", { type: "uint16", value: index }],
      ["split.count", { type: "uint16", value: 3 }],
      ["split.tensors.count", { type: "int32", value: 3 }],
    ]);
    const { header, byteLength } = layOutGguf(entries, [{ name, dtype: "F32", shape: [2] }]);
    return [
      splitName(join(folder, "m.GGUF"), index, 3),
      Buffer.concat([header, Buffer.alloc(byteLength - header.length)]),
    ];
  });
  for (const [name, bytes] of parts) writeFileSync(name, bytes);
  const model = await openGguf((parts[1] as [string, Uint8Array])[0]);
  expect(model.tensors.map(({ name }) => name)).toEqual(["a", "b", "c"]);
  expect(model.files.map(({ name }) => name)).toEqual([1, 2, 3].map((part) => `m-0000${part}-of-00003.gguf`));
});
