import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { temporaryFolder, wave, writeModel } from "./models.js";
import { documentOf, run } from "./program.js";

const folder = temporaryFolder();
const small = writeModel(join(folder, "small.safetensors"), [
  { name: "blocks.0.attn.to_q.weight", shape: [96, 96], values: wave },
  { name: "blocks.0.attn.to_q.bias", shape: [96], values: wave },
  { name: "blocks.0.ff.weight", shape: [256, 96], values: (index) => wave(index + 5) * (index % 7) },
]);
const easy = ["--modality", "image", "--method", "rtn", "--candidate-group-sizes", "32,64"];
const env = { XDG_CACHE_HOME: join(folder, "cache") };
const at = (name: string): string => join(folder, name);

describe("plan", () => {
  it("writes a file that quantize --plan follows, edited or not", async () => {
    const planned = await run(["plan", small, ...easy, "--target-size", "22KB", "-o", at("plan.yaml"), "--json"], {
      env,
    });
    expect(planned.code).toBe(0);
    const document = documentOf(planned);
    expect(document).toMatchObject({ ok: true, command: "plan", output: at("plan.yaml"), dry_run: true });
    const [component] = document.components as { mixed_precision: Record<string, unknown> }[];
    expect(component?.mixed_precision).toMatchObject({ origin: "target 0.022 MB", sensitivity: "weight" });

    const followed = await run(["quantize", small, "--plan", at("plan.yaml"), "-o", at("a.parquet"), "--json"], {
      env,
    });
    expect(statSync(at("a.parquet")).size).toBe(component?.mixed_precision.file_bytes);
    const bits = (from: ReturnType<typeof documentOf>): unknown[] => from.layers.map(({ quant_type }) => quant_type);
    expect(bits(documentOf(followed))).toEqual(bits(document));

    const text = readFileSync(at("plan.yaml"), "utf8");
    writeFileSync(at("plan.yaml"), text.replace(/(ff\.weight".*bits:) \w+/, "$1 none"));
    const edited = await run(["quantize", small, "--plan", at("plan.yaml"), "-o", at("b.parquet"), "--json"], { env });
    expect(documentOf(edited).layers.at(-1)).toMatchObject({ name: "blocks.0.ff.weight", quant_type: "none" });
  });

  it("replaces no file without --force", async () => {
    writeFileSync(at("mine.yaml"), "mine");
    const refused = await run(["plan", small, ...easy, "-o", at("mine.yaml")], { env });
    expect(refused.code).toBe(2);
    expect(refused.stderr).toMatch(/E_OUTPUT/);
    expect(readFileSync(at("mine.yaml"), "utf8")).toBe("mine");
  });

  it.each([
    [["--target-bpw", "1"], "E_TARGET"],
    [["--target-size", "12"], "E_USAGE"],
    [["--target-bpw", "3", "--target-size", "1MB"], "E_CONFLICT"],
    [["--plan", at("none.yaml")], "E_PLAN"],
    [["--sensitivity", "output", "--target-bpw", "3"], "E_CONFLICT"],
  ])("quantize %j: %s, and nothing is written", async (flags, code) => {
    const ended = await run(["quantize", small, ...easy.slice(0, 2), ...flags, "-o", at("no.parquet"), "--json"], {
      env,
    });
    expect(documentOf(ended).error?.code).toBe(code);
    expect(existsSync(at("no.parquet"))).toBe(false);
  });

  it("shows what a dry run would choose, and draws it in a report", async () => {
    const args = ["quantize", small, ...easy, "--target-bpw", "4", "--dry-run", "--report", at("r.html")];
    const { code, stdout } = await run(args, { env });
    expect(code).toBe(0);
    expect(stdout).toMatch(/chosen by +target 4 bits per weight/);
    expect(stdout).toMatch(/mixed precision: \d bits, group \d+ \(weight error/);
    expect(readFileSync(at("r.html"), "utf8")).toMatch(/^<!doctype html>[\s\S]*<svg [\s\S]*<\/html>\n$/);
  });
});
