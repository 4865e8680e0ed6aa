import { cpSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type BatchProgress, runBatch } from "../../dist/batch/batch.js";
import { Session } from "../../dist/engine/session.js";
import { temporaryFolder, UNET, wave, writeModel } from "../cli/models.js";
import { documentOf, type Ended, run } from "../cli/program.js";

const folder = temporaryFolder();
const rows = (seed: number) => [
  { name: "blocks.0.attn.to_q.weight", shape: [32, 64], values: (i: number) => wave(i + seed) },
];
const a = writeModel(join(folder, "a.safetensors"), rows(0));
const b = writeModel(join(folder, "b.safetensors"), rows(9));
const easy = ["--modality", "image", "--method", "rtn", "--json"];

interface Result {
  readonly job: number;
  readonly status: string;
  readonly output_path: string;
  readonly summary: Record<string, number> | null;
  readonly error: { readonly code: string } | null;
}

const resultsOf = (ended: Ended): Result[] => documentOf(ended).results as Result[];
const statusesOf = (ended: Ended): string[] => resultsOf(ended).map(({ status }) => status);

function jobFile(jobs: readonly Record<string, unknown>[]): string {
  const path = join(temporaryFolder(), "jobs.json");
  writeFileSync(path, JSON.stringify({ jobs }));
  return path;
}

describe("batch", () => {
  it("quantizes every job with its own settings, byte for byte as quantize does", async () => {
    const place = temporaryFolder();
    const file = jobFile([
      { model_path: a, output_path: join(place, "deep/er/a.parquet"), bit_width: 2, min_accuracy: 0 },
      { model_path: b, output_path: join(place, "b.parquet"), bit_width: 8 },
      { model_path: UNET, output_path: join(place, "unet.parquet") },
    ]);
    const ended = await run(["batch", file, ...easy]);
    expect(ended.code).toBe(0);
    const document = documentOf(ended);
    expect(statusesOf(ended)).toEqual(["successful", "successful", "successful"]);
    const sizes = resultsOf(ended).map(({ output_path }) => statSync(output_path).size);
    expect(document.summary).toMatchObject({ total_jobs: 3, successful: 3, failed: 0, skipped: 0, success_rate: 1 });
    expect(document.summary?.total_size_mb).toBeCloseTo(sizes.reduce((x, y) => x + y) / 1e6, 12);
    const ratios = resultsOf(ended).map(({ summary }) => summary?.compression_ratio as number);
    expect(document.summary?.avg_compression_ratio).toBeCloseTo(ratios.reduce((x, y) => x + y) / 3, 12);

    const alone = join(place, "alone.parquet");
    expect((await run(["quantize", b, "-o", alone, "-b", "8", ...easy])).code).toBe(0);
    expect(readFileSync(join(place, "b.parquet")).equals(readFileSync(alone))).toBe(true);
  });

  it("goes on after a failure and ends with 5", async () => {
    const place = temporaryFolder();
    const report = join(place, "report.json");
    const file = jobFile([
      { model_path: join(folder, "nothing"), output_path: join(place, "x.parquet") },
      { model_path: a, output_path: join(place, "a.parquet") },
    ]);
    const ended = await run(["batch", file, ...easy, "--report", report]);
    expect(ended.code).toBe(5);
    expect(ended.stderr).toMatch(/^E_JOBS: 1 of 2 jobs failed/m);
    expect(statusesOf(ended)).toEqual(["failed", "successful"]);
    expect(resultsOf(ended)[0]?.error?.code).toBe("E_NOT_FOUND");
    expect(documentOf(ended)).toMatchObject({ ok: false, error: { code: "E_JOBS" }, summary: { success_rate: 0.5 } });
    expect(JSON.parse(readFileSync(report, "utf8"))).toEqual(documentOf(ended));
  });

  it("with --fail-fast stops at the first failure, what was done before stands", async () => {
    const place = temporaryFolder();
    const file = jobFile([
      { model_path: a, output_path: join(place, "a.parquet") },
      { model_path: join(folder, "nothing"), output_path: join(place, "x.parquet") },
      { model_path: b, output_path: join(place, "b.parquet") },
    ]);
    const ended = await run(["batch", file, ...easy, "--fail-fast"]);
    expect(ended.code).toBe(5);
    expect(statusesOf(ended)).toEqual(["successful", "failed", "not_run"]);
    expect(documentOf(ended).summary).toMatchObject({ not_run: 1 });
    expect(readdirSync(place)).toEqual(["a.parquet"]);
  });

  it("starts nothing where an entry is bad", async () => {
    const place = temporaryFolder();
    const file = jobFile([
      { model_path: a, output_path: join(place, "a.parquet") },
      { model_path: b, output_path: join(place, "b.parquet"), bit_width: 7 },
    ]);
    const ended = await run(["batch", file, ...easy]);
    expect(ended.code).toBe(2);
    expect(documentOf(ended)).toMatchObject({
      ok: false,
      error: { code: "E_JOB_FILE", details: { problems: [{ job: 2 }] } },
    });
    expect(readdirSync(place)).toEqual([]);
  });

  it("names outputs of listed models after them", async () => {
    const place = join(temporaryFolder(), "new/folder");
    const ended = await run(["batch", "--model", a, "--model", UNET, "--output-dir", place, ...easy, "--jobs", "2"]);
    expect(ended.code).toBe(0);
    expect(readdirSync(place).sort()).toEqual(["a.parquet", "unet-mnist.parquet"]);
  });

  it("is a table for people", async () => {
    const place = temporaryFolder();
    const { code, stdout, stderr } = await run([
      "batch",
      "--model",
      a,
      "--output-dir",
      place,
      "--modality",
      "image",
      "--method",
      "rtn",
    ]);
    expect(code).toBe(0);
    expect(stderr).not.toMatch(/E_/);
    for (const word of ["Jobs", "successful", "success rate", "mean cosine similarity"]) expect(stdout).toContain(word);
  });
});

