/** Models written as GGUF, read back by our reader and compared with what they were written from. */
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { Session } from "../../dist/engine/session.js";
import { blockElements, GGUF_OUTPUT_TYPES, GGUF_TYPE_NAMES } from "../../dist/formats/gguf/output-type.js";
import { openGguf } from "../../dist/formats/gguf/reader.js";
import { exportGguf } from "../../dist/quantize/gguf/export.js";
import type { GgufJob, GgufLayerReport } from "../../dist/quantize/gguf/job.js";
import { planGguf, quantizeGguf } from "../../dist/quantize/gguf/quantize.js";
import { quantizeModel } from "../../dist/quantize/quantize.js";
import type { Dtype } from "../../dist/tensor/dtype.js";
import { validateModel } from "../../dist/validate/validate.js";
import { openComponent, readFloats } from "../formats/gguf/samples.js";
import type { Part } from "../hostile/safetensors/build.js";
import { floatPart, gaussianFloats, gaussianPart, useFolder, writeModel } from "./source.js";

const models = {
  dit: fileURLToPath(new URL("../models/dit-mnist", import.meta.url)),
  unet: fileURLToPath(new URL("../models/unet-mnist", import.meta.url)),
};
const folder = useFolder();
const session = new Session({ threads: 2 });
afterAll(() => session.dispose());

/** What a tensor became. */
function find(layers: readonly GgufLayerReport[], name: string): GgufLayerReport {
  return layers.find((layer) => layer.name === name) as GgufLayerReport;
}

/** Quantizes, and proves the file by validating it: the figures must be those of the report. */
async function roundTrip(job: GgufJob) {
  const result = await quantizeGguf({ force: true, ...job }, session);
  const validation = await validateModel({ original: job.input, quantized: result.output, minAccuracy: 0 }, session);
  expect(validation).toMatchObject({ passed: true, missing: [], extra: [], misshapen: [] });
  const figures = (layers: readonly { name: string; quantType: string; metrics: unknown }[]) =>
    new Map(layers.map(({ name, quantType, metrics }) => [name, { quantType, isMeasured: metrics !== null }]));
  expect(figures(validation.layers)).toEqual(figures(result.layers));
  for (const { name, metrics } of validation.layers) {
    const reported = find(result.layers, name).metrics;
    if (metrics === null || reported === null) continue;
    // The sums are over the same weights, in runs that may differ.
    expect(metrics.errorNorm2).toBeCloseTo(reported.errorNorm2, 9);
    expect(metrics.maxAbsError).toBe(reported.maxAbsError);
  }
  return result;
}

describe("a real model", () => {
  it.each([
    ["dit", "q4_k", 4.5, 0.99],
    ["dit", "q8_0", 8.5, 0.9999],
    ["unet", "q2_k", 2.7, 0.9],
    ["unet", "q5_1", 6, 0.998],
    ["dit", "f16", null, 0.99999],
    ["unet", "bf16", null, 0.99999],
    ["unet", "f16", null, 0.99999],
  ] as const)("%s as %s holds what its report says", async (model, type, bits, accuracy) => {
    const output = folder.path(`${model}-${type}.gguf`);
    const { summary, layers, files, plan } = await roundTrip({ input: models[model], output, type, comfy: true });
    expect(files).toEqual([output]);
    expect(summary.bytesOut).toBe(statSync(output).size);
    expect(summary.metrics?.cosineSimilarity).toBeGreaterThan(accuracy);
    if (bits === null) expect(summary.bitsPerWeight).toBeNull();
    else expect(summary.bitsPerWeight).toBeCloseTo(bits, 0);
    expect(plan.architecture).toBe(model === "unet" ? "sd1" : null);
    // Norms, biases and what loaders read as plain floats.
    for (const { shape, quantType } of layers) if (shape.length < 2) expect(quantType).toBe("f32");
  });

  it("is the same file whatever the threads, the memory and the slabs", async () => {
    const job = { input: models.unet, type: "q3_k", comfy: true } as const;
    await quantizeGguf({ ...job, output: folder.path("same-a.gguf") }, session);
    await using other = new Session({ threads: 1, slabBytes: 64 * 1024, memoryBytes: 300 * 1024 ** 2 });
    await quantizeGguf({ ...job, output: folder.path("same-b.gguf") }, other);
    expect(readFileSync(folder.path("same-a.gguf")).equals(readFileSync(folder.path("same-b.gguf")))).toBe(true);
  });

  it("in pieces is what it is in one, none of them above the limit", async () => {
    const maxFileBytes = 1_000_000;
    const job = { input: models.unet, type: "f16" } as const;
    const whole = await quantizeGguf({ ...job, output: folder.path("whole.gguf") }, session);
    const { output, files } = await roundTrip({ ...job, output: folder.path("cut.gguf"), maxFileBytes });
    expect(files.length).toBeGreaterThan(5);
    expect(output).toBe(folder.path(`cut-00001-of-0000${files.length}.gguf`));
    expect(existsSync(folder.path("cut.gguf"))).toBe(false);
    for (const file of files) expect(statSync(file).size).toBeLessThanOrEqual(maxFileBytes);
    expect(await contentsOf(output)).toEqual(await contentsOf(whole.output));
  });
});

