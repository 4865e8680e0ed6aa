/** Importance matrices that lie. */
import { writeFile } from "node:fs/promises";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readImatrix } from "../../../dist/calibration/imatrix.js";
import { ArrowQuantError } from "../../../dist/errors.js";
import { buildGguf, buildLegacy } from "../../calibration/imatrix-files.js";
import { useFolder } from "../../quantize/source.js";

const folder = useFolder();

const ENTRIES = [
  { name: "a.weight", sums: [1, 2, 3], counts: [2] },
  { name: "b.weight", sums: [4, 5], counts: [1] },
];
const gguf = buildGguf(ENTRIES);
const legacy = buildLegacy(ENTRIES, 4, "x.txt");

async function read(bytes: Buffer) {
  const path = folder.path("imatrix");
  await writeFile(path, bytes);
  return readImatrix(path);
}

function edited(bytes: Buffer, edit: (bytes: Buffer) => void): Buffer {
  const copy = Buffer.from(bytes);
  edit(copy);
  return copy;
}

const HUGE = 2n ** 64n - 1n;

describe("GGUF", () => {
  it.each([
    ["of a version of the future", edited(gguf, (bytes) => bytes.writeUInt32LE(9, 4)), "E_CALIBRATION"],
    ["with 2^64 − 1 tensors", edited(gguf, (bytes) => bytes.writeBigUInt64LE(HUGE, 8)), "E_INTEGER"],
    ["with 2^40 keys", edited(gguf, (bytes) => bytes.writeBigUInt64LE(2n ** 40n, 16)), "E_LIMIT"],
    ["with a key of 2^64 − 1 bytes", edited(gguf, (bytes) => bytes.writeBigUInt64LE(HUGE, 24)), "E_INTEGER"],
    ["with a key of 2^20 bytes", edited(gguf, (bytes) => bytes.writeBigUInt64LE(2n ** 20n, 24)), "E_CALIBRATION"],
    ["with a value of an unknown type", edited(gguf, (bytes) => bytes.writeUInt32LE(99, 44)), "E_CALIBRATION"],
    ["that is cut off", gguf.subarray(0, gguf.length - 40), "E_TRUNCATED"],
    ["that ends in its head", gguf.subarray(0, 100), "E_TRUNCATED"],
    ["with negative sums", buildGguf([{ name: "a", sums: [-1], counts: [1] }]), "E_CALIBRATION"],
    ["with sums that are no numbers", buildGguf([{ name: "a", sums: [Number.NaN], counts: [1] }]), "E_CALIBRATION"],
    ["of nothing seen", buildGguf([{ name: "a", sums: [1], counts: [0] }]), "E_CALIBRATION"],
    ["without counts", edited(gguf, (bytes) => bytes.write("x", bytes.indexOf("a.weight.counts"))), "E_CALIBRATION"],
    [
      "of the same name twice",
      buildGguf([ENTRIES[0] as (typeof ENTRIES)[0], ENTRIES[0] as (typeof ENTRIES)[0]]),
      "E_DUPLICATE",
    ],
    ["without entries", buildGguf([]), "E_CALIBRATION"],
  ])("%s is refused", async (_, bytes, code) => {
    await expect(read(bytes)).rejects.toMatchObject({ code });
  });
});

describe("the older form", () => {
  it.each([
    ["with 2^31 − 1 entries", edited(legacy, (bytes) => bytes.writeInt32LE(2 ** 31 - 1, 0)), "E_LIMIT"],
    ["with fewer than no entries", edited(legacy, (bytes) => bytes.writeInt32LE(-1, 0)), "E_LIMIT"],
    ["with a name of 2 GiB", edited(legacy, (bytes) => bytes.writeInt32LE(2 ** 31 - 1, 4)), "E_CALIBRATION"],
    ["with a name that is no text", edited(legacy, (bytes) => bytes.writeUInt8(0xff, 8)), "E_UTF8"],
    ["with no calls", edited(legacy, (bytes) => bytes.writeInt32LE(0, 16)), "E_CALIBRATION"],
    ["with 2 billion columns", edited(legacy, (bytes) => bytes.writeInt32LE(2e9, 20)), "E_TRUNCATED"],
    ["that goes on", Buffer.concat([legacy, Buffer.alloc(3)]), "E_TRAILING"],
    ["that is cut off", legacy.subarray(0, 30), "E_TRUNCATED"],
    ["that is empty", Buffer.alloc(0), "E_TRUNCATED"],
  ])("%s is refused", async (_, bytes, code) => {
    await expect(read(bytes)).rejects.toMatchObject({ code });
  });
});

it("any bytes end in an error of ours, or in moments that are numbers", async () => {
  const edits = fc.record({
    base: fc.constantFrom(gguf, legacy),
    flips: fc.array(fc.record({ at: fc.nat(gguf.length - 1), value: fc.nat(255) }), { minLength: 1, maxLength: 5 }),
    cut: fc.option(fc.nat(gguf.length), { nil: null }),
  });
  await fc.assert(
    fc.asyncProperty(edits, async ({ base, flips, cut }) => {
      const bytes = Buffer.from(base.subarray(0, cut ?? base.length));
      for (const { at, value } of flips) if (at < bytes.length) bytes[at] = value;
      try {
        for (const { meansq } of await read(bytes)) for (const value of meansq) expect(value).toBeGreaterThanOrEqual(0);
      } catch (thrown) {
        expect(thrown).toBeInstanceOf(ArrowQuantError);
        expect((thrown as ArrowQuantError).exitCode).toBe(3);
      }
    }),
    { numRuns: 1000 },
  );
});
