import { once } from "node:events";
import {
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  watch,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { temporaryFolder, UNET, wave, writeModel } from "../cli/models.js";
import { run, start, waitFor } from "../cli/program.js";
import { failureOf, quantizeLine, testFolder } from "./program.js";

const folder = temporaryFolder();
const small = writeModel(join(folder, "small.safetensors"), [{ name: "a.weight", shape: [32, 64], values: wave }]);

/** Runs on a large source into a place with an older output, and does something to the source once it is read. */
async function disturb(act: (source: string) => void) {
  const sources = testFolder();
  const source = writeModel(
    join(sources, "large.safetensors"),
    Array.from({ length: 16 }, (_, index) => ({ name: `blocks.${index}.attn.to_q.weight`, shape: [2048, 4096] })),
  );
  const place = testFolder();
  const output = join(place, "out.parquet");
  expect((await run(quantizeLine(small, output, 4, "--modality", "image"))).code).toBe(0);
  const old = readFileSync(output);
  const ended = waitFor(start(quantizeLine(source, output, 8, "--modality", "image")));
  const watcher = watch(place);
  await once(watcher, "change");
  watcher.close();
  act(source);
  const failure = failureOf(await ended);
  expect(readdirSync(place)).toEqual(["out.parquet"]);
  expect(readFileSync(output).equals(old)).toBe(true);
  return failure;
}

describe("a source that is not what it was", () => {
  it("fails the run where it is cut off while it is read", async () => {
    expect(await disturb((source) => truncateSync(source, 1 << 20))).toMatchObject({
      exitCode: 3,
      code: "E_TRUNCATED",
    });
  });

  it("fails the run where it is written to while it is read", async () => {
    const failure = await disturb((source) => utimesSync(source, new Date(), new Date(0)));
    expect(failure).toEqual({ exitCode: 3, code: "E_CHANGED", hint: expect.stringContaining("run again") });
  });

  it("fails validation where it is cut off", async () => {
    const place = testFolder();
    const source = join(place, "source.safetensors");
    copyFileSync(small, source);
    const output = join(place, "out.parquet");
    expect((await run(quantizeLine(source, output, 4, "--modality", "image"))).code).toBe(0);
    truncateSync(source, 4096);
    const ended = await run(["validate", source, output, "--json"]);
    expect(ended.code).toBe(3);
  });
});

describe("a source that cannot be read", () => {
  it.each([
    ["a folder named like a file", (path: string) => mkdirSync(path)],
    ["a file of the system that has no length", (path: string) => symlinkSync("/proc/self/mem", path)],
    ["a device", (path: string) => symlinkSync("/dev/zero", path)],
  ])("%s is an error of the input, without output", async (_what, make) => {
    const source = join(testFolder(), "model.safetensors");
    make(source);
    const place = testFolder();
    const { exitCode, code } = failureOf(await run(quantizeLine(source, join(place, "out.parquet"), 4)));
    expect({ exitCode, code }).toEqual({ exitCode: 3, code: expect.stringMatching(/^E_[A-Z_]+$/) });
    expect(code).not.toBe("E_INTERNAL");
    expect(readdirSync(place)).toEqual([]);
  });
});

describe("two runs into the same output", () => {
  it("both end well, and what stands there is whole and one of theirs", async () => {
    const place = testFolder();
    const alone = await Promise.all(
      [4, 8].map(async (bits) => {
        const path = join(folder, `alone-${bits}.parquet`);
        expect((await run(quantizeLine(UNET, path, bits))).code).toBe(0);
        return readFileSync(path).toString("base64");
      }),
    );
    const output = join(place, "out.parquet");
    const ended = await Promise.all([4, 8].map((bits) => run(quantizeLine(UNET, output, bits))));
    expect(ended.map(({ code }) => code)).toEqual([0, 0]);
    expect(readdirSync(place)).toEqual(["out.parquet"]);
    expect(alone).toContain(readFileSync(output).toString("base64"));
  });
});
