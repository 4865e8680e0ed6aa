/** Exports as a user runs them; test/cli/validate.test.ts has the plain file, test/quantize what is in the folders. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { DIT, temporaryFolder, UNET } from "./models.js";
import { documentOf, run } from "./program.js";

const folder = temporaryFolder();
const native = join(folder, "dit.parquet");

beforeAll(async () => {
  const ended = await run(["quantize", DIT, "-o", native, "--method", "rtn", "--zero-point-bits", "4"]);
  expect(ended.code).toBe(0);
});

describe("export --like", () => {
  it("writes the pipeline again and lists its files", async () => {
    const output = join(folder, "dit-bf16");
    const ended = await run(["export", native, "-o", output, "--like", DIT, "--dtype", "bf16", "--json"]);
    expect(ended).toMatchObject({ code: 0, stderr: "" });
    expect(documentOf(ended)).toMatchObject({
      ...{ ok: true, command: "export", output, left_out: [], packed: null, warnings: [] },
      summary: { tensors: 82, dtype: "BF16" },
      files: expect.arrayContaining([
        "model_index.json",
        "transformer/diffusion_pytorch_model-00002-of-00003.safetensors",
      ]),
    });
    const [inspected, original] = [
      documentOf(await run(["inspect", output, "--json"])),
      documentOf(await run(["inspect", DIT, "--json"])),
    ];
    const essence = (layers: Record<string, unknown>[]) => layers.map(({ name, shape, dtype }) => [name, shape, dtype]);
    expect(essence(inspected.layers).sort()).toEqual(essence(original.layers).sort());
  });

  it("does not replace a folder that stands there, nor one model by another's tensors", async () => {
    const output = join(folder, "dit-bf16");
    const line = ["export", native, "-o", output, "--dtype", "bf16"];
    const again = await run([...line, "--like", DIT]);
    expect(again.code).toBe(2);
    expect(again.stderr).toMatch(/^E_OUTPUT: .* is not empty(.|\n)*--force/);
    expect((await run([...line, "--like", DIT, "--force", "--quiet"])).code).toBe(0);
    const other = await run(["export", native, "-o", join(folder, "x"), "--dtype", "bf16", "--like", UNET]);
    expect(other.code).toBe(3);
    expect(other.stderr).toMatch(/^E_COMPONENT: /);
    expect(readdirSync(folder).sort()).toEqual(["dit-bf16", "dit.parquet"]);
  });
});

describe("export --packed", () => {
  it("says what it packed, how exactly, and what not", async () => {
    const output = join(folder, "dit-w4");
    const { code, stdout } = await run(["export", native, "-o", output, "--packed", "--dtype", "f32"]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/packed +28 layers, scales as F32, exact/);
    const config = JSON.parse(readFileSync(join(output, "config.json"), "utf8"));
    expect(config).toMatchObject({
      _class_name: "DiTTransformer2DModel",
      quantization_config: { ignore: expect.any(Array) },
    });
    expect(readdirSync(output).sort()).toEqual(["config.json", "diffusion_pytorch_model.safetensors"]);
  });

  it("names the layers that it cannot hold and writes nothing", async () => {
    const fractional = join(folder, "fractional.parquet");
    expect((await run(["quantize", UNET, "-o", fractional, "--method", "rtn"])).code).toBe(0);
    const output = join(folder, "unet-w4");
    const ended = await run(["export", fractional, "-o", output, "--packed", "--dtype", "f32", "--json"]);
    expect(ended.code).toBe(2);
    expect(documentOf(ended).error).toMatchObject({
      code: "E_CONFLICT",
      hint: expect.stringContaining("--zero-point-bits 4"),
      details: {
        layers: expect.arrayContaining([expect.objectContaining({ name: expect.stringMatching(/attentions/) })]),
      },
    });
    expect(existsSync(output)).toBe(false);
  });
});
