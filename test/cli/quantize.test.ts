import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { DIT, temporaryFolder, UNET, wave, writeModel } from "./models.js";
import { documentOf, run } from "./program.js";

const folder = temporaryFolder();
const small = writeModel(join(folder, "small.safetensors"), [
  { name: "blocks.0.attn.to_q.weight", shape: [48, 96], values: wave },
  { name: "blocks.0.attn.to_q.bias", shape: [48], values: wave },
  { name: "blocks.0.ff.weight", shape: [32, 48], values: (index) => wave(index + 5) },
]);
/** Settings that make the small model's quantization certain to succeed. */
const easy = ["--modality", "image", "--method", "rtn", "--group-size", "32"];

describe("quantize", () => {
  it("prints a summary on stdout and nothing on stderr, and leaves only the output", async () => {
    const place = temporaryFolder();
    const output = join(place, "unet.parquet");
    const { code, stdout, stderr } = await run([
      "quantize",
      UNET,
      "-o",
      output,
      "--method",
      "rtn",
      "--disable-spatial",
    ]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    for (const word of ["bits per weight", "cosine similarity", "Worst layers", "unet (unet, image)"]) {
      expect(stdout).toContain(word);
    }
    expect(readdirSync(place)).toEqual(["unet.parquet"]);
  });

  it("with --json prints one document with the documented keys, of real figures", async () => {
    const output = join(folder, "small.parquet");
    const ended = await run(["quantize", small, "-o", output, ...easy, "--json"]);
    expect(ended.code).toBe(0);
    const document = documentOf(ended);
    expect(document).toMatchObject({ ok: true, command: "quantize", output, error: null, dry_run: false });
    expect(document.summary).toMatchObject({ tensors: 3, quantized: 2, kept: 1, parameters: 48 * 96 + 48 + 32 * 48 });
    expect(document.summary?.bytes_out).toBe(readFileSync(output).byteLength);
    expect(document.summary?.cosine_similarity).toBeGreaterThan(0.99);
    const layer = document.layers.find(({ name }) => name === "blocks.0.ff.weight");
    expect(layer).toMatchObject({ shape: [32, 48], dtype: "F32", quant_type: "int4", group_size: 32, method: "rtn" });
    expect(layer?.metrics).toMatchObject({ cosine_similarity: expect.any(Number), sqnr_db: expect.any(Number) });
    const bias = document.layers.find(({ name }) => name === "blocks.0.attn.to_q.bias");
    expect(bias).toMatchObject({ quant_type: "none", group_size: null, method: null, metrics: null });
  });

  it("reports a fallback with every width that was tried", async () => {
    const output = join(folder, "strict.parquet");
    const ended = await run(["quantize", small, "-o", output, ...easy, "--min-accuracy", "0.9999", "--json"]);
    expect(ended.code).toBe(0);
    const raised = documentOf(ended).layers.find(({ name }) => name === "blocks.0.ff.weight");
    expect(raised).toMatchObject({ quant_type: "int8", fallback_from: [{ quant_type: "int4" }] });
  });

  it("writes several components as a folder", async () => {
    const place = temporaryFolder();
    const output = join(place, "out");
    const pipeline = join(place, "pipeline");
    for (const name of ["transformer", "text_encoder"]) {
      mkdirSync(join(pipeline, name), { recursive: true });
      writeModel(join(pipeline, name, "model.safetensors"), [{ name: "layer.weight", shape: [32, 64], values: wave }]);
    }
    writeFileSync(
      join(pipeline, "model_index.json"),
      JSON.stringify({
        _class_name: "FluxPipeline",
        transformer: ["diffusers", "FluxTransformer2DModel"],
        text_encoder: ["transformers", "CLIPTextModel"],
      }),
    );
    const ended = await run([
      "quantize",
      pipeline,
      "-o",
      output,
      "--components",
      "transformer,text_encoder",
      ...easy,
      "--json",
    ]);
    expect(ended).toMatchObject({ code: 0 });
    expect(readdirSync(output).sort()).toEqual(["text_encoder.parquet", "transformer.parquet"]);
    expect(new Set(documentOf(ended).layers.map(({ component }) => component))).toEqual(
      new Set(["transformer", "text_encoder"]),
    );
    const inspected = await run(["inspect", output, "--json"]);
    expect(
      documentOf(inspected)
        .layers.map(({ component }) => component)
        .sort(),
    ).toEqual(["text_encoder", "transformer"]);
  });
});

describe("--dry-run", () => {
  it("shows decisions, layers and sizes and writes nothing", async () => {
    const place = temporaryFolder();
    const { code, stdout, stderr } = await run(["quantize", DIT, "-o", "never.parquet", "--dry-run"], { cwd: place });
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    for (const word of ["Decisions", "profiles/local.yaml", "Not applied", "needs calibration", "bits per weight"]) {
      expect(stdout).toContain(word);
    }
    expect(readdirSync(place)).toEqual([]);
  });

  it("plans what quantize then does", async () => {
    const output = join(folder, "planned.parquet");
    const flags = ["quantize", UNET, "-o", output, "--method", "rtn", "--min-accuracy", "0", "--json"];
    const planned = documentOf(await run([...flags, "--dry-run"]));
    expect(existsSync(output)).toBe(false);
    const done = documentOf(await run(flags));
    const essence = (layers: Record<string, unknown>[]) =>
      layers.map(({ name, quant_type, group_size, method, reason, bytes_in, bytes_out }) => [
        name,
        quant_type,
        group_size,
        method,
        reason,
        bytes_in,
        bytes_out,
      ]);
    expect(essence(done.layers)).toEqual(essence(planned.layers));
    expect(done.summary?.bits_per_weight).toBeCloseTo(planned.summary?.bits_per_weight as number, 10);
    expect(planned).toMatchObject({ ok: true, dry_run: true, output: null, summary: { cosine_similarity: null } });
  });
});

describe("precedence", () => {
  const config = join(folder, "quant.yaml");
  writeFileSync(config, "bit_width: 8\ngroup_size: 16\n");
  const widthOf = async (args: string[], env: Record<string, string> = {}): Promise<unknown> => {
    const ended = await run(["quantize", small, "--modality", "image", "--dry-run", "--json", ...args], { env });
    const layer = documentOf(ended).layers.find(({ quant_type }) => quant_type !== "none");
    return [layer?.quant_type, layer?.group_size];
  };

  it("is flag, environment, file, profile, default", async () => {
    const env = { ARROW_QUANT_BIT_WIDTH: "4" };
    expect(await widthOf([])).toEqual(["int4", 128]);
    expect(await widthOf(["--profile", "cloud"])).toEqual(["int8", 64]);
    expect(await widthOf(["--profile", "edge", "--config", config])).toEqual(["int8", 16]);
    expect(await widthOf(["--profile", "edge", "--config", config], env)).toEqual(["int4", 16]);
    expect(await widthOf(["--config", config, "--bit-width", "2"], env)).toEqual(["int2", 16]);
  });
});

describe("--report", () => {
  it("writes the document of --json, and Markdown", async () => {
    const json = join(folder, "report.json");
    const markdown = join(folder, "report.md");
    const output = join(folder, "reported.parquet");
    const ended = await run(["quantize", small, "-o", output, ...easy, "--json", "--report", json]);
    expect(ended.code).toBe(0);
    expect(JSON.parse(readFileSync(json, "utf8"))).toEqual(documentOf(ended));
    expect(await run(["quantize", small, "-o", output, ...easy, "--report", markdown])).toMatchObject({ code: 0 });
    const text = readFileSync(markdown, "utf8");
    expect(text).toMatch(/^# Quantization of /);
    for (const { name } of documentOf(ended).layers) expect(text).toContain((name as string).replaceAll("_", "\\_"));
  });

  it("tells of a failure too, so that no old report stands for a new run", async () => {
    const json = join(folder, "failure.json");
    writeFileSync(json, '{"ok": true}');
    const { code } = await run(["quantize", "/nowhere", "-o", join(folder, "x.parquet"), "--report", json]);
    expect(code).toBe(3);
    expect(JSON.parse(readFileSync(json, "utf8"))).toMatchObject({ ok: false, error: { code: "E_NOT_FOUND" } });
  });

  it("that cannot be written fails the run, with one document all the same", async () => {
    const output = join(folder, "unreported.parquet");
    const ended = await run(["quantize", small, "-o", output, ...easy, "--json", "--report", "/nowhere/r.json"]);
    expect(ended.code).toBe(1);
    expect(documentOf(ended)).toMatchObject({ ok: false, error: { code: "E_WRITE" } });
  });
});

const emptyFolder = temporaryFolder();

/** One command line per class of failure. */
const FAILURES: [string, number, string, () => string[]][] = [
  ["no such model", 3, "E_NOT_FOUND", () => [join(folder, "nothing")]],
  ["a folder without weights", 3, "E_UNKNOWN_FORMAT", () => [emptyFolder]],
  ["a truncated file", 3, "E_TRUNCATED", () => [truncated()]],
  ["a NaN", 3, "E_NONFINITE", () => [nonFinite()]],
  ["nothing to quantize", 3, "E_NOTHING", () => [onlyVectors()]],
  ["no such component", 3, "E_COMPONENT", () => [UNET, "--components", "vocoder"]],
  [
    "a layer below the threshold with --fail-fast",
    4,
    "E_QUALITY",
    () => [small, "-b", "2", "--min-accuracy", "0.999", "--fail-fast"],
  ],
  ["a pattern that matches nothing", 2, "E_PATTERN", () => [small, "--layer-bits", "nowhere=8"]],
  ["a memory cap that is too small", 2, "E_MEMORY", () => [small, "--memory", "2MiB"]],
];

function truncated(): string {
  const path = join(folder, "truncated.safetensors");
  writeFileSync(path, readFileSync(small).subarray(0, -100));
  return path;
}

function nonFinite(): string {
  const values = (index: number): number => (index === 77 ? Number.NaN : wave(index));
  return writeModel(join(folder, "nan.safetensors"), [{ name: "blocks.0.attn.to_q.weight", shape: [16, 32], values }]);
}

function onlyVectors(): string {
  return writeModel(join(folder, "vectors.safetensors"), [{ name: "norm.bias", shape: [32], values: wave }]);
}

describe("a failure", () => {
  it.each(FAILURES)("(%s) ends with exit code %i and %s, without output", async (_, exitCode, code, args) => {
    const place = temporaryFolder();
    const output = join(place, "out.parquet");
    const line = ["quantize", ...args(), "-o", output, "--method", "rtn"];
    const all = line.includes("--modality") || line.includes(UNET) ? line : [...line, "--modality", "image"];
    const [plain, json] = [await run(all), await run([...all, "--json"])];
    expect(plain).toMatchObject({ code: exitCode, stdout: "" });
    expect(plain.stderr).toMatch(new RegExp(`^${code}: `));
    expect(plain.stderr).not.toMatch(/\n\s+at /);
    expect(json.code).toBe(exitCode);
    expect(documentOf(json)).toMatchObject({ ok: false, command: "quantize", error: { code } });
    expect(readdirSync(place)).toEqual([]);
  });

  it("names layer and place of a NaN", async () => {
    const { stderr } = await run(["quantize", nonFinite(), "-o", join(folder, "n.parquet"), ...easy]);
    expect(stderr).toContain("blocks.0.attn.to_q.weight");
    expect(stderr).toContain("row 2, column 13");
  });

  it("asks for the modality where nothing tells it", async () => {
    const { code, stderr } = await run(["quantize", small, "-o", join(folder, "m.parquet")]);
    expect(code).toBe(2);
    expect(stderr).toMatch(/^E_MODALITY: (?:.|\n)*--modality/);
  });

  it("shows the stack with --verbose only", async () => {
    const { stderr } = await run(["quantize", "/nowhere", "-o", join(folder, "x.parquet"), "--verbose"]);
    expect(stderr).toMatch(/\n\s+at /);
  });

  it("refuses an output that is not ours, and replaces it with --force", async () => {
    const output = join(folder, "theirs.parquet");
    writeFileSync(output, "somebody's work");
    const refused = await run(["quantize", small, "-o", output, ...easy]);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toMatch(/^E_OUTPUT: (?:.|\n)*--force/);
    expect(readFileSync(output, "utf8")).toBe("somebody's work");
    expect(await run(["quantize", small, "-o", output, ...easy, "--force"])).toMatchObject({ code: 0 });
    // Now it is ours, and needs no --force.
    expect(await run(["quantize", small, "-o", output, ...easy])).toMatchObject({ code: 0 });
  });
});
