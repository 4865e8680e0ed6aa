import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { listJobs, readJobs } from "../../dist/batch/jobs.js";
import type { ArrowQuantError } from "../../dist/errors.js";
import { temporaryFolder } from "../cli/models.js";

const folder = temporaryFolder();
let count = 0;

function jobFile(text: string, ending = "yaml"): string {
  const path = join(folder, `jobs-${++count}.${ending}`);
  writeFileSync(path, text);
  return path;
}

/** What is wrong with a job file, line by line. */
async function problemsOf(text: string, shared = {}): Promise<string[]> {
  const error = (await readJobs(jobFile(text), shared).catch((thrown: unknown) => thrown)) as ArrowQuantError;
  expect(error.code).toBe("E_JOB_FILE");
  return (error.details.problems as { message: string }[]).map(({ message }) => message);
}

const two = (first: string, second: string): string =>
  `jobs:\n  - {model_path: a, output_path: a.parquet${first}}\n  - {model_path: b, output_path: b.parquet${second}}\n`;

describe("a job file", () => {
  it("gives jobs with their own settings over the defaults, and flags over both", async () => {
    const path = jobFile(`defaults: {method: rtn, bit_width: 8}\n${two("", ", bit_width: 2, profile: edge")}`);
    const jobs = await readJobs(path, {});
    expect(jobs.map(({ modelPath, outputPath }) => [modelPath, outputPath])).toEqual([
      ["a", "a.parquet"],
      ["b", "b.parquet"],
    ]);
    expect(jobs.map(({ config }) => [config.values.bit_width, config.values.group_size])).toEqual([
      [8, 128],
      [2, 256],
    ]);
    expect(jobs[1]?.config.origins.bit_width.source).toBe("object");
    const flagged = await readJobs(path, { flags: { bit_width: "4" }, environment: { ARROW_QUANT_GROUP_SIZE: "16" } });
    expect(flagged.map(({ config }) => [config.values.bit_width, config.values.group_size])).toEqual([
      [4, 16],
      [4, 16],
    ]);
  });

  it("is JSON as well, tabs included", async () => {
    const text = JSON.stringify({ jobs: [{ model_path: "m", output_path: "o.parquet", bit_width: 2 }] }, null, "\t");
    const [job] = await readJobs(jobFile(text, "json"), {});
    expect(job?.config.values.bit_width).toBe(2);
  });

  it("reports all faults at once, each with line, job, key and what is allowed", async () => {
    const problems = await problemsOf(
      [
        "jobs:",
        "  - {model_path: a, output_path: x.parquet, bit_width: 7}",
        "  - model_path: b",
        "    output_path: ./x.parquet",
        "    bitwidth: 4",
        "  - {modelpath: c, output_path: c.parquet, group_size: 7}",
        "  - 12",
        "  - {model_path: d, output_path: d.parquet, memory: 1GB}",
        "  - {model_path: e, output_path: e.parquet, method: r2q, bit_width: 8}",
      ].join("\n"),
    );
    const expected: [RegExp, string][] = [
      [/:2:\d+: job 1: .*bit_width.*2, 3, 4, 5, 6 or 8/, "a value out of range"],
      [/:4:\d+: job 2: .*also the output of job 1/, "an output twice, however written"],
      [/:5:\d+: job 2: .*"bitwidth".*did you mean "bit_width"/, "a misspelt setting"],
      [/:6:\d+: job 3: model_path: expected a path/, "a missing path"],
      [/:6:\d+: job 3: .*"modelpath".*did you mean "model_path"/, "a misspelt path"],
      [/:6:\d+: job 3: .*group_size.*16 to 1024/, "another fault of the same job"],
      [/:7:\d+: job 4: expected a mapping/, "an entry that is none"],
      [/:8:\d+: job 5: memory is shared by all jobs/, "a setting of the process"],
      [/:9:\d+: job 6: .*r2q.*contradicts/, "contradictory settings"],
    ];
    for (const [pattern, what] of expected) {
      expect(
        problems.filter((message) => pattern.test(message)),
        what,
      ).toHaveLength(1);
    }
    expect(problems).toHaveLength(expected.length);
  });

  it("reports a fault of the defaults once", async () => {
    const problems = await problemsOf(`defaults: {bit_width: 7, bogus: 1}\n${two("", "")}`);
    expect(problems).toHaveLength(2);
    expect(problems[0]).toMatch(/:1:\d+: defaults: /);
  });

  it.each([
    ["nothing", "", /there is no list "jobs"/],
    ["no list", "jobs: 3\n", /expected a list of jobs/],
    ["an empty list", "jobs: []\n", /the list is empty/],
    ["a list alone", "- {model_path: a, output_path: b}\n", /must be a mapping/],
    ["an unknown key", `${two("", "")}defualts: {}\n`, /did you mean "defaults"/],
    ["a path that is no text", "jobs: [{model_path: 3, output_path: x.parquet}]\n", /model_path: expected a path/],
    ["an empty path", "jobs: [{model_path: '', output_path: x.parquet}]\n", /the path is empty/],
    ["no YAML", "jobs: [", /:\d+:\d+: /],
  ])("of %s is refused", async (_, text, said) => {
    expect((await problemsOf(text)).join("\n")).toMatch(said);
  });

  it("that is not there is E_CONFIG, and so is a wrong flag", async () => {
    await expect(readJobs(join(folder, "nowhere.yaml"), {})).rejects.toMatchObject({ code: "E_CONFIG" });
    await expect(readJobs(jobFile(two("", "")), { flags: { bit_width: "7" } })).rejects.toMatchObject({
      code: "E_CONFIG",
    });
  });
});

