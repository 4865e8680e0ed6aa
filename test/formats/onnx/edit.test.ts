import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { cloneModel, exposeValues } from "../../../dist/formats/onnx/edit.js";
import { type OnnxInitializer, readOnnx } from "../../../dist/formats/onnx/read.js";
import { writeOnnx } from "../../../dist/formats/onnx/write.js";
import {
  bytesOf,
  denoiserFeeds,
  encode,
  fed,
  model,
  node,
  readRange,
  runOnce,
  SHIPPED,
  TYPE,
  value,
} from "./graphs.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "arrowquant-onnx-"));
});
afterAll(() => rm(folder, { recursive: true }));

async function readFloats({ place }: OnnxInitializer): Promise<Float32Array> {
  if (place === null) throw new Error("the weight is no large one");
  const bytes = await readRange(place.path, place.byteOffset, place.byteLength);
  return new Float32Array(new Uint8Array(bytes).buffer);
}

describe("exposing values", () => {
  test.each(SHIPPED)("of $name shows them as they are and leaves the prediction alone", async ({ path }) => {
    const file = await readOnnx(path);
    const exposed = cloneModel(file.model);
    const nodes = exposed.graph?.node ?? [];
    const layers = nodes.filter(({ opType, input }) => opType === "MatMul" && file.initializers.has(input[1] ?? ""));
    // Integers: the graph says no type of them.
    const shapes = nodes.filter(({ opType }) => opType === "Shape").slice(0, 3);
    const values = [...layers, ...shapes].flatMap(({ input, output }) => [input[0] as string, output[0] as string]);
    exposeValues(exposed, values);
    exposeValues(exposed, values);
    const written = join(folder, "exposed.onnx");
    await writeOnnx(file, { path: written, model: exposed, replaced: new Map(), externalData: "auto" });
    const feeds = denoiserFeeds(1, 300);
    const outputs = await runOnce(written, feeds);
    expect(new Set(Object.keys(outputs))).toEqual(new Set(["noise_pred", ...values]));
    expect(bytesOf(outputs["noise_pred"]).equals(bytesOf((await runOnce(path, feeds))["noise_pred"]))).toBe(true);
    for (const { input, output } of layers) {
      const [x, y] = [outputs[input[0] as string], outputs[output[0] as string]];
      const weight = file.initializers.get(input[1] as string) as OnnxInitializer;
      const elements = await readFloats(weight);
      const [rows = 0, cols = 0] = weight.shape;
      for (const column of [0, cols - 1]) {
        let sum = 0;
        for (let row = 0; row < rows; row++) sum += Number(x?.data[row]) * (elements[row * cols + column] as number);
        expect(Number(y?.data[column])).toBeCloseTo(sum, 3);
      }
    }
  });

  test("that are inputs shows them too", async () => {
    const proto = model({
      node: [node("Neg", ["x"], "y")],
      input: [value("x", TYPE.float, [2])],
      output: [value("y", TYPE.float)],
    });
    exposeValues(proto, ["x"]);
    const { x, y } = await runOnce(encode(proto), { x: fed(Float32Array.of(1, -2), [2]) });
    expect([x?.data, y?.data]).toEqual([Float32Array.of(1, -2), Float32Array.of(-1, 2)]);
  });

  test("that are none is refused", () => {
    const proto = model({ node: [node("Neg", ["x"], "y")], input: [value("x", TYPE.float)] });
    for (const name of ["z", ""]) {
      expect(() => exposeValues(proto, [name])).toThrow(expect.objectContaining({ code: "E_GRAPH" }));
    }
  });
});
