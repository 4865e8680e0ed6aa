import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { temporaryFolder, writeModel } from "../cli/models.js";
import { run } from "../cli/program.js";
import { failureOf, quantizeLine } from "./program.js";

const MIB = 1024 * 1024;
const CAP_MIB = 256;
const PRELOAD = new URL("../bench/peak-memory.mjs", import.meta.url).href;
const folder = temporaryFolder();

/** Runs the program and gives the most memory its process ever held, in MiB. */
async function peakOf(line: readonly string[]): Promise<number> {
  const path = join(folder, "peak");
  const ended = await run(line, { env: { NODE_OPTIONS: `--import ${PRELOAD}`, ARROWQUANT_BENCH_PEAK: path } });
  expect(ended.code, ended.stderr).toBe(0);
  return Number(readFileSync(path, "utf8")) / MIB;
}

// Holes on disk, so that a gigabyte costs nothing; times are those of the processor alone.
it.each([
  ["one layer far larger than the cap", [{ name: "blocks.0.attn.to_q.weight", shape: [8192, 32768] }]],
  ["rows of a million columns", [{ name: "blocks.0.attn.to_q.weight", shape: [128, 1048576] }]],
])("the cap holds for the whole process: %s", async (_what, tensors) => {
  const source = writeModel(join(folder, "source.safetensors"), tensors);
  const output = join(folder, "out.parquet");
  const cap = ["--memory", `${CAP_MIB}MiB`];
  const peaks = {
    quantize: await peakOf(quantizeLine(source, output, 2, "--modality", "image", "--threads", "5", ...cap)),
    validate: await peakOf(["validate", source, output, "--threads", "5", ...cap]),
  };
  for (const [command, mib] of Object.entries(peaks)) expect(mib, command).toBeLessThanOrEqual(CAP_MIB);
});

it("a row that cannot fit is refused beforehand with the cap that would do", async () => {
  const source = writeModel(join(folder, "wider.safetensors"), [
    { name: "blocks.0.attn.to_q.weight", shape: [4, 16777216] },
  ]);
  const line = (mib: number) =>
    quantizeLine(source, join(folder, "wider.parquet"), 2, "--modality", "image", "--memory", `${mib}MiB`);
  const { exitCode, code, hint } = failureOf(await run(line(CAP_MIB)));
  expect({ exitCode, code }).toEqual({ exitCode: 2, code: "E_MEMORY" });
  const neededMib = Number(/--memory (\d+)MiB/.exec(hint ?? "")?.[1]);
  expect(await peakOf(line(neededMib))).toBeLessThanOrEqual(neededMib);
});