describe("outputs", () => {
  it("must not be, or hold, what a job reads", async () => {
    expect(
      (await problemsOf("jobs:\n  - {model_path: a, output_path: b}\n  - {model_path: b, output_path: c}\n")).join(),
    ).toMatch(/job 1: output b is the model of job 2/);
    expect((await problemsOf("jobs: [{model_path: a/b/c, output_path: a}]\n")).join()).toMatch(
      /output a holds its own model/,
    );
  });

  it("must not lie in one another", async () => {
    const text = "jobs:\n  - {model_path: m, output_path: out}\n  - {model_path: n, output_path: out/n.parquet}\n";
    expect((await problemsOf(text)).join()).toMatch(/job 2: output out\/n\.parquet lies in the output of job 1/);
  });

  it("are the same through a link", async () => {
    const real = join(folder, "real");
    mkdirSync(real);
    symlinkSync(real, join(folder, "link"));
    const text = JSON.stringify({
      jobs: [
        { model_path: "m", output_path: join(real, "x.parquet") },
        { model_path: "n", output_path: join(folder, "link", "x.parquet") },
      ],
    });
    expect((await problemsOf(text)).join()).toMatch(/also the output of job 1/);
  });

  it("collide exactly when two are the same, whatever their number", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.constantFrom("a", "b", "c", "d", "e"), { minLength: 1, maxLength: 6 }),
        async (names) => {
          const jobs = names.map((name, index) => ({ model_path: `m${index}`, output_path: `${name}.parquet` }));
          const path = jobFile(JSON.stringify({ jobs }));
          const distinct = new Set(names).size === names.length;
          if (distinct) expect(await readJobs(path, {})).toHaveLength(names.length);
          else await expect(readJobs(path, {})).rejects.toMatchObject({ code: "E_JOB_FILE" });
        },
      ),
      { numRuns: 30 },
    );
  });
});

describe("listed models", () => {
  it("name their outputs, without the ending of a file", async () => {
    const jobs = await listJobs(["models/dit/", "other/unet.safetensors"], "out", {});
    expect(jobs.map(({ outputPath, addsEnding }) => [outputPath, addsEnding])).toEqual([
      [join("out", "dit"), true],
      [join("out", "unet"), true],
    ]);
  });

  it("of the same name are refused", async () => {
    await expect(listJobs(["a/transformer", "b/transformer"], "out", {})).rejects.toMatchObject({
      code: "E_JOB_FILE",
      message: expect.stringContaining("also the output of job 1"),
    });
  });

  it("may lie beside their outputs", async () => {
    expect(await listJobs(["./dit", "./unet"], ".", {})).toHaveLength(2);
  });
});
