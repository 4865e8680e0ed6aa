/** A graph that is fed its weights computes what a graph with those weights in it computes. */
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { OnnxFile } from "../../../dist/formats/onnx/read.js";
import { findGraphLayers, type GraphLayer } from "../../../dist/graph/layers.js";
import type { GraphMatch, MatchedLayer } from "../../../dist/graph/match.js";
import { writeGraphWithWeights } from "../../../dist/graph/replace.js";
import { FedGraph } from "../../../dist/quantize/sensitivity/fed-graph.js";
import { loadRuntime, type RunTensor } from "../../../dist/runtime/runtime.js";
import { fromFloat16Bits, toFloat16Bits } from "../../../dist/tensor/float16.js";
import { graphOpener, type NodeSpec, scratchFolder, type TensorSpec, waves } from "../../graph/onnx-model.ts";

const open = graphOpener();
const scratch = scratchFolder();
const signal = new AbortController().signal;
let count = 0;

/** Every way in which a weight gets into a product; square ones, so that a transposition shows in values alone. */
const WEIGHTS: Readonly<Record<string, readonly number[]>> = {
  inOut: [6, 4],
  square: [6, 6],
  outIn: [5, 6],
  left: [3, 7],
  turned: [8, 6],
  conv: [4, 2, 3, 3],
  copy: [6, 4],
};
const NODES: readonly NodeSpec[] = [
  { op: "MatMul", in: ["x", "inOut"], out: ["a"] },
  { op: "MatMul", in: ["x", "square"], out: ["b"] },
  // Shared with the one before.
  { op: "MatMul", in: ["b", "square"], out: ["c"] },
  { op: "Gemm", in: ["c", "outIn"], out: ["d"], attributes: { transB: 1 } },
  { op: "MatMul", in: ["left", "x"], out: ["e"] },
  { op: "Transpose", in: ["turned"], out: ["turned_t"], attributes: { perm: [1, 0] } },
  { op: "MatMul", in: ["x", "turned_t"], out: ["f"] },
  { op: "Conv", in: ["image", "conv"], out: ["g"], attributes: { group: 2, pads: [1, 1, 1, 1] } },
  { op: "MatMul", in: ["x", "copy"], out: ["h"] },
];
const OUTPUTS = ["a", "c", "d", "e", "f", "g", "h"];

/** @param listed initializers that stand among the inputs too */
async function openGraph(type: "FLOAT" | "FLOAT16", listed: typeof WEIGHTS = {}): Promise<OnnxFile> {
  const stored = (dims: readonly number[], phase: number): TensorSpec => {
    const values = waves(
      dims.reduce((product, size) => product * size, 1),
      phase,
    );
    return { dims, data: type === "FLOAT" ? values : toFloat16Bits(values), type };
  };
  return open({
    inputs: {
      x: [type, 7, 6],
      image: [type, 1, 4, 5, 5],
      ...Object.fromEntries(Object.entries(listed).map(([name, dims]) => [name, [type, ...dims]])),
    },
    outputs: Object.fromEntries(OUTPUTS.map((name) => [name, [type, ...(name === "g" ? "mnop" : "mn")]])),
    initializers: Object.fromEntries(
      // The copy holds what it is a copy of.
      Object.entries(WEIGHTS).map(([name, dims], index) => [name, stored(dims, name === "copy" ? 0 : 100 * index)]),
    ),
    nodes: NODES,
  });
}

/** Each initializer as a tensor of its own name; the copied one as one tensor with its copy. */
function matchByName(file: OnnxFile): GraphMatch {
  const matched = new Map<string, MatchedLayer>();
  for (const layer of findGraphLayers(file)) {
    const tensorName = layer.initializer === "copy" ? "inOut" : layer.initializer;
    const layers = [...(matched.get(tensorName)?.layers ?? []), layer];
    matched.set(tensorName, { tensorName, by: "name", layers });
  }
  return { matched, unmatched: [] };
}

