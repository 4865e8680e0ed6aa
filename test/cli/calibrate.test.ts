import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { makeRows, writeScheduler, writeSmallModel } from "../calibration/small-model.js";
import { temporaryFolder } from "./models.js";
import { documentOf, run } from "./program.js";

const folder = temporaryFolder();
const model = join(folder, "model");
const env = { XDG_CACHE_HOME: join(folder, "cache") };

beforeAll(() => {
  writeSmallModel(
    model,
    makeRows(24, (index) => index % 5),
  );
  writeScheduler(model);
});

describe("calibrate", () => {
  it("samples where no data is given, and says what it took and what it did not", async () => {
    const output = join(folder, "stats.safetensors");
    const ended = await run(["calibrate", model, "-o", output, "--calibration-samples", "32", "--seed", "3"], { env });
    expect({ code: ended.code, stderr: ended.stderr }).toEqual({ code: 0, stderr: "" });
    expect(existsSync(output)).toBe(true);
    for (const text of [
      "sampling: 8 trajectories of 20 steps, DDIMScheduler, seed 3",
      "32, 4 of them held back to measure by",
      "20 bins of timestep, 0 to 1000",
      "Without Hessian",
      "it is a convolution of 4 groups",
    ]) {
      expect(ended.stdout).toContain(text);
    }
  });

  it("gives one document with --json, the second time from the cache", async () => {
    const output = join(folder, "rows.safetensors");
    const line = ["calibrate", model, "-o", output, "--calibration", join(model, "rows.jsonl"), "--json"];
    const first = documentOf(await run(line, { env }));
    expect(first).toMatchObject({
      ok: true,
      command: "calibrate",
      output,
      summary: { samples: 24, held_back: 3, time_bins: 5, cached: false, rejected: 0 },
      source: { kind: "data" },
      second_moments_only: false,
    });
    expect(first.layers.find(({ name }) => name === "conv.weight")).toMatchObject({ channels: 4, columns: 36 });
    const bytes = readFileSync(output);
    const second = documentOf(await run(line, { env }));
    expect(second.summary).toMatchObject({ cached: true });
    expect(second.fingerprint).toBe(first.fingerprint);
    expect(readFileSync(output).equals(bytes)).toBe(true);
    expect(readdirSync(folder).filter((name) => name.includes(".arrowquant-"))).toEqual([]);
  });

  it("ends with the code of what is wrong", async () => {
    const output = join(folder, "none.safetensors");
    const wrongName = await run(["calibrate", model, "-o", join(folder, "stats.parquet"), "--json"], { env });
    expect([wrongName.code, documentOf(wrongName).error?.code]).toEqual([2, "E_USAGE"]);
    const noGraph = await run(["calibrate", model, "-o", output, "--graph", join(folder, "gone.onnx"), "--json"], {
      env,
    });
    expect([noGraph.code, documentOf(noGraph).error?.code]).toEqual([3, "E_NOT_FOUND"]);
    const noInput = await run(["calibrate", model, "-o", output, "--time-input", "clock", "--json"], { env });
    expect(documentOf(noInput).error).toMatchObject({ code: "E_GRAPH", message: expect.stringContaining('"clock"') });
    const noData = await run(
      ["calibrate", model, "-o", output, "--calibration", join(folder, "gone.jsonl"), "--json"],
      { env },
    );
    expect([noData.code, documentOf(noData).error?.code]).toEqual([3, "E_NOT_FOUND"]);
    expect(existsSync(output)).toBe(false);
  });
});
