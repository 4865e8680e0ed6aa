import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadConfigFile } from "../../dist/config/file.js";
import { MAX_CONFIG_BYTES } from "../../dist/config/yaml.js";
import type { ArrowQuantError } from "../../dist/errors.js";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "arrowquant-config-"));
});
afterAll(() => rm(folder, { recursive: true }));

async function write(name: string, data: string | Uint8Array): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, data);
  return path;
}

async function refusal(path: string): Promise<ArrowQuantError> {
  return loadConfigFile(path).then(
    () => expect.unreachable(),
    (error: ArrowQuantError) => error,
  );
}

describe("loadConfigFile", () => {
  it("gives the text and the path as written, without a byte order mark", async () => {
    const path = await write("quant.yaml", "\uFEFFmodality: image # é\n");
    expect(await loadConfigFile(path)).toEqual({ path, text: "modality: image # é\n" });
  });

  it("takes a file of exactly the limit and refuses one byte more", async () => {
    const fits = await write("fits.yaml", "#".repeat(MAX_CONFIG_BYTES));
    expect((await loadConfigFile(fits)).text).toHaveLength(MAX_CONFIG_BYTES);
    const error = await refusal(await write("large.yaml", "#".repeat(MAX_CONFIG_BYTES + 1)));
    expect(error.code).toBe("E_CONFIG");
    expect(error.message).toContain(`${MAX_CONFIG_BYTES}`);
  });

  it("refuses what is no text, no file or not there", async () => {
    const binary = await refusal(await write("binary.yaml", Uint8Array.of(0x61, 0xff, 0xfe)));
    expect(binary).toMatchObject({ code: "E_CONFIG", message: expect.stringContaining("not UTF-8") });
    expect(await refusal(folder)).toMatchObject({
      code: "E_CONFIG",
      message: `${folder}: a folder, not a file`,
    });
    const missing = join(folder, "missing.yaml");
    expect(await refusal(missing)).toMatchObject({ code: "E_CONFIG", message: `${missing}: no such file` });
  });
});
