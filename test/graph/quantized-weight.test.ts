/** Every form in which a weight may stand in a graph computes with the same weight. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { cloneModel } from "../../dist/formats/onnx/edit.js";
import { OPSET_OF_BLOCKS, raiseOpset } from "../../dist/formats/onnx/opset.js";
import { type OnnxInitializer, readOnnx } from "../../dist/formats/onnx/read.js";
import { type InitializerBytes, writeOnnx } from "../../dist/formats/onnx/write.js";
import { findGraphLayers } from "../../dist/graph/layers.js";
import { placeQuantizedWeights, type QuantizedForm } from "../../dist/graph/quantized-weight.js";
import { encode, fed, floats, model, node, runOnce, TYPE, value } from "../formats/onnx/graphs.js";

const folder = mkdtempSync(join(tmpdir(), "arrowquant-forms-"));
afterAll(() => rmSync(folder, { recursive: true }));

const ROWS = 6;
const COLS = 20;
const BLOCK = 16;
const BLOCKS = 2;
const noise = (length: number) => Float32Array.from({ length }, (_, i) => Math.fround(Math.sin(i * 12.9898) * 3));
const integer = (name: string, i: number) => ({ name, type: 2, i: BigInt(i) });

/**
 * One [ROWS, COLS] weight: as [in, out] of two products, as [out, in] of one with a bias, and in float16. What the
 * initializers hold does not matter: they are replaced.
 */
const GRAPH = model({
  input: [value("x", TYPE.float, [3, COLS])],
  output: ["a", "b", "c", "d"].map((name) => value(name, TYPE.float, [3, ROWS])),
  initializer: [
    floats("shared", [COLS, ROWS], noise(COLS * ROWS)),
    floats("gemm", [ROWS, COLS], noise(COLS * ROWS)),
    floats("bias", [ROWS], noise(ROWS)),
    { name: "half", dataType: TYPE.float16, dims: [COLS, ROWS].map(BigInt), rawData: new Uint8Array(2 * COLS * ROWS) },
  ],
  node: [
    node("MatMul", ["x", "shared"], "a"),
    node("Neg", ["x"], "negative"),
    node("MatMul", ["negative", "shared"], "b"),
    node("Gemm", ["x", "gemm", "bias"], "c", [integer("transB", 1)]),
    node("Cast", ["x"], "x16", [integer("to", TYPE.float16)]),
    node("MatMul", ["x16", "half"], "d16"),
    node("Cast", ["d16"], "d", [integer("to", TYPE.float)]),
  ],
});

/** Codes in fields of `bits`, from the lowest bits of each line's first byte on. */
function pack(codes: readonly number[], lineLength: number, bits: number): Uint8Array {
  const lineBytes = Math.ceil((lineLength * bits) / 8);
  const bytes = new Uint8Array((codes.length / lineLength) * lineBytes);
  for (const [i, code] of codes.entries()) {
    const at = Math.floor(i / lineLength) * lineBytes + Math.floor(((i % lineLength) * bits) / 8);
    bytes[at] = (bytes[at] as number) | (code << (((i % lineLength) * bits) % 8));
  }
  return bytes;
}

const bytesOf = (values: Float32Array) => new Uint8Array(values.buffer);

function drawWeight(bits: number, { kind, zeroPoints }: QuantizedForm) {
  const largest = 2 ** bits - 1;
  const codes = Array.from({ length: ROWS * COLS }, (_, i) => (i * 7 + (i >> 3)) & largest);
  const scales = noise(ROWS * BLOCKS).map((scale) => scale / largest);
  const isWhole = zeroPoints === "packed";
  const zeros = Array.from({ length: ROWS * BLOCKS }, (_, i) => (isWhole ? (i * 5) & largest : Math.fround(i / 3)));
  const factors = Float32Array.from({ length: COLS }, (_, i) => 0.5 + i / 8);
  const weight = codes.map((code, i) => {
    const group = Math.floor(i / COLS) * BLOCKS + Math.floor((i % COLS) / BLOCK);
    const rebuilt = Math.fround(Math.fround(code - (zeros[group] as number)) * (scales[group] as number));
    return Math.fround(rebuilt / (factors[i % COLS] as number));
  });
  const padded = Array.from({ length: ROWS * BLOCKS * BLOCK }, (_, i) => {
    const col = i % (BLOCKS * BLOCK);
    return col < COLS ? (codes[Math.floor(i / (BLOCKS * BLOCK)) * COLS + col] as number) : 0;
  });
  const isInBlocks = kind !== "dequantize-linear";
  const parts = {
    codes: isInBlocks ? pack(padded, BLOCK, bits) : pack(codes, codes.length, bits),
    scales: bytesOf(scales),
    zeroPoints: isWhole
      ? pack(zeros, kind === "matmul-nbits" ? BLOCKS : zeros.length, bits)
      : bytesOf(Float32Array.from(zeros)),
  };
  return { weight, factors, parts };
}

