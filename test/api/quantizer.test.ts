import { existsSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ArrowQuant, ArrowQuantError, quantize, quantizeTensor, rebuildTensor, validate } from "../../dist/index.js";
import { floatPart, gaussianFloats, useFolder, writeModel } from "../quantize/source.js";
import { digest, dit, leftovers, plain, unet, writeSmallModel } from "./models.js";

const MIB = 1024 * 1024;
const folder = useFolder();
let small = "";
beforeAll(async () => {
  small = await writeSmallModel(folder.path("small.safetensors"), 1);
});

describe("creation", () => {
  it.each([
    [{ threads: 0 }, "E_CONFIG"],
    [{ threads: 1.5 }, "E_CONFIG"],
    [{ threads: 1000 }, "E_CONFIG"],
    [{ memory: Number.NaN }, "E_CONFIG"],
    [{ memory: 512 }, "E_CONFIG"],
    [{ memory: "much" }, "E_CONFIG"],
    [{ memory: "100MiB" }, "E_MEMORY"],
  ])("%j is refused with %s", (options, code) => {
    expect(() => new ArrowQuant(options)).toThrow(expect.objectContaining({ code }));
  });

  it("takes memory as a number of bytes or as text, and gives the same file whatever the pool", async () => {
    const outputs: string[] = [];
    for (const [index, options] of [
      { memory: "320MiB", threads: 1 },
      { memory: 320 * MIB, threads: 3 },
      {},
    ].entries()) {
      await using aq = new ArrowQuant(options);
      const output = folder.path(`pool-${index}.parquet`);
      await aq.quantize({ input: small, output, config: plain });
      outputs.push(await digest(output));
    }
    expect(new Set(outputs).size).toBe(1);
  });
});

