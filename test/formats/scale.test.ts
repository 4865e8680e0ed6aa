import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { openModel } from "../../dist/formats/open.js";
import { readSourceScales } from "../../dist/formats/scale.js";
import type { Component, Model } from "../../dist/tensor/info.js";
import { buildSafetensors, float8Part, float32Part, type Part } from "../hostile/safetensors/build.ts";

const scratch = mkdtempSync(join(tmpdir(), "arrowquant-scale-"));
afterAll(() => rmSync(scratch, { recursive: true }));
let count = 0;

async function open(parts: readonly Part[], metadata?: Record<string, string>): Promise<Model> {
  count += 1;
  const path = join(scratch, `${count}.safetensors`);
  writeFileSync(path, buildSafetensors(parts, metadata));
  return openModel(path);
}

function component(model: Model): Component {
  return model.components[0] as Component;
}

function part(name: string, dtype: string, shape: readonly number[], bytes: readonly number[]): Part {
  return { name, dtype, shape, bytes: Uint8Array.from(bytes) };
}

/** Bytes of 16-bit words, little-endian. */
function words(...values: readonly number[]): number[] {
  return values.flatMap((value) => [value & 0xff, value >> 8]);
}

function marker(name: string, settings: unknown): Part {
  const bytes = Buffer.from(JSON.stringify(settings));
  return part(name, "U8", [bytes.length], [...bytes]);
}

async function scalesOf(model: Model, name: string): Promise<number[]> {
  const tensor = component(model).tensors.find((one) => one.name === name);
  if (tensor?.sourceScale == null) throw new Error(`${name} has no scale`);
  return [...(await readSourceScales(component(model).files, tensor.sourceScale))];
}

describe("ComfyUI's fp8 scaled files", () => {
  it("lose their scales, input scales and marker to the weights", async () => {
    const model = await open([
      part("model.diffusion_model.scaled_fp8", "F8_E4M3", [0], []),
      float8Part("model.diffusion_model.a.weight", [3, 2]),
      float32Part("model.diffusion_model.a.scale_weight", [], 0.25),
      float32Part("model.diffusion_model.a.scale_input", [], 2),
      float32Part("model.diffusion_model.a.bias", [3], 1, 2, 3),
      float8Part("model.diffusion_model.b.weight", [2, 2], "F8_E5M2"),
      float32Part("model.diffusion_model.b.scale_weight", [1], 3),
      float32Part("norm.scale", [2], 1, 1),
    ]);
    expect(component(model).tensors.map(({ name, sourceScale }) => [name, sourceScale?.per ?? null])).toEqual([
      ["model.diffusion_model.a.weight", "tensor"],
      ["model.diffusion_model.a.bias", null],
      ["model.diffusion_model.b.weight", "tensor"],
      ["norm.scale", null],
    ]);
    expect(await scalesOf(model, "model.diffusion_model.a.weight")).toEqual([0.25]);
    expect(await scalesOf(model, "model.diffusion_model.b.weight")).toEqual([3]);
    expect(model.warnings).toEqual([
      expect.stringMatching(/^1 input scales.*"model\.diffusion_model\.a\.scale_input"/),
    ]);
  });

  it("may carry a scale of 1 for layers left in full precision, which changes nothing", async () => {
    const model = await open([
      float8Part("a.weight", [2, 2]),
      float32Part("a.scale_weight", [], 0.5),
      float32Part("head.weight", [1, 2], 1, 2),
      float32Part("head.scale_weight", [1], 1),
      float32Part("head.scale_input", [1], 1),
    ]);
    expect(component(model).tensors.map(({ name }) => name)).toEqual(["a.weight", "head.weight"]);
    expect(model.warnings).toContainEqual(expect.stringContaining('"head.scale_weight" of the F32 "head.weight" is 1'));
  });

  it("of the newer kind are read by their markers", async () => {
    const model = await open(
      [
        float8Part("a.weight", [2, 2]),
        float32Part("a.weight_scale", [], 0.5),
        float32Part("a.input_scale", [], 1),
        marker("a.comfy_quant", { format: "float8_e4m3fn", full_precision_matrix_mult: true }),
      ],
      {
        _quantization_metadata: JSON.stringify({
          format_version: "1.0",
          layers: { a: { format: "float8_e4m3fn" } },
        }),
      },
    );
    expect(component(model).tensors.map(({ name }) => name)).toEqual(["a.weight"]);
    expect(await scalesOf(model, "a.weight")).toEqual([0.5]);
  });
});

