/** What calibration does to a quantization, on a real model run by ONNX Runtime. */
import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

import { calibrateModel } from "../../dist/calibration/calibrate.js";
import { Session } from "../../dist/engine/session.js";
import { openNative } from "../../dist/formats/parquet/reader.js";
import { ArrowQuant, type ConfigSettings, type LayerReport, type QuantizeResult } from "../../dist/index.js";
import { BIT_WIDTHS } from "../../dist/tensor/layout.js";

const MODELS = fileURLToPath(new URL("../../../shared/models/", import.meta.url));
const MODEL = join(MODELS, "dit-mnist");

let folder: string;
let statistics: string;
let aq: ArrowQuant;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "arrowquant-calibrated-"));
  statistics = join(folder, "stats.safetensors");
  await using session = new Session();
  await calibrateModel(
    {
      input: MODEL,
      graph: null,
      source: join(MODEL, "calibration.parquet"),
      output: statistics,
      samples: 64,
      steps: 20,
      seed: 0,
      roles: {},
      variant: null,
      components: null,
      hessians: true,
      cacheFolder: join(folder, "cache"),
    },
    session,
  );
  aq = new ArrowQuant();
});

afterAll(async () => {
  await aq.dispose();
  await rm(folder, { recursive: true, force: true });
});

/** Attention of one block: enough layers, and quick. */
const FEW_LAYERS: ConfigSettings = { include: ["transformer_blocks\\.0\\.(attn1|ff)"], min_accuracy: 0 };

async function quantizeTo(name: string, config: ConfigSettings, quantizer = aq): Promise<QuantizeResult> {
  const output = join(folder, name);
  return quantizer.quantize({ input: MODEL, output, force: true, config: { calibration: statistics, ...config } });
}

const quantized = ({ layers }: QuantizeResult): LayerReport[] => layers.filter(({ quantType }) => quantType !== "none");

async function hashOf(name: string): Promise<string> {
  return createHash("sha256")
    .update(await readFile(join(folder, name)))
    .digest("hex");
}

describe("method auto", () => {
  it("takes, layer by layer, the method of least output error on held-back samples", async () => {
    const result = await quantizeTo("auto.parquet", {
      ...FEW_LAYERS,
      bit_width: 2,
      method: "auto",
      enable_spatial: false,
    });
    const layers = quantized(result);
    expect(layers.length).toBe(6);
    for (const { method, output, trials } of layers) {
      expect(trials.map((trial) => trial.method).sort()).toEqual(["gptq", "hqq", "mse", "r2q", "rtn"]);
      const least = Math.min(...trials.map(({ outputError }) => outputError));
      expect(output?.relativeError).toBe(least);
      expect(trials.find((trial) => trial.outputError === least)?.method).toBe(method);
    }
  });

  it("measures what each method gives alone", async () => {
    const auto = quantized(await quantizeTo("auto.parquet", { ...FEW_LAYERS, method: "auto", enable_spatial: false }));
    const alone = quantized(
      await quantizeTo("hqq.parquet", { ...FEW_LAYERS, method: "hqq", enable_spatial: false, min_accuracy: 0.1 }),
    );
    for (const [index, layer] of alone.entries()) {
      const trial = auto[index]?.trials.find(({ method }) => method === "hqq");
      expect(trial?.outputError).toBe(layer.output?.relativeError);
    }
  });
});

describe("method gptq", () => {
  it("leaves every layer's output closer with every bit more", async () => {
    const errors = new Map<string, number[]>();
    for (const bits of BIT_WIDTHS) {
      // Codes of eight bits for zero points, so that they limit no width.
      const config = { bit_width: bits, method: "gptq", zero_point_bits: 8, enable_spatial: false } as const;
      const result = await quantizeTo("gptq.parquet", { ...FEW_LAYERS, ...config, min_accuracy: 0.1 });
      for (const { name, output } of quantized(result)) {
        errors.set(name, [...(errors.get(name) ?? []), output?.relativeError as number]);
      }
    }
    expect(errors.size).toBe(6);
    for (const [name, [first, ...rest]] of errors) {
      let wider = first as number;
      for (const error of rest) {
        expect(error, name).toBeLessThan(wider / 1.5);
        wider = error;
      }
    }
  });
});