/** Constant weights are laid out anew for some kernels, which then add up in another order. */
function expectClose(found: RunTensor, expected: RunTensor, what = ""): void {
  expect(found.shape, what).toEqual(expected.shape);
  const [a, b] = [found, expected].map(({ data }) =>
    data instanceof Uint16Array ? fromFloat16Bits(data) : (data as Float32Array),
  ) as [Float32Array, Float32Array];
  const largest = b.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  // Of sums of products of numbers up to 1.
  const rounding = expected.dtype === "F16" ? 2 ** -9 : 2 ** -20;
  expect(largest, what).toBeGreaterThan(10 * rounding);
  for (const [i, value] of b.entries())
    expect(Math.abs((a[i] as number) - value), what).toBeLessThan(rounding * Math.max(1, largest));
}

const feedsOf = (type: "FLOAT" | "FLOAT16"): Record<string, RunTensor> =>
  Object.fromEntries(
    Object.entries({ x: [7, 6], image: [1, 4, 5, 5] }).map(([name, shape], index) => {
      const values = waves(
        shape.reduce((product, size) => product * size, 1),
        5000 * (index + 1),
      );
      return [
        name,
        type === "FLOAT" ? { dtype: "F32", shape, data: values } : { dtype: "F16", shape, data: toFloat16Bits(values) },
      ] as const;
    }),
  );

describe.each(["FLOAT", "FLOAT16"] as const)("a graph that stores its weights as %s", (type) => {
  async function openBoth() {
    const file = await openGraph(type);
    const match = matchByName(file);
    const runtime = await loadRuntime();
    const tensorNames = [...match.matched.keys()];
    const folder = join(scratch, `fed-${count++}`);
    return {
      file,
      match,
      runtime,
      fed: await FedGraph.open({ runtime, file, match, tensorNames, folder, threads: 1, signal }),
    };
  }

  it("gives the outputs of the graph with the replaced weights in it, the original's of all others", async () => {
    const { file, match, runtime, fed } = await openBoth();
    const names = [...match.matched.keys()];
    expect(names.sort()).toEqual(["conv", "inOut", "left", "outIn", "square", "turned"]);
    const weightsOf = (name: string) => {
      const { rows, cols } = (match.matched.get(name) as MatchedLayer).layers[0] as GraphLayer;
      return waves(rows * cols, 777 + name.length);
    };
    for (const replacedNames of [[], ...names.map((name) => [name]), names]) {
      const replaced = new Map(replacedNames.map((name) => [name, weightsOf(name)]));
      const path = join(scratch, `written-${count++}.onnx`);
      const replacements = [...replaced].map(([tensorName, values]) => ({
        tensorName,
        rows: async function* () {
          yield new Uint8Array(values.buffer);
        },
      }));
      await writeGraphWithWeights(file, match, replacements, path);
      const written = await runtime.open(path, { threads: 1 });
      const expected = await written.run(feedsOf(type));
      const found = await fed.run(feedsOf(type), OUTPUTS, replaced);
      for (const name of OUTPUTS) {
        expectClose(found[name] as RunTensor, expected[name] as RunTensor, `${name} with ${replacedNames}`);
      }
      await written.close();
    }
    await fed.close();
  });

  it("refuses weights of another size and tensors that it does not have", async () => {
    const { fed } = await openBoth();
    const run = (name: string, length: number) =>
      fed.run(feedsOf(type), OUTPUTS, new Map([[name, new Float32Array(length)]]));
    await expect(run("square", 35)).rejects.toMatchObject({ code: "E_SHAPE" });
    await expect(run("bias", 6)).rejects.toMatchObject({ code: "E_GRAPH", details: { tensor: "bias" } });
    await fed.close();
  });
});

it("runs a graph that lists its initializers among the inputs, as they once had to be", async () => {
  const original = await openGraph("FLOAT");
  const listed = await openGraph("FLOAT", WEIGHTS);
  const runtime = await loadRuntime();
  const match = matchByName(listed);
  const folder = join(scratch, `fed-${count++}`);
  const tensorNames = ["square"];
  const fed = await FedGraph.open({ runtime, file: listed, match, tensorNames, folder, threads: 1, signal });
  const session = await runtime.open(original.path, { threads: 1 });
  const { c } = await session.run(feedsOf("FLOAT"));
  expectClose((await fed.run(feedsOf("FLOAT"), ["c"], new Map()))["c"] as RunTensor, c as RunTensor);
  await fed.close();
  await session.close();
});