/** Float bits of every tensor. */
async function contentsOf(path: string) {
  const component = await openComponent(path);
  return component.tensors.map((tensor) => ({
    name: tensor.name,
    dtype: tensor.dtype,
    shape: tensor.shape,
    bits: Buffer.from(readFloats("simd", component, tensor).buffer).toString("base64"),
  }));
}

const SHAPES: readonly (readonly [name: string, shape: readonly number[]])[] = [
  ["linear.weight", [40, 512]],
  ["ragged.weight", [37, 96]],
  ["odd.weight", [33, 35]],
  ["one.weight", [1, 2048]],
  ["conv.weight", [64, 32, 3, 3]],
  ["conv1d.weight", [16, 48, 5]],
  ["pointwise.weight", [64, 48, 1, 1]],
  ["video.weight", [16, 4, 2, 2, 8]],
  ["norm.weight", [640]],
  ["scalar", []],
  ["empty.weight", [0, 256]],
  ["small.weight", [4, 256]],
  ["table", [8, 256]],
  [`${"long.".repeat(24)}weight`, [8, 256]],
];

describe("any shape", () => {
  it.each(GGUF_TYPE_NAMES)("as %s keeps its name and shape, in a type that its rows allow", async (type) => {
    const parts: Part[] = SHAPES.map(([name, shape], index) => gaussianPart(name, shape, index));
    parts.push({ name: "steps", dtype: "I64", shape: [3], bytes: new Uint8Array(24).fill(7) });
    const input = await writeModel(folder.path("shapes.safetensors"), parts);
    const tensorTypes = [{ pattern: "weight$", type }];
    const output = folder.path(`shapes-${type}.gguf`);
    const { layers, warnings } = await roundTrip({ input, output, type, comfy: true, tensorTypes });
    expect(warnings.join()).toContain("1 tensors have no elements");
    const { tensors } = await openGguf(output);
    expect(tensors.map(({ name, shape }) => [name, shape])).toEqual([...SHAPES, ["steps", [3]]]);
    const { dtype } = GGUF_OUTPUT_TYPES[type];
    for (const { name, shape, quantType, vetoed } of layers) {
      if (shape.length === 5 || shape.length < 2 || !name.endsWith("weight")) continue;
      const fits = (shape.at(-1) as number) % blockElements(dtype) === 0;
      if (shape[0] !== 0) expect(quantType === type, name).toBe(fits);
      expect(vetoed, name).toBe(!fits || shape[0] === 0);
    }
    expect(find(layers, "video.weight").quantType).toBe("f32");
    expect(find(layers, "table").quantType).toBe("f32");
    expect(find(layers, "steps").quantType).toBe("i64");
    expect(find(layers, "ragged.weight").reason).toMatch(
      type.endsWith("_k") ? /no whole blocks of 256/ : /tensor-type/,
    );
  });

  it("random shapes and types come back", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 0, maxLength: 4 }), {
          minLength: 1,
          maxLength: 5,
        }),
        fc.constantFrom(...GGUF_TYPE_NAMES),
        fc.integer({ min: 0, max: 1000 }),
        async (shapes, type, seed) => {
          const parts = shapes.map((shape, index) => gaussianPart(`layer${index}.weight`, shape, seed + index));
          const input = await writeModel(folder.path("random.safetensors"), parts);
          const output = folder.path("random.gguf");
          const job = { input, output, type, tensorTypes: [{ pattern: "layer", type }] };
          const { layers } = await roundTrip(job);
          expect(layers.map(({ shape }) => shape)).toEqual(shapes);
        },
      ),
      { numRuns: 25 },
    );
  });
});

