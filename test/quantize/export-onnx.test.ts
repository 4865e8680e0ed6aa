/** A native file as ONNX: the weights that the written parts stand for, and what the graph computes with them. */
import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

import { Session } from "../../dist/engine/session.js";
import type { NodeProto } from "../../dist/formats/onnx/onnx-pb.js";
import { type OnnxFile, readOnnx } from "../../dist/formats/onnx/read.js";
import { openNative } from "../../dist/formats/parquet/reader.js";
import { openSafetensors } from "../../dist/formats/safetensors/reader.js";
import { ArrowQuant, type ConfigSettings } from "../../dist/index.js";
import { exportNative } from "../../dist/quantize/export.js";
import { exportOnnx, type OnnxExportResult } from "../../dist/quantize/export-onnx.js";
import { MAX_FLOAT_NOISE } from "../../dist/quantize/onnx-check.js";
import { SHARED_MODELS } from "./methods/vectors.js";

let folder: string;
let session: Session;
let aq: ArrowQuant;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "arrowquant-onnx-"));
  session = new Session({ threads: 2 });
  aq = new ArrowQuant();
});

afterAll(async () => {
  await aq.dispose();
  await session[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

async function quantizeTo(name: string, model: string, config: ConfigSettings): Promise<string> {
  const output = join(folder, name);
  await aq.quantize({ input: join(SHARED_MODELS, model), output, force: true, config: { min_accuracy: 0, ...config } });
  return output;
}

/** A tensor's elements as numbers. */
async function elements(file: OnnxFile, name: string): Promise<Float32Array | Uint8Array> {
  const tensor = file.model.graph?.initializer.find((each) => each.name === name);
  const place = file.initializers.get(name)?.place;
  let bytes = tensor?.rawData ?? new Uint8Array(0);
  if (place) {
    bytes = (await readFile(place.path)).subarray(place.byteOffset, place.byteOffset + place.byteLength);
  } else if (tensor?.externalData.length) {
    // UINT4, which safetensors has no name for: located by readOnnx, but not listed.
    const entry = (key: string) => tensor.externalData.find((each) => each.key === key)?.value ?? "0";
    const from = Number(entry("offset"));
    bytes = (await readFile(file.path)).subarray(from, from + Number(entry("length")));
  }
  if (tensor?.dataType === 21) {
    const count = tensor.dims.reduce((product, size) => product * Number(size), 1);
    return Uint8Array.from({ length: count }, (_, i) => ((bytes[i >> 1] as number) >> (4 * (i & 1))) & 15);
  }
  return tensor?.dataType === 1 ? new Float32Array(Uint8Array.from(bytes).buffer) : bytes;
}

function attribute(node: NodeProto, name: string): number {
  return Number(node.attribute.find((each) => each.name === name)?.i);
}

/**
 * [N, K] of a MatMulNBits node by its documentation: block b of row n lies in B[n, b], the first code in the lowest
 * bits; packed zero points of a row begin on a byte.
 */
async function weightOfMatMulNBits(file: OnnxFile, node: NodeProto): Promise<Float32Array> {
  const [K, N, bits, blockSize] = ["K", "N", "bits", "block_size"].map((name) => attribute(node, name)) as [
    number,
    number,
    number,
    number,
  ];
  const [codes, scales, zeroPoints] = (await Promise.all(
    node.input.slice(1, 4).map((name) => elements(file, name)),
  )) as [Uint8Array, Float32Array, Uint8Array | Float32Array];
  const blocks = Math.ceil(K / blockSize);
  const perByte = 8 / bits;
  const read = (bytes: Uint8Array, at: number, index: number) =>
    ((bytes[at + Math.floor(index / perByte)] as number) >> (bits * (index % perByte))) & (2 ** bits - 1);
  const weight = new Float32Array(N * K);
  for (let n = 0; n < N; n++) {
    for (let k = 0; k < K; k++) {
      const block = Math.floor(k / blockSize);
      const group = n * blocks + block;
      const q = read(codes, (group * blockSize) / perByte, k % blockSize);
      const z =
        zeroPoints instanceof Float32Array
          ? (zeroPoints[group] as number)
          : read(zeroPoints, n * Math.ceil(blocks / perByte), block);
      weight[n * K + k] = Math.fround(q - z) * (scales[group] as number);
    }
  }
  return weight;
}

/** [rows, cols] of a DequantizeLinear node on a matrix: one scale a row, or blocks along axis 1. */
async function weightOfDequantizeLinear(file: OnnxFile, node: NodeProto): Promise<Float32Array> {
  const [codes, scales, zeroPoints] = (await Promise.all(node.input.map((name) => elements(file, name)))) as [
    Uint8Array,
    Float32Array,
    Uint8Array,
  ];
  const tensor = file.model.graph?.initializer.find(({ name }) => name === node.input[0]);
  const [rows, cols] = (tensor?.dims ?? []).map(Number) as [number, number];
  const blockSize = attribute(node, "axis") === 0 ? cols : attribute(node, "block_size");
  const blocks = scales.length / rows;
  return Float32Array.from(codes, (q, i) => {
    const group = Math.floor(i / cols) * blocks + Math.floor((i % cols) / blockSize);
    return (q - (zeroPoints[group] as number)) * (scales[group] as number);
  });
}

/** Float32 tensors of the native file, by name. */
async function rebuiltWeights(native: string): Promise<Map<string, Float32Array>> {
  const path = join(folder, "rebuilt.safetensors");
  await exportNative({ input: native, output: path, dtype: "F32", force: true }, session);
  const { tensors } = await openSafetensors(path, path);
  const bytes = await readFile(path);
  return new Map(
    tensors
      .filter(({ dtype }) => dtype === "F32")
      .map(({ name, location: { byteOffset, byteLength } }) => [
        name,
        new Float32Array(Uint8Array.from(bytes.subarray(byteOffset, byteOffset + byteLength)).buffer),
      ]),
  );
}

/** Every weight that the file holds as MatMulNBits or DequantizeLinear is one of the rebuilt ones, to the bit. */
async function expectWeightsOf(result: OnnxExportResult, native: string): Promise<void> {
  const rebuilt = [...(await rebuiltWeights(native)).values()];
  const written = await readOnnx(result.output);
  const counts = { "matmul-nbits": 0, "dequantize-linear": 0 };
  for (const node of written.model.graph?.node ?? []) {
    const isProduct = node.opType === "MatMulNBits";
    if (!isProduct && node.opType !== "DequantizeLinear") continue;
    counts[isProduct ? "matmul-nbits" : "dequantize-linear"] += 1;
    const weight = await (isProduct ? weightOfMatMulNBits : weightOfDequantizeLinear)(written, node);
    const isFound = rebuilt.some(
      (each) => each.length === weight.length && each.every((value, i) => value === weight[i]),
    );
    expect(isFound, `the weight of ${node.name}`).toBe(true);
  }
  expect(counts).toEqual({
    "matmul-nbits": result.forms["matmul-nbits"],
    "dequantize-linear": result.forms["dequantize-linear"],
  });
}

const graphNames = async (path: string) => {
  const { graph } = (await readOnnx(path)).model;
  return [graph?.input.map(({ name }) => name), graph?.output.map(({ name }) => name)];
};

interface Case {
  readonly title: string;
  readonly model: string;
  readonly config: ConfigSettings;
  readonly forms: OnnxExportResult["forms"];
  readonly fileName: string;
}

const CASES: readonly Case[] = [
  {
    title: "dit-mnist, 4 bits, whole zero points",
    model: "dit-mnist",
    config: { bit_width: 4, method: "rtn", zero_point_bits: 4 },
    forms: { "matmul-nbits": 28, "dequantize-linear": 0, arithmetic: 0 },
    fileName: "model_q4.onnx",
  },
  {
    title: "dit-mnist, 2 bits, float32 zero points, groups that are no power of two",
    model: "dit-mnist",
    config: { bit_width: 2, method: "hqq", group_size: 48 },
    forms: { "matmul-nbits": 28, "dequantize-linear": 0, arithmetic: 0 },
    fileName: "model_q2.onnx",
  },
  {
    title: "unet-mnist, 8 bits, whole zero points",
    model: "unet-mnist",
    config: { bit_width: 8, method: "rtn", zero_point_bits: 8 },
    forms: { "matmul-nbits": 27, "dequantize-linear": 34, arithmetic: 0 },
    fileName: "model_quantized.onnx",
  },
  {
    title: "unet-mnist, 4 bits, whole zero points, a group that does not divide rows",
    model: "unet-mnist",
    config: { bit_width: 4, method: "rtn", zero_point_bits: 4, group_size: 64 },
    forms: { "matmul-nbits": 27, "dequantize-linear": 34, arithmetic: 0 },
    fileName: "model_q4.onnx",
  },
];

describe.skipIf(!existsSync(SHARED_MODELS))("export to ONNX", () => {
  it.each(CASES)("$title: weights to the bit, and the graph computes as with rebuilt ones", async (each) => {
    const native = await quantizeTo("q.parquet", each.model, each.config);
    const original = join(SHARED_MODELS, each.model);
    const output = join(folder, each.title.replace(/\W+/g, "-"));
    const result = await exportOnnx({ input: native, output, original }, session);
    expect(result.output).toBe(join(output, each.fileName));
    expect(await readdir(output)).toEqual([each.fileName]);
    expect(result.forms).toEqual(each.forms);
    expect(result.check?.relativeError).toBeLessThan(MAX_FLOAT_NOISE);
    expect(await graphNames(result.output)).toEqual(await graphNames(join(original, "onnx/model.onnx")));
    await expectWeightsOf(result, native);
  });

  it("spells out fractional zero points of 8 bits and of convolutions, with the very same predictions", async () => {
    const native = await quantizeTo("q.parquet", "unet-mnist", { bit_width: 8, method: "hqq" });
    const result = await exportOnnx(
      { input: native, output: join(folder, "fractional.onnx"), original: join(SHARED_MODELS, "unet-mnist") },
      session,
    );
    expect(result.forms).toEqual({ "matmul-nbits": 0, "dequantize-linear": 0, arithmetic: 61 });
    expect(result.check).toMatchObject({ relativeError: 0, notRun: null });
  });

  it("divides the inputs of equalized layers and quantizes them by timestep group", async () => {
    const original = join(SHARED_MODELS, "dit-mnist");
    const native = await quantizeTo("calibrated.parquet", "dit-mnist", {
      bit_width: 4,
      include: ["transformer_blocks\\.0\\.(attn1|ff)"],
      calibration: join(original, "calibration.parquet"),
      calibration_samples: 32,
      enable_spatial: true,
      spatial_alpha: 0.5,
      activation_bits: 8,
      enable_time_aware: true,
    });
    const output = join(folder, "activations.onnx");
    const result = await exportOnnx({ input: native, output, original, activations: true }, session);
    expect(result.activations).toBe(6);
    expect(result.check?.relativeError).toBeLessThan(MAX_FLOAT_NOISE);
    const nodes = (await readOnnx(output)).model.graph?.node ?? [];
    const products = nodes.filter(({ opType }) => opType === "MatMulNBits");
    const divided = products.filter(
      ({ input }) => nodes.find(({ output: outputs }) => outputs[0] === input[0])?.opType === "Div",
    );
    let equalized = 0;
    const file = await openNative(native);
    for await (const { spatial } of file.rowHeaders()) equalized += spatial?.equalizationScales.length ? 1 : 0;
    file.close();
    expect(equalized).toBeGreaterThan(0);
    expect(divided.length).toBe(equalized);
    const plain = { input: native, output, original, activations: false };
    await expect(exportOnnx(plain, session)).resolves.toMatchObject({ activations: 0, output });
  });

  it("refuses r2q by name before anything is written, and the graph of another model", async () => {
    const native = await quantizeTo("r2q.parquet", "dit-mnist", {
      bit_width: 2,
      method: "r2q",
      include: ["transformer_blocks\\.0\\.attn1"],
    });
    const output = join(folder, "none.onnx");
    const job = { input: native, output, original: join(SHARED_MODELS, "dit-mnist") };
    await expect(exportOnnx(job, session)).rejects.toMatchObject({
      code: "E_CONFLICT",
      message: expect.stringContaining("transformer_blocks.0.attn1"),
    });
    const graph = join(SHARED_MODELS, "unet-mnist/onnx/model.onnx");
    await expect(exportOnnx({ ...job, graph }, session)).rejects.toMatchObject({ code: "E_GRAPH" });
    expect((await readdir(folder)).filter((name) => name.includes("none"))).toEqual([]);
  });
});
