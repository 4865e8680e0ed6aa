import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { ERRORS } from "../../../dist/errors.js";
import { openModel } from "../../../dist/formats/open.js";
import { buildGguf, entry, listEntry, tensorInfo, text, u64, uint32Entry, VALUE_TYPES } from "./build.ts";
import { HOSTILE_CASES, LEGAL_CASES } from "./cases.ts";

const folder = mkdtempSync(join(tmpdir(), "arrowquant-hostile-gguf-"));
afterAll(() => rmSync(folder, { recursive: true }));

function write(name: string, bytes: Uint8Array): string {
  const path = join(folder, `${name}.gguf`);
  writeFileSync(path, bytes);
  return path;
}

describe("broken GGUF files", () => {
  it.each(HOSTILE_CASES)("$name: $code", async ({ name, bytes, code, says }) => {
    await expect(openModel(write(name, bytes))).rejects.toMatchObject({
      name: "ArrowQuantError",
      code,
      message: expect.stringMatching(says),
    });
    expect(ERRORS).toHaveProperty([code, "exitCode"], 3);
  });

  it("cut off anywhere in their headers are never read as something else", async () => {
    const whole = buildGguf({
      entries: [
        uint32Entry("general.alignment", 8),
        listEntry("words", VALUE_TYPES.string, 2, Buffer.concat([text("a"), text("bc")])),
        entry("flag", VALUE_TYPES.bool, Uint8Array.of(1)),
      ],
      tensors: [tensorInfo({ name: "x", sizes: [], offset: 0 })],
      data: Buffer.alloc(8),
      alignment: 8,
    });
    await expect(openModel(write("whole", whole))).resolves.toMatchObject({
      components: [{ tensors: [{ name: "x" }] }],
    });
    for (let length = 4; length < whole.length - 4; length += 1) {
      await expect(openModel(write("cut", whole.subarray(0, length))), String(length)).rejects.toMatchObject({
        code: "E_TRUNCATED",
      });
    }
  });

  it("of gigabytes of zeros after their counts end in an error", async () => {
    const counts = [
      { tensorCount: 1_000_000, code: "E_DUPLICATE" },
      { entryCount: 60_000, code: "E_HEADER" },
      {
        entryCount: 1,
        entries: [Buffer.concat([text("a"), Buffer.from([9, 0, 0, 0, 8, 0, 0, 0]), u64(2 ** 40)])],
        code: "E_HEADER_SIZE",
      },
      {
        entryCount: 1,
        entries: [Buffer.concat([text("a"), Buffer.from([8, 0, 0, 0]), u64(2 ** 32)])],
        code: "E_HEADER_SIZE",
      },
    ];
    for (const [index, { code, ...parts }] of counts.entries()) {
      const path = write(`zeros-${index}`, buildGguf(parts));
      truncateSync(path, 2 ** 33);
      await expect(openModel(path), String(index)).rejects.toMatchObject({ code });
    }
  });
});

describe("odd but legal GGUF files", () => {
  it.each(LEGAL_CASES)("$name", async ({ name, bytes, tensors }) => {
    const model = await openModel(write(`legal-${name}`, bytes));
    const read = model.components[0]?.tensors.map((tensor) => [tensor.name, tensor.dtype, tensor.shape]);
    expect(read).toEqual(tensors);
    expect(model.warnings).toEqual([]);
  });
});
