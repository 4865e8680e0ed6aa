import { copyFileSync, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { temporaryFolder, UNET, wave, writeModel } from "./models.js";
import { documentOf, run } from "./program.js";

const folder = temporaryFolder();
const native = join(folder, "unet.parquet");

beforeAll(async () => {
  const ended = await run(["quantize", UNET, "-o", native, "--method", "rtn", "--bit-width", "4"]);
  expect(ended.code).toBe(0);
});

describe("validate", () => {
  it("passes what quantize wrote and shows the worst layers, components and the whole", async () => {
    const { code, stdout, stderr } = await run(["validate", UNET, native]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    for (const word of ["passed", "By component", "over all", "Worst layers", "gain", "largest error"]) {
      expect(stdout).toContain(word);
    }
  });

  it("measures what quantize measured", async () => {
    const inspected = documentOf(await run(["inspect", native, "--json"]));
    const validated = documentOf(await run(["validate", UNET, native, "--json"]));
    const figures = (layers: Record<string, unknown>[]) =>
      layers.map(({ name, metrics }) => [name, (metrics as Record<string, number> | null)?.cosine_similarity ?? null]);
    const measured = new Map(figures(validated.layers) as [string, number | null][]);
    for (const [name, cosine] of figures(inspected.layers) as [string, number | null][]) {
      if (cosine === null) expect(measured.get(name)).toBeNull();
      else expect(measured.get(name)).toBeCloseTo(cosine, 9);
    }
    expect(validated).toMatchObject({ ok: true, passed: true, missing: [], extra: [], misshapen: [] });
    expect(validated.components).toHaveProperty("unet");
  });

  it("ends with 4 and E_QUALITY where a layer is below --min-accuracy, figures and all", async () => {
    const report = join(folder, "report.md");
    const line = ["validate", UNET, native, "--min-accuracy", "0.9999"];
    const [plain, json] = [await run([...line, "--report", report]), await run([...line, "--json"])];
    expect(plain.code).toBe(4);
    expect(plain.stderr).toMatch(/^E_QUALITY: \d+ layers below their thresholds: /);
    expect(plain.stdout).toContain("BELOW");
    expect(readFileSync(report, "utf8")).toContain("E\\_QUALITY");
    const document = documentOf(json);
    expect(json.code).toBe(4);
    expect(document).toMatchObject({ ok: false, passed: false, error: { code: "E_QUALITY" } });
    expect(document.summary?.cosine_similarity).toBeGreaterThan(0.98);
    expect(document.layers.some(({ passed }) => passed === false)).toBe(true);
  });

  it("ends with 4 and E_MISMATCH where layers are missing, extra or misshapen", async () => {
    const original = writeModel(join(folder, "original.safetensors"), [
      { name: "a.weight", shape: [32, 64], values: wave },
      { name: "b.weight", shape: [32, 64], values: wave },
    ]);
    const other = writeModel(join(folder, "other.safetensors"), [
      { name: "a.weight", shape: [64, 32], values: wave },
      { name: "c.weight", shape: [32, 64], values: wave },
    ]);
    const output = join(folder, "other.parquet");
    expect((await run(["quantize", other, "-o", output, "--method", "rtn", "--modality", "image"])).code).toBe(0);
    const ended = await run(["validate", original, output, "--json"]);
    expect(ended.code).toBe(4);
    const document = documentOf(ended);
    expect(document).toMatchObject({ ok: false, error: { code: "E_MISMATCH" } });
    expect(document.missing).toEqual([expect.stringContaining("b.weight")]);
    expect(document.extra).toEqual([expect.stringContaining("c.weight")]);
    expect(document.misshapen).toEqual([expect.stringContaining("a.weight")]);
  });

  it("ends with 3 where the file is damaged", async () => {
    const damaged = join(folder, "damaged.parquet");
    copyFileSync(native, damaged);
    // In the middle of some tensor's codes.
    writeSync(openSync(damaged, "r+"), Buffer.from([0xa5, 0x5a, 0xa5]), 0, 3, 400_000);
    const { code, stderr } = await run(["validate", UNET, damaged]);
    expect(code).toBe(3);
    expect(stderr).toMatch(/^E_(CRC|NATIVE): /);
  });

  it("does not take the environment's min_accuracy for its threshold", async () => {
    const { code } = await run(["validate", UNET, native], { env: { ARROW_QUANT_MIN_ACCURACY: "0.99999" } });
    expect(code).toBe(0);
  });
});

describe("inspect", () => {
  it("lists a model and a native file alike", async () => {
    const [model, quantized] = [
      documentOf(await run(["inspect", UNET, "--json"])),
      documentOf(await run(["inspect", native, "--json"])),
    ];
    const essence = (layers: Record<string, unknown>[]) =>
      layers.map(({ name, shape, dtype }) => ({ name, shape, dtype }));
    expect(essence(quantized.layers)).toEqual(essence(model.layers));
    expect(model).toMatchObject({ ok: true, format: "diffusers-pipeline", summary: { quantized: 0 } });
    expect(quantized).toMatchObject({ format: "Parquet V2 Extended", components: [{ component: "unet" }] });
    const layer = quantized.layers.find(({ quant_type }) => quant_type === "int4");
    expect(layer).toMatchObject({ bits: 4, group_size: 128, method: "rtn", metrics: { gain: expect.any(Number) } });
  });

  it("gives each tensor the bytes it takes in the file", async () => {
    const { layers } = documentOf(await run(["inspect", native, "--json"]));
    const stored = layers.reduce((sum, { bytes }) => sum + (bytes as number), 0);
    const size = readFileSync(native).byteLength;
    expect(stored).toBeLessThan(size);
    // Beside it there are only names, shapes, figures and Parquet's own pages: a few kilobytes per tensor.
    expect(size - stored).toBeLessThan(layers.length * 8192);
  });

  it("says of what it cannot read what it is", async () => {
    const empty = join(folder, "empty");
    mkdirSync(empty);
    const text = join(folder, "words.txt");
    writeFileSync(text, "hello");
    for (const path of [empty, text]) {
      const { code, stderr } = await run(["inspect", path]);
      expect(code).toBe(3);
      expect(stderr).toMatch(/^E_UNKNOWN_FORMAT: /);
    }
  });
});

describe("export", () => {
  it.each(["f32", "f16", "bf16"])("rebuilds every tensor as %s", async (dtype) => {
    const output = join(folder, `${dtype}.safetensors`);
    const ended = await run(["export", native, "-o", output, "--dtype", dtype, "--json"]);
    expect(ended.code).toBe(0);
    expect(documentOf(ended)).toMatchObject({ ok: true, command: "export", output });
    const [exported, quantized] = [
      documentOf(await run(["inspect", output, "--json"])),
      documentOf(await run(["inspect", native, "--json"])),
    ];
    const sorted = (layers: Record<string, unknown>[]) => layers.map(({ name }) => name as string).sort();
    expect(sorted(exported.layers)).toEqual(sorted(quantized.layers));
    expect(new Set(exported.layers.map((layer) => layer.dtype))).toEqual(new Set([dtype.toUpperCase()]));
  });

  it("refuses an output of another kind or of somebody else", async () => {
    const theirs = join(folder, "theirs.safetensors");
    writeFileSync(theirs, "somebody's work");
    expect(await run(["export", native, "-o", theirs, "--dtype", "f16"])).toMatchObject({ code: 2 });
    expect(readFileSync(theirs, "utf8")).toBe("somebody's work");
    const { code, stderr } = await run(["export", native, "-o", join(folder, "x.bin"), "--dtype", "f16"]);
    expect(code).toBe(2);
    expect(stderr).toMatch(/^E_USAGE: .*\.safetensors/);
  });
});
