/** An ONNX model as a source gives what the same weights give in safetensors, to the byte. */
import { writeFile } from "node:fs/promises";
import { afterAll, describe, expect, it } from "vitest";
import { Session } from "../../dist/engine/session.js";
import { readOnnx } from "../../dist/formats/onnx/read.js";
import { writeOnnx } from "../../dist/formats/onnx/write.js";
import { quantizeModel } from "../../dist/quantize/quantize.js";
import { toFloat16Bits } from "../../dist/tensor/float16.js";
import { validateModel } from "../../dist/validate/validate.js";
import { encode, floats, model, node, SHIPPED, type TensorInit, TYPE } from "../formats/onnx/graphs.js";
import { floatPart, gaussianFloats, useFolder, writeModel } from "./source.js";
import { readStored } from "./stored.js";

const folder = useFolder();
const sessions = [new Session({ threads: 2 }), new Session({ threads: 2, slabBytes: 4096 })] as const;
afterAll(async () => {
  for (const session of sessions) await session.dispose();
});

function transpose(values: Float32Array, rows: number, cols: number): Float32Array {
  return Float32Array.from({ length: values.length }, (_, i) => values[(i % rows) * cols + Math.floor(i / rows)] ?? 0);
}

/** Odd sizes; the first is so large that it is read in several strips, and kept in several chunks. */
const SHAPES = [
  [1531, 1201],
  [7, 2000],
  [2000, 7],
  [33, 65],
  [1, 50],
] as const;

describe.each([["float32"], ["float16"]])("matrices stored [in, out] in %s", (type) => {
  it("are quantized, kept and validated as if they were stored [out, in]", async () => {
    const initializer: TensorInit[] = [];
    const parts = SHAPES.map(([rows, cols], index) => {
      const drawn = gaussianFloats(rows * cols, index + 1);
      const bits = toFloat16Bits(drawn);
      // Of float16 the twin holds the same bits.
      const stored = { name: `w${index}.weight`, shape: [rows, cols] };
      const turned = transpose(type === "float32" ? drawn : Float32Array.from(bits), rows, cols);
      initializer.push(
        type === "float32"
          ? floats(stored.name, [cols, rows], turned)
          : {
              ...{ name: stored.name, dataType: TYPE.float16, dims: [BigInt(cols), BigInt(rows)] },
              rawData: new Uint8Array(Uint16Array.from(turned).buffer),
            },
      );
      return type === "float32"
        ? floatPart(stored.name, stored.shape, drawn)
        : { ...stored, dtype: "F16", bytes: new Uint8Array(bits.buffer) };
    });
    const nodes = SHAPES.map((_, index) => node("MatMul", ["x", `w${index}.weight`], `y${index}`));
    const input = folder.path(`${type}.onnx`);
    await writeFile(input, encode(model({ node: nodes, initializer })));
    const twin = await writeModel(folder.path(`${type}.safetensors`), parts);
    const common = { modality: "image", min_accuracy: 0, group_size: 64 } as const;
    for (const [index, config] of [common, { ...common, exclude: ["w[01]"] }].entries()) {
      const outputs = [folder.path(`${type}-a${index}.parquet`), folder.path(`${type}-b${index}.parquet`)] as const;
      await quantizeModel({ input, output: outputs[0], config }, sessions[index] as Session);
      await quantizeModel({ input: twin, output: outputs[1], config }, sessions[0]);
      expect(await readStored(outputs[0])).toEqual(await readStored(outputs[1]));
      const { passed, layers } = await validateModel({ original: input, quantized: outputs[0] }, sessions[0]);
      expect(passed).toBe(true);
      expect(layers).toHaveLength(SHAPES.length);
    }
  });
});

describe.each(SHIPPED)("$name", ({ name, folder: pipeline, path }) => {
  it("as a graph alone, with its weights inside and beside it, gives the layers that its folder gives", async () => {
    const external = folder.path(`${name}-external.onnx`);
    const file = await readOnnx(path);
    await writeOnnx(file, { path: external, model: file.model, replaced: new Map(), externalData: "always" });
    const outputs = ["folder", "graph", "external"].map((each) => folder.path(`${name}-${each}.parquet`));
    const config = { bit_width: 4, group_size: 32, modality: "image" } as const;
    for (const [index, input] of [pipeline, path, external].entries()) {
      await quantizeModel({ input, output: outputs[index] as string, config }, sessions[0]);
    }
    const [expected = {}, ...others] = await Promise.all(outputs.map(readStored));
    const quantized = Object.entries(expected).filter(([, rows]) => rows[0]?.quantType !== "none");
    expect(quantized.length).toBeGreaterThan(20);
    for (const found of others) for (const [layer, rows] of quantized) expect(found[layer], layer).toEqual(rows);
    const counts = others.map((found) => Object.values(found).filter((rows) => rows[0]?.quantType !== "none").length);
    expect(counts).toEqual([quantized.length, quantized.length]);
  });
});
