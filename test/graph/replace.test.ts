import { readFileSync, writeFileSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { beforeAll, describe, expect, it } from "vitest";
import { ModelProtoSchema } from "../../dist/formats/onnx/onnx-pb.js";
import { type OnnxFile, readOnnx } from "../../dist/formats/onnx/read.js";
import { openModel } from "../../dist/formats/open.js";
import { findGraphLayers, type GraphLayer } from "../../dist/graph/layers.js";
import type { GraphMatch } from "../../dist/graph/match.js";
import { matchGraph } from "../../dist/graph/match.js";
import { type WeightReplacement, writeGraphWithWeights } from "../../dist/graph/replace.js";
import { loadRuntime, type Runtime } from "../../dist/runtime/runtime.js";
import { decodeFloat } from "../kernels/reference.ts";
import { openReference, type ReferenceStep, readTensors } from "../runtime/reference.ts";
import { areModelsHere, graphOpener, MODELS, REAL_MODELS, scratchFolder, waves } from "./onnx-model.ts";

const scratch = scratchFolder();
let runtime: Runtime;
beforeAll(async () => {
  runtime = await loadRuntime();
});

async function predict(path: string, { feeds }: ReferenceStep): Promise<Float32Array> {
  const session = await runtime.open(path);
  const { noise_pred } = await session.run(feeds);
  await session.close();
  return noise_pred?.data as Float32Array;
}

/** Every float16 by its code. */
const HALVES = Float32Array.from({ length: 65536 }, (_, code) => decodeFloat(code, 5, 10, false));

/** Rows in chunks of 7, as float32. */
function inChunks(tensorName: string, values: Float32Array, cols: number): WeightReplacement {
  return {
    tensorName,
    rows: async function* () {
      for (let at = 0; at < values.length; at += 7 * cols) {
        const chunk = values.subarray(at, at + 7 * cols);
        yield new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength);
      }
    },
  };
}

describe.skipIf(!areModelsHere)("a real graph (skipped where ../shared is absent)", () => {
  describe.each(REAL_MODELS)("%s", (model, component) => {
    const weightsPath = join(MODELS, model, component, "diffusion_pytorch_model.safetensors");
    const halfPath = join(MODELS, model, component, "diffusion_pytorch_model.fp16.safetensors");
    const graphPath = join(MODELS, model, "onnx/model.onnx");

    async function openBoth() {
      const file = await readOnnx(graphPath);
      const match = await matchGraph(file, (await openModel(weightsPath)).components[0]!);
      const step = openReference(join(MODELS, model, "eval_reference.safetensors")).steps[4] as ReferenceStep;
      return { file, match, step };
    }

    it("predicts the same to the bit with every weight replaced by itself", async () => {
      const { file, match, step } = await openBoth();
      const read = readTensors(weightsPath);
      const outPath = join(scratch, `${model}-same.onnx`);
      const replacements = [...match.matched.values()].map(({ tensorName, layers }) =>
        inChunks(tensorName, new Float32Array(read(tensorName)), (layers[0] as GraphLayer).cols),
      );
      await writeGraphWithWeights(file, match, replacements, outPath);
      expect(await predict(outPath, step)).toEqual(await predict(graphPath, step));
      expect((await stat(outPath)).size).toBeLessThan(1_000_000);
    });

    it("predicts what the graph patched by hand does with every weight rounded to float16", async () => {
      const { file, match, step } = await openBoth();
      const read = readTensors(halfPath);
      const halves = (name: string) => new Float32Array(new Uint16Array(read(name))).map((code) => HALVES[code]!);
      const outPath = join(scratch, `${model}-half.onnx`);
      const replacements = [...match.matched.values()].map(({ tensorName, layers }) =>
        inChunks(tensorName, halves(tensorName), (layers[0] as GraphLayer).cols),
      );
      await writeGraphWithWeights(file, match, replacements, outPath);

      const patched = fromBinary(ModelProtoSchema, readFileSync(graphPath));
      const { initializers } = JSON.parse(readFileSync(join(MODELS, model, "onnx/initializers.json"), "utf8")) as {
        initializers: { initializer: string; torch_name: string; transposed: boolean }[];
      };
      for (const { initializer, torch_name, transposed } of initializers) {
        if (!match.matched.has(torch_name)) continue;
        const tensor = patched.graph!.initializer.find(({ name }) => name === initializer)!;
        const values = halves(torch_name);
        const [first, second] = tensor.dims.map(Number) as [number, number];
        const stored = transposed
          ? values.map((_, i) => values[(i % second) * first + Math.floor(i / second)]!)
          : values;
        tensor.rawData = new Uint8Array(stored.buffer);
      }
      const patchedPath = join(scratch, `${model}-patched.onnx`);
      writeFileSync(patchedPath, toBinary(ModelProtoSchema, patched));
      const found = await predict(outPath, step);
      expect(found).toEqual(await predict(patchedPath, step));
      expect(found).not.toEqual(await predict(graphPath, step));
    });
  });
});

