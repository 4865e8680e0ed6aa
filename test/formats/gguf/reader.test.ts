import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readHeader } from "../../../dist/formats/gguf/header.js";
import { openModel } from "../../../dist/formats/open.js";
import { withFile } from "../../../dist/io/read.js";
import { BLOCKS, type Dtype } from "../../../dist/tensor/dtype.js";
import { buildGguf, int32List, type TensorPart, tensorInfo, uint32Entry } from "../../hostile/gguf/build.ts";
import { folderMaker } from "../folders.ts";
import { openComponent, SAMPLES } from "./samples.js";

const make = folderMaker();
const PARTS = [1, 2, 3].map((number) => `blocks-split-0000${number}-of-00003.gguf`);
const bytesOf = (name: string): Buffer => readFileSync(join(SAMPLES, name));

/** A folder with the files of the sample split, under these names. */
function splitFolder(names: Readonly<Record<string, string>>): string {
  return make(Object.fromEntries(Object.entries(names).map(([name, part]) => [name, bytesOf(part)])));
}

describe("a file of gguf-py", () => {
  it("is component model, its architecture in place of a class name", async () => {
    const model = await openModel(join(SAMPLES, "blocks.gguf"));
    expect(model).toMatchObject({
      format: "gguf",
      pipelineClassName: null,
      warnings: [],
      components: [{ name: "model", className: "flux", configText: null }],
    });
    await expect(openModel(join(SAMPLES, "blocks.gguf"), { variant: "fp16" })).rejects.toMatchObject({
      code: "E_CONFLICT",
    });
    await expect(openModel(join(SAMPLES, "blocks.gguf"), { components: ["vae"] })).rejects.toMatchObject({
      code: "E_COMPONENT",
    });
  });

  it("has metadata of every kind, long lists left where they are", async () => {
    const path = join(SAMPLES, "blocks.gguf");
    const { metadata } = await withFile(path, (file) => readHeader(file, "header"));
    const values = Object.fromEntries([...metadata].map(([key, { type, value }]) => [key, [type, value]]));
    expect(values).toMatchObject({
      "general.architecture": ["string", "flux"],
      "general.name": ["string", "every type"],
      "general.quantization_version": ["uint32", 2],
      "tokenizer.ggml.tokens": ["list of string", null],
      "tokenizer.ggml.scores": ["list of float32", null],
      "test.flags": ["list of bool", [true, false]],
      "test.negative": ["int64", -5n],
      "test.double": ["float64", 0.1],
      "comfy.gguf.orig_shape.reshaped.Q4_K": ["list of int32", [64, 4, 3, 3]],
    });
    // Each entry can be copied from where it lies: a file of the same entries says the same.
    const bytes = bytesOf("blocks.gguf");
    const entries = [...metadata.values()].map(({ byteOffset, byteLength }) =>
      bytes.subarray(byteOffset, byteOffset + byteLength),
    );
    const copy = join(make({ "copy.gguf": buildGguf({ entries }) }), "copy.gguf");
    const copied = await withFile(copy, (file) => readHeader(file, "header"));
    expect(copied.metadata).toEqual(metadata);
  });
});

describe("a split", () => {
  it("is one model, whichever of its files is given", async () => {
    const whole = await openComponent(join(SAMPLES, "blocks.gguf"));
    const contents = whole.tensors.map(({ name, dtype, shape, location }) => {
      const bytes = bytesOf("blocks.gguf").subarray(location.byteOffset, location.byteOffset + location.byteLength);
      return { name, dtype, shape, bytes };
    });
    for (const part of PARTS) {
      const split = await openComponent(join(SAMPLES, part));
      expect(split.files.map(({ name }) => name)).toEqual(PARTS);
      expect(split.className).toBe("flux");
      const found = split.tensors.map(({ name, dtype, shape, location }) => {
        const file = bytesOf(split.files[location.file]?.name ?? "");
        return {
          name,
          dtype,
          shape,
          bytes: file.subarray(location.byteOffset, location.byteOffset + location.byteLength),
        };
      });
      expect(found).toEqual(contents);
    }
  });

  const [first, second, third] = PARTS as [string, string, string];
  it.each([
    ["E_NOT_FOUND", { [first]: first, [third]: third }, /file 2 of 3.*is not there/],
    ["E_INDEX", { [first]: first, [second]: third, [third]: third }, /says it is file 3 of 3, not file 2 of 3/],
    ["E_INDEX", { "renamed.gguf": first }, /file 1 of 3, its name does not say so/],
    ["E_INDEX", { "x-00002-of-00003.gguf": first }, /file 1 of 3, its name does not say so/],
  ])("that is not whole is refused: %s", async (code, names, says) => {
    const folder = splitFolder(names);
    const given = Object.keys(names)[0] as string;
    await expect(openModel(join(folder, given))).rejects.toMatchObject({ code, message: expect.stringMatching(says) });
  });

  it("with a file of another model is refused", async () => {
    const part = (number: number, tensorCount: number, name: string): Buffer =>
      buildGguf({
        entries: [
          uint32Entry("split.no", number),
          uint32Entry("split.count", 2),
          uint32Entry("split.tensors.count", tensorCount),
        ],
        tensors: [tensorInfo({ name, sizes: [1], offset: 0 })],
        data: Buffer.alloc(32),
      });
    const open = async (one: Buffer, other: Buffer) => {
      const folder = make({ "a-00001-of-00002.gguf": one, "a-00002-of-00002.gguf": other });
      return openModel(join(folder, "a-00001-of-00002.gguf"));
    };
    expect((await open(part(0, 2, "x"), part(1, 2, "y"))).components[0]?.tensors).toHaveLength(2);
    await expect(open(part(0, 2, "x"), part(1, 2, "x"))).rejects.toMatchObject({ code: "E_DUPLICATE" });
    await expect(open(part(0, 3, "x"), part(1, 3, "y"))).rejects.toMatchObject({
      code: "E_INDEX",
      message: expect.stringMatching(/has 3 tensors, its 2 files 2/),
    });
    await expect(open(part(0, 2, "x"), part(1, 3, "y"))).rejects.toMatchObject({ code: "E_INDEX" });
  });
});

