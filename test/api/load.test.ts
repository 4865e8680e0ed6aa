import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { beforeAll, describe, expect, it } from "vitest";
import { ArrowQuant } from "../../dist/index.js";
import { useFolder } from "../quantize/source.js";
import { digest, dit, leftovers, plain, unet, writeSmallModel } from "./models.js";

const MIB = 1024 * 1024;
/** These are long where the machine is busy with other things. */
const TIMEOUT_MS = 180_000;
const script = fileURLToPath(new URL("load.mjs", import.meta.url));
const folder = useFolder();
const config = { modality: "image", min_accuracy: 0 };
let smalls: string[] = [];
beforeAll(async () => {
  smalls = await Promise.all([4, 5, 6].map((seed) => writeSmallModel(folder.path(`small-${seed}.safetensors`), seed)));
});

/** Runs a scenario of load.mjs in a process of its own. */
async function runScenario(name: string, options: object) {
  const { stdout } = await promisify(execFile)(process.execPath, [
    "--expose-gc",
    script,
    name,
    JSON.stringify(options),
  ]);
  return JSON.parse(stdout);
}

describe("jobs at once on one pool", { timeout: TIMEOUT_MS }, () => {
  it.each([2, 10, 50, 100])("%i give the files they give alone, under the memory cap, overlapping", async (count) => {
    // The real models, and small ones between them.
    const inputs = Array.from({ length: count }, (_, index) => {
      const real = index % 10 === 0 ? unet : index % 10 === 5 ? dit : undefined;
      return real ?? (smalls[index % smalls.length] as string);
    });
    const alone = new Map<string, string>();
    const aq = new ArrowQuant({ threads: 1 });
    for (const input of new Set(inputs)) {
      const output = folder.path("alone.parquet");
      await aq.quantize({ input, output, config });
      alone.set(input, await digest(output));
    }
    await aq.dispose();
    await mkdir(folder.path(`at-once-${count}`));
    const jobs = inputs.map((input, index) => {
      return { input, output: folder.path(`at-once-${count}`, `${index}.parquet`), config };
    });
    const capMib = 320;
    const { order, warnings, peakMib } = await runScenario("together", {
      jobs,
      options: { threads: 2, memory: capMib * MIB },
    });
    for (const { input, output } of jobs) expect(await digest(output)).toBe(alone.get(input));
    expect(leftovers(folder.path(`at-once-${count}`))).toEqual([]);
    expect(warnings).toEqual([]);
    expect(peakMib).toBeLessThan(capMib);
    const begun = new Set<number>();
    let most = 0;
    for (const [index, type] of order as [number, string][]) {
      if (type === "done") begun.delete(index);
      else begun.add(index);
      most = Math.max(most, begun.size);
    }
    expect(begun.size).toBe(0);
    expect(most).toBeGreaterThan(1);
  });
});

describe.skipIf(!existsSync("/proc/self/task"))("a process that works for long", { timeout: TIMEOUT_MS }, () => {
  it("has its threads, files and handles back after 100 pools", async () => {
    const job = { input: smalls[0], output: folder.path("instances.parquet"), config: plain };
    const { handles } = await runScenario("instances", { count: 100, job });
    expect(handles[1]).toBe(handles[0]);
  });

  it("stays flat in memory over 1,000 jobs", async () => {
    const options = { count: 1000, input: smalls[0], folder: folder.path(), config: plain };
    const { samples } = await runScenario("thousand", options);
    const [warm, end] = [samples[4], samples.at(-1)];
    expect(samples).toHaveLength(10);
    // After a collection: 500 jobs that each left one closure of 4 KB behind would be 2 MiB.
    expect(end.heldMib - warm.heldMib).toBeLessThan(2);
    // Before one, with what the allocators of all threads keep.
    expect(end.residentMib - warm.residentMib).toBeLessThan(32);
  });
});
