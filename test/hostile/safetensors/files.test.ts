import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { ERRORS } from "../../../dist/errors.js";
import { openModel } from "../../../dist/formats/open.js";
import { buildFile } from "./build.ts";
import { HOSTILE_CASES, LEGAL_CASES } from "./cases.ts";

/** The table as files, for other readers and for eyes; `WRITE_HOSTILE_FILES=1` writes them anew. */
const FILES = fileURLToPath(new URL("files/", import.meta.url));
const all = [
  ...HOSTILE_CASES.map((one) => ({ ...one, folder: "broken" })),
  ...LEGAL_CASES.map((one) => ({ ...one, folder: "legal" })),
];

if (process.env["WRITE_HOSTILE_FILES"] === "1") {
  rmSync(FILES, { recursive: true, force: true });
  for (const { folder, name, bytes } of all) {
    mkdirSync(join(FILES, folder), { recursive: true });
    writeFileSync(join(FILES, folder, `${name}.safetensors`), bytes);
  }
}

const scratch = mkdtempSync(join(tmpdir(), "arrowquant-hostile-"));
afterAll(() => rmSync(scratch, { recursive: true }));

describe("broken safetensors files", () => {
  it.each(HOSTILE_CASES)("$name: $code", async ({ name, code, says }) => {
    const path = join(FILES, "broken", `${name}.safetensors`);
    await expect(openModel(path)).rejects.toMatchObject({
      name: "ArrowQuantError",
      code,
      message: expect.stringMatching(says),
    });
    expect(ERRORS).toHaveProperty([code, "exitCode"], 3);
  });

  it("a header of more keys than the limit ends in an error, not out of memory", async () => {
    const path = join(scratch, "many.safetensors");
    const keys = Array.from({ length: 2 ** 20 + 1 }, (_, index) => `"${index}":""`);
    writeFileSync(path, buildFile(`{"__metadata__":{${keys.join()}}}`));
    await expect(openModel(path)).rejects.toMatchObject({
      code: "E_LIMIT",
      message: expect.stringContaining("1048576"),
    });
  });
});

describe("odd but legal safetensors files", () => {
  it.each(LEGAL_CASES)("$name", async ({ name, tensors }) => {
    const model = await openModel(join(FILES, "legal", `${name}.safetensors`));
    const read = model.components[0]?.tensors.map((tensor) => [tensor.name, tensor.dtype, tensor.shape]);
    expect(read).toEqual(tensors);
  });
});

describe("the files on disk", () => {
  it("are those of the table", () => {
    for (const folder of ["broken", "legal"]) {
      const wanted = all.filter((one) => one.folder === folder).map(({ name }) => `${name}.safetensors`);
      expect(readdirSync(join(FILES, folder)).sort()).toEqual(wanted.sort());
    }
    for (const { folder, name, bytes } of all) {
      expect(readFileSync(join(FILES, folder, `${name}.safetensors`)).equals(bytes), name).toBe(true);
      expect(bytes.length).toBeLessThan(4096);
    }
  });
});