describe("scales per row", () => {
  it.each([
    ["[o]", [3]],
    ["[o, 1]", [3, 1]],
    ["[o, 1, 1, 1]", [3, 1, 1, 1]],
  ])("of shape %s", async (_, shape) => {
    const model = await open([float8Part("a.weight", [3, 4]), float32Part("a.weight_scale", shape, 1, 2, 4)]);
    expect(component(model).tensors).toMatchObject([{ name: "a.weight", sourceScale: { per: "row", dtype: "F32" } }]);
    expect(await scalesOf(model, "a.weight")).toEqual([1, 2, 4]);
  });

  it("are read from F32, F16, BF16 and F64", async () => {
    const sizes = [2, 1];
    // F16: 1.5 and −2^−24, the smallest there is; BF16: 1.5 and −2^−7; F64: 0.1, to be rounded, and 2.
    const f16 = await open([
      float8Part("w.weight", [2, 2]),
      part("w.weight_scale", "F16", sizes, words(0x3e00, 0x8001)),
    ]);
    const bf16 = await open([
      float8Part("w.weight", [2, 2]),
      part("w.weight_scale", "BF16", sizes, words(0x3fc0, 0xbc00)),
    ]);
    const f64 = await open([
      float8Part("w.weight", [2, 2]),
      {
        name: "w.weight_scale",
        dtype: "F64",
        shape: sizes,
        bytes: new Uint8Array(new Float64Array([0.1, 2]).buffer),
      },
    ]);
    expect(await scalesOf(f16, "w.weight")).toEqual([1.5, -(2 ** -24)]);
    expect(await scalesOf(bf16, "w.weight")).toEqual([1.5, -0.0078125]);
    expect(await scalesOf(f64, "w.weight")).toEqual([Math.fround(0.1), 2]);
  });

  it("that are not finite are an error that says where", async () => {
    const model = await open([float8Part("a.weight", [2, 1]), float32Part("a.weight_scale", [2], 1, NaN)]);
    await expect(scalesOf(model, "a.weight")).rejects.toMatchObject({
      code: "E_NONFINITE",
      message: expect.stringContaining('"a.weight_scale", value 1'),
    });
  });

  it("may lie in another file than their weight", async () => {
    const folder = mkdtempSync(join(scratch, "sharded-"));
    writeFileSync(join(folder, "1.safetensors"), buildSafetensors([float8Part("a.weight", [2, 1])]));
    writeFileSync(join(folder, "2.safetensors"), buildSafetensors([float32Part("a.weight_scale", [2], 3, 5)]));
    const weight_map = { "a.weight": "1.safetensors", "a.weight_scale": "2.safetensors" };
    writeFileSync(join(folder, "x.safetensors.index.json"), JSON.stringify({ weight_map }));
    const model = await openModel(folder);
    expect(component(model).tensors).toMatchObject([
      { name: "a.weight", location: { file: 0 }, sourceScale: { location: { file: 1 } } },
    ]);
    expect(await scalesOf(model, "a.weight")).toEqual([3, 5]);
  });
});

describe("float8 without scales", () => {
  it("is a plain cast", async () => {
    const model = await open([
      float8Part("a.weight", [2, 2]),
      float32Part("a.bias", [2], 0, 0),
      float32Part("b.scale", [1], 2),
    ]);
    expect(component(model).tensors.map(({ sourceScale }) => sourceScale)).toEqual([null, null, null]);
    expect(model.warnings).toEqual([]);
  });
});

const weight = float8Part("a.weight", [4, 6]);
const scale = float32Part("a.weight_scale", [], 1);

