/** A short run of `npm run fuzz`, always the same, and that its supervisor sees what it is there to see. */
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FORMATS } from "./formats.mjs";
import planted, { FAULT_NAMES } from "./planted.mjs";
import { fuzzFormat } from "./supervise.mjs";

const FUZZ = fileURLToPath(new URL("fuzz.mjs", import.meta.url));
const CASES = 600;

let failureFolder: string;
beforeAll(async () => {
  failureFolder = await mkdtemp(join(tmpdir(), "arrowquant-failures-"));
});
afterAll(() => rm(failureFolder, { recursive: true }));

describe("mutated files", () => {
  test.each(FORMATS.map(({ name }) => name))("%s: each is a right result or a clean error", async (name) => {
    const args = [FUZZ, "--only", name, "--count", String(CASES), "--seed", "1", "--failures", failureFolder];
    const { stdout } = await promisify(execFile)(process.execPath, args).catch((error) => error);
    expect(stdout).toMatch(new RegExp(`^${name}: ${CASES} cases in [\\d.]+ s, 0 failures\n`));
    // Mutations that reached nothing would prove nothing.
    expect(stdout).toMatch(/\bright [1-9]/);
  });
});

describe("the supervisor", () => {
  test("sees every kind of fault and keeps the input", async () => {
    const to = FAULT_NAMES.length;
    const { failures } = await fuzzFormat(planted, { seed: "1", from: 0, to, failureFolder, hangSeconds: 6 });
    const problems = Object.fromEntries(failures.map(({ index, problem }) => [FAULT_NAMES[index], problem]));
    const memory = process.platform === "linux" ? { memory: "MiB for", untouchedMemory: "MiB for" } : {};
    expect(Object.keys(problems).sort()).toEqual(
      [...Object.keys(memory), "wrong", "foreignError", "slow", "hang", "unsettled", "crash"].sort(),
    );
    const expected: Record<string, string> = {
      ...memory,
      wrong: "AssertionError",
      foreignError: "TypeError: undefined is not a function",
      slow: "took 1.",
      hang: "did not end within 6 s",
      unsettled: "the case unsettled",
      crash: "was killed by SIGABRT",
    };
    for (const [name, part] of Object.entries(expected)) expect(problems[name], name).toContain(part);
    for (const { index, file } of failures) expect([...(await readFile(file))]).toEqual([index]);
  });
});