describe("one pool", () => {
  const aq = new ArrowQuant({ threads: 2 });
  afterAll(() => aq.dispose());

  it("quantizes, validates, exports and plans one model after the other, as the functions do", async () => {
    for (const [name, input] of Object.entries({ unet, dit })) {
      const output = folder.path(`${name}.parquet`);
      const config = { bit_width: 4, min_accuracy: 0.5 };
      const plan = await aq.plan({ input, config });
      const result = await aq.quantize({ input, output, config });
      expect(result.layers.map(({ name: layer }) => layer)).toEqual(
        plan.components.flatMap(({ layers }) => layers.map(({ tensor }) => tensor.name)),
      );
      expect(await aq.validate({ original: input, quantized: output })).toMatchObject({ passed: true });
      const once = folder.path(`${name}-once.parquet`);
      await quantize({ input, output: once, config: { ...config, num_threads: 1, memory: "320MiB" } });
      expect(await digest(once)).toBe(await digest(output));
      expect(await validate({ original: input, quantized: once }, { threads: 1 })).toMatchObject({ passed: true });
    }
    const exported = folder.path("unet.safetensors");
    const { tensors } = await aq.export({ input: folder.path("unet.parquet"), output: exported, dtype: "F16" });
    expect(tensors).toBeGreaterThan(61);
  });

  it("works for every profile, and for several configurations at once as for one at a time", async () => {
    const configs = [
      { profile: "edge" },
      { profile: "local" },
      { profile: "cloud" },
      { bit_width: 2, method: "r2q" },
      { bit_width: 8, symmetric: true, method: "rtn", zero_point_bits: "none" },
      { group_size: 32, scale_bits: "none", zero_point_bits: "none", method: "mse" },
    ].map((config) => ({ modality: "image", min_accuracy: 0.3, ...config }));
    const alone: string[] = [];
    for (const [index, config] of configs.entries()) {
      const output = folder.path(`alone-${index}.parquet`);
      await aq.quantize({ input: small, output, config });
      alone.push(await digest(output));
    }
    const outputs = configs.map((_, index) => folder.path(`together-${index}.parquet`));
    await Promise.all(
      configs.map((config, index) => aq.quantize({ input: small, output: outputs[index] as string, config })),
    );
    expect(await Promise.all(outputs.map(digest))).toEqual(alone);
    // Which would prove little if they were all the same.
    expect(new Set(alone).size).toBeGreaterThanOrEqual(configs.length - 1);
  });

  it("says that a job's num_threads and memory cannot act on it", async () => {
    const job = { input: small, output: folder.path("ignored.parquet"), config: { ...plain, memory: "1GB" } };
    const { warnings } = await aq.quantize(job);
    expect(warnings).toContainEqual(expect.stringContaining("memory of a job has no effect"));
  });

  it("gives errors of worker threads with class, code, numbers and hint, and works on afterwards", async () => {
    const values = gaussianFloats(64 * 256, 7);
    values[10 * 256 + 20] = Number.POSITIVE_INFINITY;
    const bad = await writeModel(folder.path("bad.safetensors"), [floatPart("bad.weight", [64, 256], values)]);
    const config = plain;
    const failures = await Promise.allSettled([
      aq.quantize({ input: bad, output: folder.path("bad.parquet"), config }),
      aq.quantize({ input: folder.path("absent.safetensors"), output: folder.path("absent.parquet"), config }),
      aq.quantize({ input: small, output: folder.path("typo.parquet"), config: { bit_widht: 4 } }),
      aq.quantize({ input: small, output: folder.path("fine.parquet"), config }),
    ]);
    expect(failures.map(({ status }) => status)).toEqual(["rejected", "rejected", "rejected", "fulfilled"]);
    const reasons = failures.map((failure) => (failure as PromiseRejectedResult).reason);
    for (const reason of reasons.slice(0, 3)) expect(reason).toBeInstanceOf(ArrowQuantError);
    expect(reasons[0]).toMatchObject({ code: "E_NONFINITE", details: { tensor: "bad.weight", row: 10, col: 20 } });
    expect(reasons[0].hint).toContain("keep");
    expect(reasons[1]).toMatchObject({ code: "E_NOT_FOUND", exitCode: 3 });
    expect(reasons[2]).toMatchObject({ code: "E_CONFIG", exitCode: 2 });
    expect(leftovers(folder.path())).toEqual([]);
    const rows = await aq.quantize({
      input: bad,
      output: folder.path("bad.parquet"),
      config: { ...config, on_nonfinite: "keep" },
    });
    expect(rows.summary.kept).toBe(1);
  });

  it("carries a pipeline: quantize, validate, requantize what failed", async () => {
    const output = folder.path("pipeline.parquet");
    const first = { bit_width: 2, min_accuracy: 0 };
    await aq.quantize({ input: unet, output, config: first });
    const judged = await aq.validate({ original: unet, quantized: output, minAccuracy: 0.95 });
    const failed = judged.layers.filter(({ passed }) => !passed).map(({ name }) => name);
    expect(judged.passed).toBe(false);
    expect(failed.length).toBeGreaterThan(0);
    expect(failed.length).toBeLessThan(judged.summary.tensors);
    const pattern = (name: string) => `^${name.replaceAll(".", "\\.")}$`;
    const layer_bit_widths = Object.fromEntries(failed.map((name) => [pattern(name), 8]));
    await aq.quantize({ input: unet, output, config: { ...first, layer_bit_widths } });
    const again = await aq.validate({ original: unet, quantized: output, minAccuracy: 0.95 });
    expect(again.passed).toBe(true);
  });

  it("validates one model while it quantizes another, and takes synchronous work in between", async () => {
    const standing = folder.path("standing.parquet");
    await aq.quantize({ input: small, output: standing, config: plain });
    const weights = gaussianFloats(64 * 256, 3);
    const options = { shape: [64, 256], bits: 4, groupSize: 64, method: "mse" } as const;
    const before = quantizeTensor(weights, options);
    const working = Promise.all([
      aq.quantize({ input: unet, output: folder.path("meanwhile.parquet") }),
      ...Array.from({ length: 8 }, () => aq.validate({ original: small, quantized: standing })),
    ]);
    for (let turn = 0; turn < 50; turn++) {
      expect(quantizeTensor(weights, options).data).toEqual(before.data);
      await Promise.resolve();
    }
    const [quantized, ...validated] = await working;
    expect(quantized.summary.quantized).toBe(61);
    expect(validated.every(({ passed }) => passed)).toBe(true);
    const rebuilt = rebuildTensor(before);
    expect(rebuilt.length).toBe(weights.length);
    expect(Math.max(...rebuilt.map((value, index) => Math.abs(value - (weights[index] as number))))).toBeLessThan(0.02);
  });

  it("refuses to work once it is disposed of, and ends what was under way", async () => {
    const gone = new ArrowQuant({ threads: 1 });
    const output = folder.path("gone.parquet");
    const working = gone.quantize({ input: unet, output });
    const seen = working.then(
      () => "done",
      (thrown) => thrown.code,
    );
    await gone.dispose();
    expect(await seen).toBe("E_USAGE");
    expect(existsSync(output)).toBe(false);
    expect(leftovers(folder.path())).toEqual([]);
    await expect(gone.validate({ original: unet, quantized: output })).rejects.toMatchObject({ code: "E_USAGE" });
    await gone.dispose();
  });
});
