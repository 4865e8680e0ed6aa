import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { ArrowQuantError } from "../../dist/errors.js";
import { openModel } from "../../dist/formats/open.js";
import { type HeaderTensor, parseHeader } from "../../dist/formats/safetensors/header.js";
import { DTYPES, type Dtype } from "../../dist/tensor/dtype.js";

interface Described {
  readonly dtype: Dtype;
  readonly shape: number[];
  readonly data_offsets: [number, number];
}

/** The tensors of a header by JSON.parse: name, type, shape and offsets, in the order of the offsets. */
function listByJsonParse(text: string): HeaderTensor[] {
  const header = JSON.parse(text) as Record<string, Described>;
  return Object.entries(header)
    .filter(([name]) => name !== "__metadata__")
    .map(
      ([
        name,
        {
          dtype,
          shape,
          data_offsets: [begin, end],
        },
      ]) => ({ name, dtype, shape, begin, end }),
    )
    .sort((a, b) => a.begin - b.begin || a.end - b.end);
}

/** Whether a list of tensors obeys the format, in other words than the reader's. */
function isSound(tensors: readonly HeaderTensor[], dataByteLength: number): boolean {
  const owners = new Uint8Array(dataByteLength);
  for (const { dtype, shape, begin, end } of tensors) {
    if (!Object.hasOwn(DTYPES, dtype) || begin > end || end > dataByteLength) return false;
    if (shape.reduce((product, size) => product * size, DTYPES[dtype].bits) !== (end - begin) * 8) return false;
    for (let byte = begin; byte < end; byte += 1) owners[byte] = (owners[byte] as number) + 1;
  }
  return owners.every((count) => count === 1);
}

const dtype = fc.constantFrom(...(Object.keys(DTYPES) as Dtype[]).filter((name) => DTYPES[name].bits % 8 === 0));
const shape = fc.array(fc.nat({ max: 4 }), { maxLength: 4 });
const name = fc
  .string({ unit: "grapheme", maxLength: 12 })
  .filter((text) => text !== "__proto__" && text !== "__metadata__");
const metadata = fc.option(
  fc.dictionary(
    fc.string().filter((key) => key !== "__proto__"),
    fc.string(),
    { maxKeys: 3 },
  ),
);

/** A sound header: text and byte length of the data. Entries stand in any order, with keys in any order. */
const header = fc
  .tuple(
    fc.uniqueArray(fc.tuple(name, dtype, shape), { selector: ([key]) => key, maxLength: 8 }),
    metadata,
    fc.integer(),
    fc.constantFrom(undefined, 1, 3),
    fc.nat({ max: 9 }),
  )
  .map(([tensors, strings, order, indent, padding]) => {
    let end = 0;
    const entries = tensors.map(([key, type, sizes], index): [string, unknown] => {
      const begin = end;
      end += (sizes.reduce((product, size) => product * size, 1) * DTYPES[type].bits) / 8;
      const fields: [string, unknown][] = [
        ["dtype", type],
        ["shape", sizes],
        ["data_offsets", [begin, end]],
        ["note", [{}]],
      ];
      return [key, Object.fromEntries(rotate(fields.slice(0, 3 + (index % 2)), order + index))];
    });
    if (strings !== null) entries.push(["__metadata__", strings]);
    return {
      text: JSON.stringify(Object.fromEntries(rotate(entries, order)), null, indent) + " ".repeat(padding),
      dataByteLength: end,
    };
  });

function rotate<T>(items: readonly T[], by: number): T[] {
  const at = items.length === 0 ? 0 : Math.abs(by) % items.length;
  return [...items.slice(at), ...items.slice(0, at)];
}