const packed = { blockSize: BLOCK, zeroPoints: "packed" } as const;
const float32 = { blockSize: BLOCK, zeroPoints: "float32" } as const;

describe("placeQuantizedWeights", () => {
  it.each<[number, QuantizedForm]>([
    [2, { kind: "matmul-nbits", ...packed }],
    [4, { kind: "matmul-nbits", ...float32 }],
    [8, { kind: "matmul-nbits", ...packed }],
    [4, { kind: "dequantize-linear", ...packed }],
    [8, { kind: "dequantize-linear", ...packed }],
    [2, { kind: "arithmetic", ...float32 }],
    [4, { kind: "arithmetic", ...float32 }],
    [8, { kind: "arithmetic", ...float32 }],
  ])("%i bits, %o", async (bits, form) => {
    const path = join(folder, "graph.onnx");
    writeFileSync(path, encode(GRAPH));
    const file = await readOnnx(path);
    const { weight, factors, parts } = drawWeight(bits, form);
    const layers = findGraphLayers(file);
    // A weight in float16 is never a MatMulNBits, whose scales would have to be rounded.
    const isProduct = form.kind === "matmul-nbits";
    const names = isProduct ? ["shared", "gemm"] : ["shared", "gemm", "half"];
    const initializers = names.map((name) => ({
      initializer: file.initializers.get(name) as OnnxInitializer,
      layers: layers.filter(({ initializer }) => initializer === name),
    }));
    const placed = cloneModel(file.model);
    if (form.kind === "dequantize-linear") expect(raiseOpset(placed)).toBeNull();
    const tensors = placeQuantizedWeights(placed, [
      { tensorName: "w", rows: ROWS, cols: COLS, bits, form, equalizationScales: factors, initializers },
    ]).get("w");
    const replaced = new Map<string, InitializerBytes>();
    for (const part of ["codes", "scales", "zeroPoints"] as const) {
      const tensor = tensors?.[part] as Omit<InitializerBytes, "chunks">;
      const bytes = parts[part];
      replaced.set(tensor.name, {
        ...tensor,
        async *chunks() {
          yield bytes;
        },
      });
    }
    const out = join(folder, "placed.onnx");
    await writeOnnx(file, { path: out, model: placed, replaced, externalData: "never" });
    const x = noise(3 * COLS);
    const found = await runOnce(out, { x: fed(x, [3, COLS]) });

    const bias = noise(ROWS);
    const product = (sign: number, add: (row: number) => number) =>
      Array.from({ length: 3 * ROWS }, (_, i) => {
        const [sample, row] = [Math.floor(i / ROWS), i % ROWS];
        let sum = add(row);
        for (let c = 0; c < COLS; c++)
          sum += sign * (x[sample * COLS + c] as number) * (weight[row * COLS + c] as number);
        return sum;
      });
    const expectClose = (name: string, expected: readonly number[], digits: number) => {
      const largest = Math.max(...expected.map(Math.abs));
      const values = (found[name] as { data: unknown }).data as Float32Array;
      for (const [i, each] of expected.entries())
        expect((values[i] as number) / largest).toBeCloseTo(each / largest, digits);
    };
    expectClose(
      "a",
      product(1, () => 0),
      5,
    );
    expectClose(
      "b",
      product(-1, () => 0),
      5,
    );
    expectClose(
      "c",
      product(1, (row) => bias[row] as number),
      5,
    );
    if (!isProduct)
      expectClose(
        "d",
        product(1, () => 0),
        2,
      );
    const written = await readOnnx(out);
    const opset = written.model.opsetImport.find(({ domain }) => domain === "")?.version;
    expect(opset).toBe(form.kind === "dequantize-linear" ? OPSET_OF_BLOCKS : 17n);
    // One copy of the parts, however many nodes and initializers there were.
    expect([...written.initializers.keys()].filter((name) => /_(Q\d|quantized)$/.test(name)).length).toBeLessThan(2);
  });
});