it("what is beside the point is warned of", async () => {
  const bytes = buildGguf({
    entries: [int32List("comfy.gguf.orig_shape.gone", [2, 2])],
    tensors: [tensorInfo({ name: "x", sizes: [8], offset: 0 })],
    data: Buffer.alloc(32 + 5),
  });
  const folder = make({ "a.gguf": bytes });
  const { warnings } = await openModel(join(folder, "a.gguf"));
  expect(warnings).toEqual([
    "a.gguf has 5 bytes after its last tensor, which are of none",
    '1 original shapes are of tensors that are not there, the first of "gone"',
  ]);
});

it("a GGUF file is known by its first bytes, whatever its name", async () => {
  const folder = make({});
  copyFileSync(join(SAMPLES, "blocks.gguf"), join(folder, "model.bin"));
  expect((await openModel(join(folder, "model.bin"))).format).toBe("gguf");
});

const TYPES: Readonly<Record<string, number>> = { F32: 0, F16: 1, Q8_0: 8, Q6_K: 14, I8: 24, F64: 28, BF16: 30 };
const SIZES: Readonly<Record<string, number>> = { F32: 4, F16: 2, I8: 1, F64: 8, BF16: 2 };

it("any tensors are found where they lie, at any alignment", async () => {
  const folder = make({});
  const part = fc.record({
    dtype: fc.constantFrom(...Object.keys(TYPES)),
    blocks: fc.nat(3),
    outer: fc.array(fc.nat(3), { maxLength: 4 }),
    name: fc.string({ unit: "binary", maxLength: 20 }).filter((name) => !name.includes("\0")),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(part, { selector: ({ name }) => name, maxLength: 8 }),
      fc.constantFrom(1, 8, 32, 4096),
      fc.constantFrom(2, 3),
      async (parts, alignment, version) => {
        const tensors: TensorPart[] = [];
        const expected: unknown[] = [];
        let offset = 0;
        for (const { dtype, blocks, outer, name } of parts) {
          const { elements, bytes } =
            dtype in BLOCKS ? BLOCKS[dtype as "Q8_0"] : { elements: 1, bytes: SIZES[dtype] ?? 0 };
          const sizes = [blocks * elements, ...outer];
          const byteLength = sizes.reduce((product, size) => product * size, bytes / elements);
          tensors.push({ name, sizes, type: TYPES[dtype] as number, offset });
          expected.push({ name, dtype: dtype as Dtype, shape: sizes.toReversed(), offset, byteLength });
          offset += Math.ceil(byteLength / alignment) * alignment;
        }
        const entries = alignment === 32 ? [] : [uint32Entry("general.alignment", alignment)];
        const file = buildGguf({
          version,
          entries,
          tensors: tensors.map(tensorInfo),
          alignment,
          data: Buffer.alloc(offset),
        });
        writeFileSync(join(folder, "a.gguf"), file);
        const { tensors: found, files } = await openComponent(join(folder, "a.gguf"));
        const begin = Math.ceil((file.length - offset) / alignment) * alignment;
        const compared = found.map(({ name, dtype, shape, location }) => ({
          ...{ name, dtype, shape, offset: location.byteOffset - begin, byteLength: location.byteLength },
        }));
        expect(new Set(compared.map((one) => JSON.stringify(one)))).toEqual(
          new Set(expected.map((one) => JSON.stringify(one))),
        );
        expect(found.map(({ location }) => location.byteOffset)).toEqual(
          found.map(({ location }) => location.byteOffset).toSorted((a, b) => a - b),
        );
        expect(files[0]?.headerByteLength).toBeLessThanOrEqual(file.length);
      },
    ),
    { numRuns: 200 },
  );
});
