/** `quantize --calibration … --validate run` and `validate --run` as a user types them. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { makeRows, writeScheduler, writeSmallModel } from "../calibration/small-model.js";
import { temporaryFolder, UNET } from "./models.js";
import { documentOf, run } from "./program.js";

/** Of the same weights as the model that ships in test/models. */
const GRAPH = fileURLToPath(new URL("../../../shared/models/unet-mnist/onnx/model.onnx", import.meta.url));

const folder = temporaryFolder();
const model = join(folder, "model");
const output = join(folder, "model.parquet");
const env = { XDG_CACHE_HOME: join(folder, "cache") };

/** The small model is of no known kind. */
const SETTINGS = ["--group-size", "16", "--min-accuracy", "0", "--modality", "image"];

interface Variant {
  quantized: string;
  prediction_error: number;
  psnr_db: number;
  times: { time: number; prediction_error: number }[];
}

beforeAll(() => {
  writeSmallModel(
    model,
    makeRows(24, (index) => index % 5),
  );
  writeScheduler(model);
});

describe("quantize --validate run", () => {
  it("calibrates, quantizes, and runs what it wrote beside the original", async () => {
    const line = ["quantize", model, "-o", output, "--calibration", "sampling", "--calibration-samples", "32"];
    const settings = [...SETTINGS, "--activation-bits", "8", "--time-input", "timestep", "--validate", "run"];
    const ended = await run([...line, ...settings, "--json"], { env });
    const document = documentOf(ended) as unknown as {
      layers: { method: string | null; output_error: number | null; time_groups: number | null }[];
      validation: { passed: boolean; run: { variants: Variant[]; layers_run: number } };
    };
    expect({ code: ended.code, stderr: ended.stderr }).toMatchObject({ code: 0 });
    const quantized = document.layers.filter(({ method }) => method !== null);
    expect(quantized.some(({ method }) => method === "gptq")).toBe(true);
    expect(quantized.some(({ time_groups }) => time_groups === 10)).toBe(true);
    const { variants, layers_run } = document.validation.run;
    expect(layers_run).toBeGreaterThan(0);
    expect(variants.map((variant) => variant.quantized)).toEqual(["weights", "weights and activations"]);
    for (const { prediction_error, times } of variants) {
      expect(times.length).toBe(20);
      expect(prediction_error).toBeCloseTo(
        times.reduce((sum, each) => sum + each.prediction_error, 0) / times.length,
        10,
      );
    }
  });
});

describe("validate --run", () => {
  it("shows both models side by side, and what did not run", async () => {
    const line = ["validate", model, output, "--run", "--run-samples", "2", "--run-steps", "4", "--min-accuracy", "0"];
    const shown = await run(line, { env });
    expect(shown.code).toBe(0);
    expect(shown.stderr).toMatch(/^warning: quantized layers that the graph does not have, .*: 1\n$/);
    for (const text of [
      "Quantized but not run",
      "Run side by side",
      "2 samples denoised in 4 steps of DDIMScheduler, seed 1",
      "PSNR dB",
    ]) {
      expect(shown.stdout).toContain(text);
    }
  });

  it("ends with 4 where the predictions differ too much, by the graph that is named", async () => {
    const unet = join(folder, "unet.parquet");
    await run(["quantize", UNET, "-o", unet, "--bit-width", "2", "--min-accuracy", "0", "--quiet"], { env });
    const line = ["validate", UNET, unet, "--run", "--graph", GRAPH, "--run-samples", "1", "--run-steps", "2"];
    const ended = await run([...line, "--min-accuracy", "0", "--max-prediction-error", "0.001", "--quiet"], { env });
    expect(ended.code).toBe(4);
    expect(ended.stderr).toMatch(
      /^E_QUALITY: the quantized model predicts too differently \(weights: prediction error 0\./,
    );
  });

  it.each([
    [["--run-steps", "4"], /--run-steps needs --run/],
    [["--run", "--run-steps", "0"], /--run-steps 0: an integer is expected/],
    [["--run", "--min-psnr", "high"], /--min-psnr high: a number is expected/],
  ])("refuses %j", async (flags, message) => {
    const ended = await run(["validate", model, output, ...flags], { env });
    expect(ended.code).toBe(2);
    expect(ended.stderr).toMatch(message);
  });

  it("names the flag where there is no graph", async () => {
    const ended = await run(["validate", output, output, "--run"], { env });
    expect(ended.code).toBe(3);
    expect(existsSync(join(folder, "weights.safetensors"))).toBe(false);
  });
});
