import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { COMMANDS } from "../../dist/cli/commands.js";
import { documentOf, run } from "./program.js";

const packageVersion = (
  JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
    version: string;
  }
).version;

/** Flags that issue 3 and its brief name, by command. */
const NAMED_FLAGS: Record<string, string[]> = {
  quantize: [
    "-o, --output",
    "-c, --config",
    "-p, --profile",
    "-b, --bit-width",
    "-g, --group-size",
    "--method",
    "--[no-]symmetric",
    "--scale-bits",
    "--zero-point-bits",
    "--super-group-size",
    "--weighting",
    "--[no-]preserve-gain",
    "--modality",
    "--num-time-groups",
    "--enable-time-aware",
    "--disable-time-aware",
    "--enable-spatial",
    "--disable-spatial",
    "--min-accuracy",
    "--calibration",
    "--graph",
    "--calibration-samples",
    "--calibration-steps",
    "--seed",
    "--gptq-damp",
    "--gptq-order",
    "--spatial-alpha",
    "--activation-bits",
    "--activation-mode",
    "--activation-range",
    "--activation-percentile",
    "--time-groups",
    "--smoothness-threshold",
    "--boundary-window",
    "--boundary-interpolation",
    "--transition-weight",
    "--fail-fast",
    "--on-nonfinite",
    "--components",
    "--variant",
    "--include",
    "--exclude",
    "--layer-bits",
    "--threads",
    "--memory",
    "--dry-run",
    "--report",
    "--json",
    "--verbose",
    "--quiet",
    "--force",
  ],
  validate: ["--min-accuracy", "--json", "--report", "--variant", "--threads", "--memory"],
  batch: [
    "--model",
    "--output-dir",
    "--continue-on-error",
    "--fail-fast",
    "--[no-]resume",
    "--force",
    "--jobs",
    "--report",
    "--json",
    "-p, --profile",
    "-b, --bit-width",
  ],
  calibrate: ["-o, --output", "--calibration=<source>", "--[no-]hessians", "--fresh", "--time-input", "--memory"],
  inspect: ["--json", "--variant"],
  export: [
    ...["-o, --output", "--dtype=<f32|f16|bf16>", "--like", "--variant", "--packed", "--max-shard-size", "--force"],
  ],
  sensitivity: ["-o, --output", "--kinds", "--report", "--candidate-bits"],
  plan: ["-o, --output", "--report", "--force", "--target-bpw", "--target-size", "--sensitivity", "--search"],
  "config show": ["-c, --config", "-b, --bit-width", "--json"],
  "config init": ["-o, --output", "--force"],
  "config schema": ["--json"],
};

describe("help", () => {
  it("of the program names every command and the exit codes", async () => {
    for (const args of [[], ["--help"], ["-h"], ["help"]]) {
      const { code, stdout, stderr } = await run(args);
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      for (const { name } of COMMANDS) expect(stdout).toContain(`  ${name} `);
      for (const word of ["USAGE", "COMMANDS", "EXIT CODES", "130, 143"]) expect(stdout).toContain(word);
    }
  });

  it.each(Object.keys(NAMED_FLAGS))("of %s has usage, examples and every flag", async (name) => {
    const [flagged, asked] = await Promise.all([
      run([...name.split(" "), "--help"]),
      run(["help", ...name.split(" ")]),
    ]);
    expect(flagged).toEqual(asked);
    const { code, stdout, stderr } = flagged;
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toContain(`USAGE\n  $ arrowquant ${name}`);
    expect(stdout).toMatch(new RegExp(`EXAMPLES\\n(?:.|\\n)*\\$ arrowquant ${name}`));
    for (const flag of NAMED_FLAGS[name] as string[]) expect(stdout).toContain(flag);
    for (const line of stdout.split("\n").filter((text) => !text.includes("$ "))) {
      expect(line.length).toBeLessThanOrEqual(100);
    }
  });

  it("covers every command there is", () => {
    expect(COMMANDS.map(({ name }) => name).sort()).toEqual(Object.keys(NAMED_FLAGS).sort());
  });

  it("of a topic names its commands", async () => {
    for (const args of [["config"], ["config", "--help"], ["help", "config"]]) {
      const { code, stdout } = await run(args);
      expect(code).toBe(0);
      for (const word of ["config show", "config init", "config schema"]) expect(stdout).toContain(word);
    }
  });

  it("does not hide behind a flag's value or after --", async () => {
    const { code } = await run(["inspect", "--", "--help"]);
    expect(code).toBe(3);
  });
});

describe("version", () => {
  it("is that of package.json", async () => {
    expect(await run(["--version"])).toMatchObject({ code: 0, stdout: `arrowquant ${packageVersion}\n`, stderr: "" });
  });
});