describe("resuming", () => {
  it("skips what stands for the same source and settings, and nothing else", async () => {
    const place = temporaryFolder();
    const source = join(place, "a.safetensors");
    cpSync(a, source);
    const line = ["batch", "--model", source, "--model", b, "--output-dir", join(place, "out"), ...easy];
    expect(statusesOf(await run(line))).toEqual(["successful", "successful"]);
    const before = readFileSync(join(place, "out/a.parquet"));

    const again = await run(line);
    expect(again.code).toBe(0);
    expect(statusesOf(again)).toEqual(["skipped", "skipped"]);
    // Figures of what stands are those of its own file.
    expect(documentOf(again).summary).toMatchObject({ skipped: 2, success_rate: 1 });
    expect(resultsOf(again)[0]?.summary?.cosine_similarity).toBeGreaterThan(0.9);

    expect(statusesOf(await run([...line, "--threads", "1", "--memory", "400MiB"]))).toEqual(["skipped", "skipped"]);
    expect(statusesOf(await run([...line, "--no-resume"]))).toEqual(["successful", "successful"]);
    expect(statusesOf(await run([...line, "--force"]))).toEqual(["successful", "successful"]);
    expect(readFileSync(join(place, "out/a.parquet")).equals(before)).toBe(true);
    expect(statusesOf(await run([...line, "--group-size", "32"]))).toEqual(["successful", "successful"]);
    expect(statusesOf(await run([...line, "--group-size", "32"]))).toEqual(["skipped", "skipped"]);

    writeModel(source, rows(1234));
    expect(statusesOf(await run([...line, "--group-size", "32"]))).toEqual(["successful", "skipped"]);

    writeFileSync(join(place, "out/a.parquet"), readFileSync(join(place, "out/a.parquet")).subarray(0, -40));
    const damaged = await run([...line, "--group-size", "32"]);
    expect(statusesOf(damaged)).toEqual(["failed", "skipped"]);
    expect(resultsOf(damaged)[0]?.error?.code).toBe("E_OUTPUT");
  });
});

describe("runBatch", () => {
  it("tells how far the whole is, monotonic, up to the end", async () => {
    const place = temporaryFolder();
    const told: BatchProgress[] = [];
    await using session = new Session({ threads: 2 });
    const config = { modality: "image", method: "rtn" };
    const result = await runBatch(
      {
        jobs: [
          { input: a, output: join(place, "a.parquet"), config },
          { input: join(folder, "nothing"), output: join(place, "x.parquet"), config },
          { input: UNET, output: join(place, "unet.parquet"), config },
        ],
        concurrency: 2,
        onProgress: (progress) => told.push(progress),
      },
      session,
    );
    expect(result.results.map(({ status }) => status)).toEqual(["successful", "failed", "successful"]);
    expect(result.interruption).toBeNull();
    for (const [index, { bytesDone, jobsDone }] of told.entries()) {
      const before = told[index - 1];
      expect(bytesDone).toBeGreaterThanOrEqual(before?.bytesDone ?? 0);
      expect(jobsDone).toBeGreaterThanOrEqual(before?.jobsDone ?? 0);
    }
    expect(told.at(-1)).toMatchObject({ jobsDone: 3, jobsTotal: 3 });
    expect(told.at(-1)?.bytesDone).toBe(told.at(-1)?.bytesTotal);
  });

  it("stops at an abort: what runs leaves nothing, the rest is not run", async () => {
    const place = temporaryFolder();
    const controller = new AbortController();
    const reason = new Error("enough");
    await using session = new Session({ threads: 1 });
    const result = await runBatch(
      {
        jobs: [UNET, a, b].map((input, index) => ({
          input,
          output: join(place, `${index}.parquet`),
          config: { modality: "image", method: "rtn" },
        })),
        signal: controller.signal,
        onProgress: () => controller.abort(reason),
      },
      session,
    );
    expect(result.interruption).toBe(reason);
    expect(result.results.map(({ status }) => status)).toEqual(["interrupted", "not_run", "not_run"]);
    expect(result.summary).toMatchObject({ notRun: 3, successful: 0 });
    expect(existsSync(join(place, "0.parquet"))).toBe(false);
    expect(readdirSync(place)).toEqual([]);
  });

  it("rejects with what a throwing listener threw", async () => {
    const place = temporaryFolder();
    await using session = new Session({ threads: 1 });
    const job = { input: a, output: join(place, "a.parquet"), config: { modality: "image", method: "rtn" } };
    const onProgress = (): void => {
      throw new Error("no more");
    };
    await expect(runBatch({ jobs: [job], onProgress }, session)).rejects.toThrow("no more");
    expect(readdirSync(place).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  });

  it("checks jobs before it starts any", async () => {
    await using session = new Session({ threads: 1 });
    const jobs = [
      { input: a, output: join(folder, "same.parquet") },
      { input: b, output: join(folder, "same.parquet"), config: { bit_width: 7 } },
    ];
    await expect(runBatch({ jobs }, session)).rejects.toMatchObject({
      code: "E_JOB_FILE",
      message: expect.stringMatching(/^2 problems/),
    });
  });
});