describe("writing other weights", () => {
  const open = graphOpener();

  /** A match of tensor `t` with every layer of the graph. */
  function matchAll(file: OnnxFile): GraphMatch {
    const layers = findGraphLayers(file);
    return { matched: new Map([["t", { tensorName: "t", by: "name", layers }]]), unmatched: [] };
  }

  async function storedBytes(path: string, name: string): Promise<Uint8Array> {
    const { place, bytes } = (await readOnnx(path)).initializers.get(name)!;
    if (place === null) return new Uint8Array(bytes!);
    return new Uint8Array(await readFile(place.path)).slice(place.byteOffset, place.byteOffset + place.byteLength);
  }

  it("keeps each layer's type and orientation, hands the copy of the graph to the edit, and leaves the file's alone", async () => {
    const [rows, cols] = [40, 36];
    const values = waves(rows * cols);
    const turned = values.map((_, i) => values[(i % rows) * cols + Math.floor(i / rows)]!);
    const file = await open({
      inputs: { x: ["FLOAT", 1, cols], h: ["FLOAT16", 1, cols] },
      outputs: { a: ["FLOAT", 1, rows], b: ["FLOAT", 1, rows], c: ["FLOAT16", 1, rows] },
      initializers: {
        turned: { dims: [cols, rows], data: new Float32Array(rows * cols) },
        plain: { dims: [rows, cols], data: new Float32Array(rows * cols) },
        half: { dims: [cols, rows], data: new Uint16Array(rows * cols), type: "FLOAT16" },
      },
      nodes: [
        { op: "MatMul", in: ["x", "turned"], out: ["a"] },
        { op: "Gemm", in: ["x", "plain"], out: ["b"], attributes: { transB: 1 } },
        { op: "MatMul", in: ["h", "half"], out: ["c"] },
      ],
    });
    const outPath = join(scratch, "kinds.onnx");
    await writeGraphWithWeights(file, matchAll(file), [inChunks("t", values, cols)], outPath, (model) => {
      model.producerName = "edited";
    });
    expect(file.model.producerName).toBe("");
    expect((await readOnnx(outPath)).model.producerName).toBe("edited");
    expect(new Float32Array((await storedBytes(outPath, "turned")).buffer)).toEqual(turned);
    expect(new Float32Array((await storedBytes(outPath, "plain")).buffer)).toEqual(values);
    const halves = new Uint16Array((await storedBytes(outPath, "half")).buffer);
    // Rounded to nearest: half of the last of eleven bits.
    for (const [i, code] of halves.entries()) {
      expect(Math.abs(decodeFloat(code, 5, 10, false) - turned[i]!)).toBeLessThanOrEqual(
        2 ** -11 * Math.abs(turned[i]!) + 2 ** -25,
      );
    }
    const session = await runtime.open(outPath);
    await session.close();
  });

  it("turns matrices that do not fit into the memory for it, in several passes", async () => {
    // 64.1 MiB against bands of 64 MiB; element (r, c) is the bits of r · cols + c.
    const [rows, cols] = [4100, 4100];
    const file = await open({
      initializers: { w: { dims: [cols, rows], data: new Float32Array(rows * cols) } },
      nodes: [{ op: "MatMul", in: ["x", "w"], out: ["y"] }],
    });
    let passes = 0;
    async function* count(): AsyncGenerator<Uint8Array> {
      passes += 1;
      const chunk = new Uint32Array(100 * cols);
      for (let row = 0; row < rows; row += 100) {
        for (let i = 0; i < chunk.length; i++) chunk[i] = row * cols + i;
        yield new Uint8Array(chunk.buffer);
      }
    }
    const outPath = join(scratch, "large.onnx");
    await writeGraphWithWeights(file, matchAll(file), [{ tensorName: "t", rows: count }], outPath);
    const bytes = await storedBytes(outPath, "w");
    const found = new Uint32Array(bytes.buffer);
    let wrong = 0;
    for (let col = 0, i = 0; col < cols; col++) {
      for (let row = 0; row < rows; row++, i++) if (found[i] !== row * cols + col) wrong += 1;
    }
    expect(wrong).toBe(0);
    expect(passes).toBe(2);
  });

  it("refuses what does not fit the graph", async () => {
    const file = await open({
      initializers: { w: { dims: [8, 4], data: waves(32) }, d: { dims: [4, 8], data: waves(64), type: "DOUBLE" } },
      nodes: [
        { op: "MatMul", in: ["x", "w"], out: ["y"] },
        { op: "Gemm", name: "wide", in: ["z", "d"], out: ["v"], attributes: { transB: 1 } },
      ],
    });
    const [narrow, wide] = findGraphLayers(file) as [GraphLayer, GraphLayer];
    const only = (layer: GraphLayer): GraphMatch => ({
      matched: new Map([["t", { tensorName: "t", by: "name", layers: [layer] }]]),
      unmatched: [],
    });
    const write = (match: GraphMatch, replacement: WeightReplacement) =>
      writeGraphWithWeights(file, match, [replacement], join(scratch, "refused.onnx"));
    const sound = inChunks("t", waves(32), 8);
    await expect(write(only(narrow), { ...sound, tensorName: "u" })).rejects.toMatchObject({ code: "E_GRAPH" });
    await expect(write(only(wide), sound)).rejects.toThrow('stores "d" as F64');
    await expect(write(only(narrow), inChunks("t", waves(24), 8))).rejects.toThrow('"t" has 4 rows, 3 were given');
    await expect(write(only(narrow), inChunks("t", waves(80), 8))).rejects.toThrow(
      '"t" has 4 rows, more than 4 were given',
    );
    await write(only(narrow), sound);
  });
});