describe("the type of a tensor", () => {
  const parts = [
    gaussianPart("model.diffusion_model.double_blocks.0.img_attn.proj.weight", [256, 256], 1),
    gaussianPart("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", [768, 256], 2),
    gaussianPart("model.diffusion_model.img_in.weight", [256, 64], 3),
    gaussianPart("model.diffusion_model.double_blocks.0.img_attn.norm.query_norm.scale", [64], 4),
  ];

  it("is settled by the first rule that matches, before the keep table", async () => {
    const input = await writeModel(folder.path("flux.safetensors"), parts);
    const tensorTypes = [
      { pattern: "qkv", type: "q6_k" },
      { pattern: "attn|norm", type: "q5_0" },
    ] as const;
    const plan = await planGguf({ input, type: "q4_k", tensorTypes }, session);
    expect(plan).toMatchObject({ architecture: "flux", prefix: "model.diffusion_model." });
    expect(plan.tensors.map(({ name, dtype, vetoed }) => [name, dtype, vetoed])).toEqual([
      ["double_blocks.0.img_attn.proj.weight", "Q5_0", false],
      ["double_blocks.0.img_attn.qkv.weight", "Q6_K", false],
      ["img_in.weight", "F32", false],
      ["double_blocks.0.img_attn.norm.query_norm.scale", "F32", true],
    ]);
    expect(plan.tensors[2]?.reason).toContain("keep");
    expect(plan.tensors[3]?.reason).toContain('--tensor-type "attn|norm": q5_0 cannot be had');
    const asked = await planGguf({ input, type: "q4_k", tensorTypes: [{ pattern: "img_in", type: "q8_0" }] }, session);
    expect(asked.tensors[2]?.dtype).toBe("Q8_0");
    // The prefix is off the names in the file, and validation finds the source's names again.
    await roundTrip({ input, output: folder.path("flux.gguf"), type: "q4_0" });
  });

  it.each([
    ["E_PATTERN", { tensorTypes: [{ pattern: "nowhere", type: "q8_0" }] }, /"nowhere" matches none of 4 tensors/],
    ["E_PATTERN", { tensorTypes: [{ pattern: "(", type: "q8_0" }] }, /regular expression/],
    ["E_CONFLICT", { config: { bit_width: 4 } }, /q4_k contradicts bit_width/],
    ["E_CONFLICT", { config: { group_size: 64, method: "rtn" } }, /group_size, method/],
    ["E_CONFLICT", { comfy: true, maxFileBytes: 1000 }, /one file/],
  ] as const)("cannot be settled by what contradicts itself: %s %o", async (code, more, message) => {
    const input = await writeModel(folder.path("flux.safetensors"), parts);
    const job = { input, output: folder.path("refused.gguf"), type: "q4_k", ...more } as GgufJob;
    await expect(quantizeGguf(job, session)).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
    expect(existsSync(job.output)).toBe(false);
  });

  it("follows the source where that is quantized: copied as it is, refused where it would be quantized again", async () => {
    const input = folder.path("once.gguf");
    const from = await writeModel(folder.path("one.safetensors"), [gaussianPart("a.weight", [64, 256], 1)]);
    await quantizeGguf({ input: from, output: input, type: "q4_k" }, session);
    const output = folder.path("twice.gguf");
    const { layers } = await quantizeGguf({ input, output, type: "q4_k" }, session);
    expect(layers[0]).toMatchObject({ quantType: "q4_k", metrics: null });
    expect(await contentsOf(output)).toEqual(await contentsOf(input));
    const again = { input, output: folder.path("again.gguf"), type: "q8_0" } as const;
    await expect(quantizeGguf(again, session)).rejects.toMatchObject({ code: "E_PREQUANTIZED" });
    const allowed = await quantizeGguf({ ...again, config: { allow_requantize: true } }, session);
    expect(allowed.warnings.join()).toContain("quantized already (1 of Q4_K)");
  });

  it("is float32 where a weight is not finite and such tensors are kept, and an error names it otherwise", async () => {
    const bad = gaussianFloats(64 * 256, 1);
    bad[3 * 256 + 7] = Number.NaN;
    const large = gaussianFloats(64 * 256, 2);
    large[256] = 70_000;
    const input = await writeModel(folder.path("nan.safetensors"), [
      floatPart("a.weight", [64, 256], large),
      floatPart("b.weight", [64, 256], bad),
    ]);
    const output = folder.path("nan.gguf");
    for (const [tensor, row, col] of [
      ["a.weight", 1, 0],
      ["b.weight", 3, 7],
    ] as const) {
      const tensorTypes = [{ pattern: tensor, type: "q4_k" }] as const;
      await expect(quantizeGguf({ input, output, type: "f32", tensorTypes }, session)).rejects.toMatchObject({
        code: "E_NONFINITE",
        details: { tensor, row, col },
      });
    }
    await expect(quantizeGguf({ input, output, type: "f16" }, session)).rejects.toMatchObject({
      code: "E_NONFINITE",
      message: expect.stringContaining("70000 at row 1, column 0, beyond f16"),
    });
    expect(existsSync(output)).toBe(false);
    for (const type of ["f16", "q4_k"] as const) {
      const { layers } = await roundTrip({ input, output, type, config: { on_nonfinite: "keep" } });
      expect(layers.map(({ quantType }) => quantType)).toEqual(["f32", "f32"]);
      expect(find(layers, "b.weight").reason).toContain("row 3, column 7 is NaN");
    }
  });
});