/** Command lines that are wrong, with the code and a word that must be said. */
const WRONG: [string[], string, RegExp][] = [
  [["quantise"], "E_USAGE", /did you mean quantize\?/],
  [["config", "shwo"], "E_USAGE", /did you mean config show\?/],
  [["frobnicate"], "E_USAGE", /arrowquant --help/],
  [["--json-lines"], "E_USAGE", /--json-lines/],
  [["quantize"], "E_USAGE", /MODEL/],
  [["quantize", "m"], "E_USAGE", /--output/],
  [["quantize", "m", "-o", "x.parquet", "--bit-widht", "4"], "E_USAGE", /did you mean --bit-width\?/],
  [["quantize", "m", "n", "-o", "x.parquet"], "E_USAGE", /too many arguments/],
  [["quantize", "m", "-o"], "E_USAGE", /--output/],
  [["quantize", "m", "-o", "--dry-run"], "E_USAGE", /--output.*value/],
  [["quantize", "-", "-o", "x.parquet"], "E_USAGE", /MODEL cannot be "-"/],
  [["quantize", "m", "-o", "-"], "E_USAGE", /--output cannot be "-"/],
  [["quantize", "m", "-o", "x.parquet", "--report", "r.pdf"], "E_USAGE", /\.json, \.md, \.html/],
  [["quantize", "m", "-o", "x.parquet", "--layer-bits", "attn"], "E_USAGE", /PATTERN=BITS/],
  [["quantize", "m", "-o", "x.parquet", "--layer-bits", "a=2", "--layer-bits", "a=4"], "E_CONFLICT", /twice/],
  [
    ["quantize", "m", "-o", "x.parquet", "--enable-spatial", "--disable-spatial"],
    "E_CONFLICT",
    /--enable-spatial and --disable-spatial/,
  ],
  [["quantize", "m", "-o", "x.parquet", "--quiet", "--verbose"], "E_CONFLICT", /--quiet/],
  [["quantize", "m", "-o", "x.parquet", "--bit-width", "7"], "E_CONFIG", /--bit-width.*2, 3, 4, 5, 6 or 8/],
  [["quantize", "m", "-o", "x.parquet", "--profile", "lokal"], "E_CONFIG", /edge, local or cloud/],
  [["quantize", "m", "-o", "x.parquet", "--memory", "lots"], "E_CONFIG", /--memory/],
  [["quantize", "m", "-o", "x.parquet", "--config", "/nowhere.yaml"], "E_CONFIG", /no such file/],
  [["export", "x.parquet", "-o", "y.safetensors"], "E_USAGE", /--dtype/],
  [["export", "x.parquet", "-o", "y.safetensors", "--dtype", "f64"], "E_USAGE", /f32, f16, bf16/],
  [
    ["export", "x.parquet", "-o", "y", "--dtype", "f32", "--max-shard-size", "some"],
    "E_USAGE",
    /--max-shard-size some/,
  ],
  [
    ["export", "x.parquet", "-o", "y", "--dtype", "f32", "--max-shard-size", "5GB", "--like", "m"],
    "E_CONFLICT",
    /--like and --max-shard-size/,
  ],
  [["export", "x.parquet", "-o", "y.safetensors", "--dtype", "f32", "--packed"], "E_CONFLICT", /--packed/],
  [["export", "x.parquet", "-o", "y.pt", "--dtype", "f32"], "E_USAGE", /\.safetensors/],
  [["batch"], "E_USAGE", /a job file/],
  [["batch", "--model", "m"], "E_USAGE", /--output-dir/],
  [["batch", "jobs.yaml", "--model", "m"], "E_CONFLICT", /--model/],
  [["batch", "jobs.yaml", "--jobs", "0"], "E_USAGE", /1 to 16/],
  [["batch", "jobs.yaml", "--fail-fast", "--continue-on-error"], "E_CONFLICT", /--fail-fast/],
  [["batch", "/nowhere/jobs.yaml"], "E_CONFIG", /no such file/],
  [["validate", "m"], "E_USAGE", /QUANTIZED/],
];

describe("a wrong command line", () => {
  it.each(WRONG)("%j: %s, exit 2, a hint and no stack; with --json one document", async (args, code, said) => {
    const [plain, json] = await Promise.all([run(args), run([...args, "--json"])]);
    expect(plain).toMatchObject({ code: 2, stdout: "" });
    expect(plain.stderr).toMatch(new RegExp(`^${code}: `));
    expect(plain.stderr).toMatch(said);
    if (!args.includes("--verbose")) expect(plain.stderr).not.toMatch(/\n\s+at /);

    expect(json.code).toBe(2);
    const document = documentOf(json);
    expect(document).toMatchObject({ ok: false, version: packageVersion, output: null, summary: null, layers: [] });
    expect(document.warnings).toEqual([]);
    expect(document.error?.code).toBe(code);
    expect(document.error?.message).not.toBe("");
  });
});