describe("channel equalization", () => {
  it("is never worse on held-back samples than none, and is stored where it is better", async () => {
    const name = "spatial.parquet";
    const result = await quantizeTo(name, { ...FEW_LAYERS, bit_width: 2, method: "gptq", enable_spatial: true });
    const native = await openNative(join(folder, name));
    const stored = new Map<string, number>();
    for await (const row of native.rowHeaders()) {
      if (row.spatial !== null) stored.set(row.layerName, row.spatial.equalizationScales.length);
    }
    native.close();
    for (const { name: layer, shape, smoothing, output, trials } of quantized(result)) {
      const off = trials.find(({ alpha }) => alpha === null);
      expect(trials.length).toBeGreaterThan(2);
      expect(output?.relativeError).toBeLessThanOrEqual(off?.outputError as number);
      expect(stored.get(layer)).toBe(smoothing === null ? undefined : shape[1]);
    }
    expect(stored.size).toBeGreaterThan(0);
    // What a reader rebuilds is what was measured: validation divides by the stored scales.
    expect((await aq.validate({ original: MODEL, quantized: join(folder, name), minAccuracy: 0.5 })).passed).toBe(true);
  });
});

describe("time-aware activations", () => {
  it("are stored per layer: ascending ranges without gaps over the whole time, whole zero points", async () => {
    const name = "time.parquet";
    await quantizeTo(name, {
      ...FEW_LAYERS,
      method: "rtn",
      activation_bits: 4,
      num_time_groups: 7,
      enable_spatial: false,
    });
    const native = await openNative(join(folder, name));
    let count = 0;
    for await (const { timeAware, quantType, activationStats } of native.rowHeaders()) {
      if (quantType === "none") {
        expect(timeAware).toBeNull();
        continue;
      }
      count += 1;
      const groups = timeAware?.timeGroupParams ?? [];
      expect(timeAware).toMatchObject({ numTimeGroups: 7, activationBits: 4, timeInput: "timestep" });
      expect(groups.length).toBe(7);
      for (const [index, { timeRange, scale, zeroPoint }] of groups.entries()) {
        expect(timeRange.start).toBe(index === 0 ? timeRange.start : groups[index - 1]?.timeRange.end);
        expect(timeRange.end).toBeGreaterThan(timeRange.start);
        expect(scale).toBeGreaterThan(0);
        expect(Number.isInteger(zeroPoint) && zeroPoint >= 0 && zeroPoint <= 15).toBe(true);
      }
      expect(activationStats?.max).toBeGreaterThan(activationStats?.mean as number);
    }
    native.close();
    expect(count).toBe(6);
  });
});

describe("the same statistics and settings", () => {
  it("give the same bytes with other threads, slabs and after a stopped run", async () => {
    const config = { ...FEW_LAYERS, bit_width: 2, method: "auto", activation_bits: 8 } as const;
    await quantizeTo("a.parquet", config);
    await using one = new ArrowQuant({ threads: 1, memory: "400MiB" });
    await quantizeTo("b.parquet", config, one);
    expect(await hashOf("b.parquet")).toBe(await hashOf("a.parquet"));

    const stop = new AbortController();
    const output = join(folder, "c.parquet");
    const job = { input: MODEL, output, config: { ...config, calibration: statistics }, resume: true } as const;
    let written = 0;
    const stopped = (async () => {
      for await (const event of aq.run({ ...job, signal: stop.signal })) {
        if (event.type === "layer" && event.layer.quantType !== "none" && ++written === 3)
          stop.abort(new Error("enough"));
      }
    })();
    await expect(stopped).rejects.toThrow("enough");
    await aq.quantize({ ...job, force: true });
    expect(await hashOf("c.parquet")).toBe(await hashOf("a.parquet"));
  });
});

describe("quality", () => {
  it("is that of the output where it is measured: a layer falls back by it", async () => {
    const result = await quantizeTo("fallback.parquet", {
      ...FEW_LAYERS,
      bit_width: 2,
      method: "gptq",
      min_accuracy: 0.999,
      enable_spatial: false,
    });
    for (const { output, fallbackFrom, quantType } of quantized(result)) {
      expect(output?.cosineSimilarity).toBeGreaterThanOrEqual(0.999);
      if (quantType !== "int2") expect(fallbackFrom[0]?.cosineSimilarity).toBeLessThan(0.999);
    }
    expect(quantized(result).some(({ fallbackFrom }) => fallbackFrom.length > 0)).toBe(true);
  });

  it("of another model's statistics is an error, without output", async () => {
    const output = join(folder, "other.parquet");
    const input = join(MODELS, "unet-mnist");
    const job = { input, output, config: { calibration: statistics } };
    await expect(aq.quantize(job)).rejects.toMatchObject({ code: "E_STATISTICS" });
    await expect(readFile(output)).rejects.toMatchObject({ code: "ENOENT" });
  });
});