describe("refused, never misread", () => {
  it.each<[string, readonly Part[], RegExp]>([
    ["a scale without its weight", [float32Part("a.weight_scale", [], 1)], /"a\.weight_scale".*no "a\.weight"/],
    ["a ComfyUI scale without its weight", [float32Part("a.scale_weight", [], 1)], /no "a\.weight"/],
    [
      "a scale of a weight in full precision",
      [float32Part("a.weight", [1], 1), float32Part("a.scale_weight", [], 2)],
      /is F32, not float8/,
    ],
    [
      "int8 with a scale",
      [part("a.weight", "I8", [1, 1], [1]), float32Part("a.weight_scale", [1], 1)],
      /is I8, not float8/,
    ],
    ["float8 in U8", [part("a.weight", "U8", [1, 1], [1]), scale], /is U8, not float8/],
    ["two scales", [weight, scale, float32Part("a.scale_weight", [], 1)], /has two scales/],
    ["a scale per block", [weight, float32Part("a.weight_scale", [2, 3], 1, 1, 1, 1, 1, 1)], /shape \[2,3\].*\[4,6\]/],
    ["a scale per block of rows", [weight, float32Part("a.weight_scale", [2], 1, 1)], /shape \[2\]/],
    ["a scale per column", [weight, float32Part("a.weight_scale", [1, 6], 1, 1, 1, 1, 1, 1)], /shape \[1,6\]/],
    [
      "a four-dimensional scale",
      [weight, float32Part("a.weight_scale", [1, 4, 1, 1], 1, 1, 1, 1)],
      /shape \[1,4,1,1\]/,
    ],
    ["an exponent as scale", [weight, part("a.weight_scale", "U8", [], [127])], /scale of type U8/],
    ["weight_scale_inv", [weight, float32Part("a.weight_scale_inv", [1, 1], 1)], /"a\.weight_scale_inv".*per block/],
    ["weight_scale_2", [weight, scale, float32Part("a.weight_scale_2", [], 1)], /"a\.weight_scale_2".*NVFP4/],
    [
      "a zero point",
      [weight, scale, part("a.weight_zero_point", "I8", [1], [1])],
      /"a\.weight_zero_point": .*float8 "a\.weight"/,
    ],
    [
      "a smoothing scale",
      [weight, scale, float32Part("a.pre_quant_scale", [6], 1, 1, 1, 1, 1, 1)],
      /"a\.pre_quant_scale"/,
    ],
    ["a hybrid's scalar", [weight, float32Part("a.weight_scalar", [], 1)], /"a\.weight_scalar"/],
    [
      "a scale of a fused tensor",
      [float8Part("experts", [2, 2]), float32Part("experts_scale", [], 1)],
      /"experts_scale".*"experts"/,
    ],
    [
      "an input scale alone",
      [weight, float32Part("a.input_scale", [], 1)],
      /"a\.input_scale".*no scale of "a\.weight"/,
    ],
    [
      "a marker without a scale",
      [weight, marker("a.comfy_quant", { format: "float8_e4m3fn" })],
      /"a\.weight" has no scale/,
    ],
    ["a marker of another format", [weight, scale, marker("a.comfy_quant", { format: "mxfp8" })], /format, "mxfp8"/],
    [
      "a marker of the other float8",
      [weight, scale, marker("a.comfy_quant", { format: "float8_e5m2" })],
      /says float8_e5m2.*F8_E4M3/,
    ],
    [
      "a rotated weight",
      [weight, scale, marker("a.comfy_quant", { format: "float8_e4m3fn", convrot: true })],
      /"convrot" is not known/,
    ],
    ["a marker without format", [weight, scale, marker("a.comfy_quant", {})], /its format, missing/],
    ["a marker that is no marker", [weight, scale, float32Part("a.comfy_quant", [1], 1)], /no marker/],
  ])("%s", async (_, parts, says) => {
    await expect(open(parts)).rejects.toMatchObject({
      code: "E_PREQUANTIZED",
      message: expect.stringMatching(says),
    });
  });

  it.each([
    ["a.qweight", "I32", "GPTQ"],
    ["a.qzeros", "I32", "GPTQ"],
    ["a.weight_packed", "I32", "compressed-tensors"],
    ["a.weight.absmax", "U8", "bitsandbytes"],
    ["a.weight.quant_map", "F32", "bitsandbytes"],
    ["a.weight.quant_state.bitsandbytes__nf4", "U8", "bitsandbytes"],
    ["a.SCB", "F32", "LLM.int8"],
    ["a.W_q", "U8", "HQQ"],
    ["a.weight._data", "I8", "quanto"],
    ["a._weight_qdata", "F8_E4M3", "torchao"],
    ["a.weight:qdata", "I8", "torchao"],
    ["a.weight_global_scale", "F32", "NVFP4"],
  ])("%s by its name", async (name, dtype, scheme) => {
    const bytes = dtype === "I32" || dtype === "F32" ? [0, 0, 0, 0] : [0];
    await expect(open([part(name, dtype, [1], bytes)])).rejects.toMatchObject({
      code: "E_PREQUANTIZED",
      message: expect.stringContaining(scheme),
      details: { tensor: name },
    });
  });

  it.each([
    ["F4", [2]],
    ["F8_E8M0", [1]],
    ["F6_E2M3", [4]],
    ["F6_E3M2", [4]],
  ])("type %s", async (dtype, shape) => {
    const bytes = dtype.startsWith("F6") ? [0, 0, 0] : [0];
    await expect(open([part("a.weight", dtype, shape, bytes)])).rejects.toMatchObject({
      code: "E_PREQUANTIZED",
      message: expect.stringContaining(dtype),
    });
  });

  it("a file whose metadata names another format", async () => {
    const metadata = { _quantization_metadata: JSON.stringify({ layers: { a: { format: "nvfp4" } } }) };
    await expect(open([weight], metadata)).rejects.toMatchObject({
      code: "E_PREQUANTIZED",
      message: expect.stringContaining('"nvfp4"'),
    });
  });
});