describe("generated headers", () => {
  it("read as JSON.parse reads them", () => {
    fc.assert(
      fc.property(header, ({ text, dataByteLength }) => {
        const { tensors } = parseHeader(Buffer.from(text), dataByteLength, "header");
        expect(new Set(tensors.map((tensor) => JSON.stringify(tensor)))).toEqual(
          new Set(listByJsonParse(text).map((tensor) => JSON.stringify(tensor))),
        );
        for (const [index, tensor] of tensors.entries()) {
          expect(tensor.begin).toBe(index === 0 ? 0 : tensors[index - 1]?.end);
        }
      }),
      { numRuns: 500 },
    );
  });

  it("with bytes changed end in an error of this program or in a right reading", () => {
    const change = fc.record({
      at: fc.nat(),
      byte: fc.oneof(fc.nat({ max: 255 }), fc.constantFrom(...Buffer.from('{}[]",:0192-.e\\'))),
      kind: fc.nat({ max: 2 }),
    });
    let right = 0;
    fc.assert(
      fc.property(header, fc.array(change, { minLength: 1, maxLength: 3 }), ({ text, dataByteLength }, changes) => {
        let bytes = Buffer.from(text);
        for (const { at, byte, kind } of changes) {
          const cut = at % bytes.length;
          const middle = kind === 0 ? [] : [byte];
          bytes = Buffer.concat([
            bytes.subarray(0, cut),
            Buffer.from(middle),
            bytes.subarray(kind === 2 ? cut : cut + 1),
          ]);
        }
        let tensors: readonly HeaderTensor[];
        try {
          ({ tensors } = parseHeader(bytes, dataByteLength, "header"));
        } catch (error) {
          expect(error).toBeInstanceOf(ArrowQuantError);
          return;
        }
        right += 1;
        const expected = listByJsonParse(bytes.toString("utf8"));
        expect(new Set(tensors.map((tensor) => JSON.stringify(tensor)))).toEqual(
          new Set(expected.map((tensor) => JSON.stringify(tensor))),
        );
        expect(isSound(tensors, dataByteLength)).toBe(true);
      }),
      { numRuns: 3000, seed: 20250101 },
    );
    expect(right).toBeGreaterThan(50);
  });

  it("with their data a byte longer or shorter, or a tensor's numbers off by one, are refused", () => {
    fc.assert(
      fc.property(header, fc.constantFrom(-1, 1), ({ text, dataByteLength }, by) => {
        fc.pre(dataByteLength + by >= 0);
        expect(() => parseHeader(Buffer.from(text), dataByteLength + by, "header")).toThrow(
          expect.objectContaining({ code: by > 0 ? "E_TRAILING" : "E_TRUNCATED" }),
        );
      }),
    );
  });
});

const models = fileURLToPath(new URL("../../../shared/models/", import.meta.url));
const shipped = fileURLToPath(new URL("../models/", import.meta.url));

function listSafetensors(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".safetensors"))
    .map((path) => join(folder, path));
}

describe("real files", () => {
  it.each([...listSafetensors(shipped), ...listSafetensors(models)])("%s lists what JSON.parse lists", async (path) => {
    const bytes = readFileSync(path);
    const length = Number(bytes.readBigUInt64LE(0));
    const expected = listByJsonParse(bytes.toString("utf8", 8, 8 + length));
    const { components } = await openModel(path);
    expect(components[0]?.files).toMatchObject([{ path, byteLength: bytes.length, headerByteLength: 8 + length }]);
    expect(components[0]?.tensors).toEqual(
      expected.map(({ name: tensorName, dtype: type, shape: sizes, begin, end }) => ({
        name: tensorName,
        dtype: type,
        shape: sizes,
        sourceScale: null,
        location: { file: 0, byteOffset: 8 + length + begin, byteLength: end - begin },
      })),
    );
  });
});

describe("a file of more than 4 GiB", () => {
  const scratch = mkdtempSync(join(tmpdir(), "arrowquant-large-"));
  afterAll(() => rmSync(scratch, { recursive: true }));

  it("opens by its header alone, with offsets beyond 2^32", async () => {
    const path = join(scratch, "large.safetensors");
    const rows = 3 * 2 ** 20;
    const half = rows * 1024 * 2;
    const entries = {
      a: { dtype: "F16", shape: [rows, 1024], data_offsets: [0, half] },
      b: { dtype: "I64", shape: [], data_offsets: [half, half + 8] },
    };
    const text = Buffer.from(JSON.stringify(entries));
    const file = openSync(path, "w");
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(text.length));
    writeSync(file, Buffer.concat([length, text]));
    // Sparse: the file system stores the header and nothing else.
    ftruncateSync(file, 8 + text.length + half + 8);
    closeSync(file);
    const { components } = await openModel(path);
    expect(half).toBeGreaterThan(2 ** 32);
    expect(components[0]?.tensors[1]?.location).toEqual({
      file: 0,
      byteOffset: 8 + text.length + half,
      byteLength: 8,
    });
  });
});
