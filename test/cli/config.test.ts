import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { temporaryFolder } from "./models.js";
import { documentOf, run } from "./program.js";

interface Setting {
  readonly key: string;
  readonly value: unknown;
  readonly source: string;
  readonly origin: string;
}

const folder = temporaryFolder();

async function show(args: string[], env: Record<string, string> = {}): Promise<Map<string, Setting>> {
  const ended = await run(["config", "show", "--json", ...args], { env });
  expect(ended).toMatchObject({ code: 0, stderr: "" });
  return new Map((documentOf(ended).settings as Setting[]).map((setting) => [setting.key, setting]));
}

describe("config show", () => {
  it("says where every value comes from", async () => {
    const file = join(folder, "some.yaml");
    writeFileSync(file, "# mine\ngroup_size: 32\nmin_accuracy: 0.5\n");
    const settings = await show(["--config", file, "--bit-width", "2"], { ARROW_QUANT_MIN_ACCURACY: "0.25" });
    expect(settings.get("bit_width")).toMatchObject({ value: 2, source: "flag", origin: "flag --bit-width" });
    expect(settings.get("min_accuracy")).toMatchObject({ value: 0.25, source: "environment" });
    expect(settings.get("min_accuracy")?.origin).toContain("ARROW_QUANT_MIN_ACCURACY");
    expect(settings.get("group_size")).toMatchObject({ value: 32, source: "file", origin: `file ${file}:2` });
    expect(settings.get("num_time_groups")).toMatchObject({ source: "profile" });
    expect(settings.get("symmetric")).toMatchObject({ value: false, source: "default" });
  });

  it("is a table for people", async () => {
    const { code, stdout } = await run(["config", "show", "--profile", "edge"]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/bit_width +2 +profile.* profiles\/edge\.yaml|bit_width +2 +profiles\/edge\.yaml/);
  });

  it("takes every setting flag that quantize takes", async () => {
    const [quantize, config] = await Promise.all([run(["quantize", "--help"]), run(["config", "show", "--help"])]);
    const flagsOf = (help: string) => new Set(help.match(/--(?:\[no-\])?[a-z-]+/g));
    const ofTheRun = ["--output", "--dry-run", "--report", "--plan", "--force", "--resume", "--validate", "--run"];
    const ofTheGraph = ["--sample-input", "--time-input", "--class-input", "--encoder-input", "--prediction-output"];
    const ofTheFormat = ["--format", "--dtype", "--packed", "--activations"];
    const ofGguf = ["--type", "--tensor-type", "--comfy", "--split-max-size"];
    const others = [...ofTheRun, ...ofTheGraph, ...ofTheFormat, ...ofGguf];
    const missing = [...flagsOf(quantize.stdout)].filter(
      (flag) => !others.includes(flag) && !flagsOf(config.stdout).has(flag),
    );
    expect(missing).toEqual([]);
  });
});

describe("config init", () => {
  it.each(["edge", "local", "cloud"])("of profile %s, read back, changes nothing", async (profile) => {
    const file = join(folder, `${profile}.yaml`);
    const written = await run(["config", "init", "--profile", profile, "-o", file, "--json"]);
    expect(documentOf(written)).toMatchObject({ ok: true, output: file });
    const [direct, read] = await Promise.all([show(["--profile", profile]), show(["--config", file])]);
    const values = (settings: Map<string, Setting>) => [...settings.values()].map(({ key, value }) => [key, value]);
    expect(values(read)).toEqual(values(direct));
    expect(read.get("profile")?.source).toBe("file");
  });

  it("prints to stdout without -o, and the same text", async () => {
    const file = join(folder, "same.yaml");
    await run(["config", "init", "-o", file]);
    expect(await run(["config", "init"])).toMatchObject({ code: 0, stdout: readFileSync(file, "utf8") });
  });

  it("does not overwrite what may be edited, unless forced", async () => {
    const file = join(folder, "edited.yaml");
    writeFileSync(file, "bit_width: 8\n");
    const refused = await run(["config", "init", "-o", file]);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toMatch(/^E_OUTPUT: /);
    expect(readFileSync(file, "utf8")).toBe("bit_width: 8\n");
    expect(await run(["config", "init", "-o", file, "--force"])).toMatchObject({ code: 0 });
    expect(readFileSync(file, "utf8")).toContain("#bit_width");
  });
});

describe("config schema", () => {
  it("is a JSON Schema that knows every key config show prints", async () => {
    const { code, stdout } = await run(["config", "schema"]);
    expect(code).toBe(0);
    const schema = JSON.parse(stdout) as { $schema: string; properties: Record<string, unknown> };
    expect(schema.$schema).toContain("json-schema.org");
    // Keys with dots may be written as mappings too, by their first part.
    expect(Object.keys(schema.properties)).toEqual([...(await show([])).keys(), "thermodynamic", "evolution"]);
    const wrapped = documentOf(await run(["config", "schema", "--json"]));
    expect(wrapped.schema).toEqual(schema);
  });
});