describe("what loaders do not take", () => {
  const build = (name: string, shape: readonly number[], dtype: Dtype = "F32"): Promise<string> =>
    writeModel(folder.path("refused.safetensors"), [
      {
        ...gaussianPart(name, shape, 1),
        dtype,
        bytes: new Uint8Array((shape.reduce((a, b) => a * b, 1) * bitsOf(dtype)) / 8),
      },
    ]);
  const bitsOf = (dtype: Dtype) => (dtype === "U8" ? 8 : 32);

  it.each([
    ["E_LIMIT", "x".repeat(65), [8, 64], undefined, /names of 64 bytes.*\(65\)/],
    ["E_LIMIT", "ü".repeat(64), [8, 64], true, /names of 127 bytes.*\(128\)/],
    ["E_SHAPE", "video.weight", [2, 2, 2, 2, 2], undefined, /5 dimensions, ggml has 4/],
    ["E_SHAPE", "six.weight", [2, 2, 2, 2, 2, 2], true, /6 dimensions/],
  ] as const)("is refused: %s", async (code, name, shape, comfy, message) => {
    const input = await build(name, shape);
    const output = folder.path("refused.gguf");
    await expect(quantizeGguf({ input, output, type: "q8_0", comfy }, session)).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
    expect(existsSync(output)).toBe(false);
  });

  it("types that GGUF has not, a dialect that ComfyUI-GGUF does not load, another ending", async () => {
    const job = { output: folder.path("refused.gguf"), type: "q8_0" } as const;
    await expect(quantizeGguf({ ...job, input: await build("ids", [8], "U8") }, session)).rejects.toMatchObject({
      code: "E_DTYPE",
    });
    const names = ["transformer_blocks.0.attn.norm_added_k.weight", "single_transformer_blocks.0.attn.to_q.weight"];
    const flux = await writeModel(
      folder.path("diffusers.safetensors"),
      names.map((name) => gaussianPart(name, [64, 64], 1)),
    );
    await expect(quantizeGguf({ ...job, input: flux, comfy: true }, session)).rejects.toMatchObject({
      code: "E_CONFLICT",
      message: expect.stringContaining("does not load flux under the names of diffusers"),
    });
    const { warnings } = await quantizeGguf({ ...job, input: flux }, session);
    expect(warnings.join()).toContain("ComfyUI-GGUF does not load flux");
    await expect(quantizeGguf({ ...job, input: flux, output: folder.path("x.bin") }, session)).rejects.toMatchObject({
      code: "E_USAGE",
    });
  });
});

describe("a native file as GGUF", () => {
  it("needs leave, keeps what was kept, and tells both errors", async () => {
    const input = folder.path("native.parquet");
    await quantizeModel({ input: models.unet, output: input }, session);
    const output = folder.path("native.gguf");
    const job = { input, output, type: "q8_0", comfy: true, allowRequantize: false } as const;
    await expect(exportGguf(job, session)).rejects.toMatchObject({
      code: "E_PREQUANTIZED",
      hint: expect.stringContaining("--allow-requantize"),
    });
    expect(existsSync(output)).toBe(false);
    const { nativeMetrics, summary, warnings, layers } = await exportGguf({ ...job, allowRequantize: true }, session);
    expect(warnings.at(-1)).toMatch(/^requantized: a relative RMSE of 0\.\d+ % .*, on top of its own of \d/);
    // Eight bits add little to what four have cost.
    expect(summary.metrics?.relativeRmse).toBeLessThan((nativeMetrics?.relativeRmse ?? 0) / 5);
    expect(find(layers, "conv_in.weight")).toMatchObject({ quantType: "f32", metrics: null });
    const validation = await validateModel({ original: models.unet, quantized: output }, session);
    expect(validation.passed).toBe(true);
    expect(validation.summary.metrics?.relativeRmse).toBeCloseTo(nativeMetrics?.relativeRmse ?? 0, 2);
  });
});

it("leaves nothing behind where it is cancelled", async () => {
  const cancel = new AbortController();
  const output = folder.path("cancelled", "x.gguf");
  mkdirSync(folder.path("cancelled"));
  const job = { input: models.unet, output, type: "q2_k", comfy: true, signal: cancel.signal } as const;
  const onProgress = () => cancel.abort(new Error("enough"));
  await expect(quantizeGguf({ ...job, onProgress }, session)).rejects.toThrow("enough");
  expect(readdirSync(folder.path("cancelled"))).toEqual([]);
});
