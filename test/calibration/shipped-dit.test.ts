import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { MODELS } from "../graph/onnx-model.ts";
import { useFolder } from "../quantize/source.js";
import { areModelsHere, calibrateShipped, compareHessians, compareShipped, openStatistics } from "./shipped.js";

const folder = useFolder();

describe.runIf(areModelsHere)("dit-mnist on its calibration rows", () => {
  it("has the shipped statistics and Hessians, and the same file from Parquet and JSON lines", async () => {
    const { path, info, rejected } = await calibrateShipped("dit-mnist", folder.path("cache"), {
      output: folder.path("parquet.safetensors"),
    });
    expect(rejected).toEqual([]);
    expect([info.sampleCount, info.heldBackCount, info.time.bins.length]).toEqual([128, 0, 50]);
    expect(info.time).toMatchObject({ input: "timestep", start: 0, end: 1000 });

    const statistics = await openStatistics(path);
    const { worst, compared, missing } = await compareShipped("dit-mnist", statistics);
    expect(missing).toEqual([]);
    expect(compared).toBe(39);
    // ONNX Runtime against torch: float32 rounding of another order of sums.
    expect(worst).toBeLessThan(1e-5);

    const errors = await compareHessians("dit-mnist", statistics);
    expect(errors.size).toBe(16);
    expect(Math.max(...errors.values())).toBeLessThan(1e-5);
    // q, k and v read the same input, and share its statistics.
    const names = ["q", "k", "v"].map((part) => `transformer_blocks.2.attn1.to_${part}.weight`);
    expect(new Set(names.map((name) => info.layers[name])).size).toBe(1);

    const fromLines = await calibrateShipped("dit-mnist", folder.path("cache"), {
      source: join(MODELS, "dit-mnist/calibration.jsonl"),
      output: folder.path("jsonl.safetensors"),
    });
    expect(fromLines.cached).toBe(false);
    expect((await readFile(fromLines.path)).equals(await readFile(path))).toBe(true);
  });
});
