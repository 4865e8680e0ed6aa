/** What a layer says of itself is checked by computing its node's output from it, against the runtime's. */
import { beforeAll, describe, expect, it } from "vitest";
import type { OnnxFile } from "../../dist/formats/onnx/read.js";
import type { ConvGeometry } from "../../dist/graph/conv.js";
import { findGraphLayers, findGraphWeights, type GraphLayer } from "../../dist/graph/layers.js";
import { loadRuntime, type Runtime } from "../../dist/runtime/runtime.js";
import { buildGraph, type GraphSpec, graphOpener, type NodeSpec, type TensorSpec, waves } from "./onnx-model.ts";

const open = graphOpener();
let runtime: Runtime;
beforeAll(async () => {
  runtime = await loadRuntime();
});

async function runOutput(file: OnnxFile, shape: readonly number[], data: Float32Array): Promise<Float32Array> {
  const session = await runtime.open(file.path);
  const { y } = await session.run({ x: { dtype: "F32", shape, data } });
  await session.close();
  return y?.data as Float32Array;
}

/** The weight as [rows, cols], whichever way it is stored. */
function weightOf(layer: GraphLayer, stored: Float32Array): (row: number, col: number) => number {
  return (row, col) => stored[layer.transposed ? col * layer.rows + row : row * layer.cols + col] as number;
}

const IN = 5;
const OUT = 3;
const COUNT = 4;

describe("a matrix layer", () => {
  // [in, out] for a second operand, [out, in] for a first one.
  const inOut: TensorSpec = { dims: [IN, OUT], data: waves(IN * OUT) };
  const outIn: TensorSpec = { dims: [OUT, IN], data: waves(IN * OUT) };
  const transpose = (from: string, to: string): NodeSpec => ({
    op: "Transpose",
    in: [from],
    out: [to],
    attributes: { perm: [1, 0] },
  });
  const plain = (from: string, to: string): NodeSpec => ({ op: "Transpose", in: [from], out: [to] });
  const named = (node: Omit<NodeSpec, "out">): NodeSpec => ({ name: "layer", out: ["y"], ...node });

  it.each<[string, TensorSpec, boolean, NodeSpec[]]>([
    ["MatMul B", inOut, false, [named({ op: "MatMul", in: ["x", "w"] })]],
    ["MatMul A", outIn, true, [named({ op: "MatMul", in: ["w", "x"] })]],
    ["MatMul of a transposed B", outIn, false, [transpose("w", "t"), named({ op: "MatMul", in: ["x", "t"] })]],
    ["MatMul of a transposed A", inOut, true, [plain("w", "t"), named({ op: "MatMul", in: ["t", "x"] })]],
    [
      "MatMul of a B transposed twice",
      inOut,
      false,
      [
        plain("w", "t"),
        { op: "Identity", in: ["t"], out: ["i"] },
        transpose("i", "u"),
        named({ op: "MatMul", in: ["x", "u"] }),
      ],
    ],
    ["Gemm B", inOut, false, [named({ op: "Gemm", in: ["x", "w"] })]],
    ["Gemm B with transB", outIn, false, [named({ op: "Gemm", in: ["x", "w"], attributes: { transB: 1 } })]],
    [
      "Gemm of a transposed B with transB",
      inOut,
      false,
      [plain("w", "t"), named({ op: "Gemm", in: ["x", "t"], attributes: { transB: 1 } })],
    ],
    ["Gemm B with transA", inOut, true, [named({ op: "Gemm", in: ["x", "w"], attributes: { transA: 1 } })]],
    ["Gemm A", outIn, true, [named({ op: "Gemm", in: ["w", "x"] })]],
    ["Gemm A with transA", inOut, true, [named({ op: "Gemm", in: ["w", "x"], attributes: { transA: 1 } })]],
    ["Gemm A with transB", outIn, false, [named({ op: "Gemm", in: ["w", "x"], attributes: { transB: 1 } })]],
  ])("%s is found the way it multiplies", async (_title, weight, hasChannelsFirst, nodes) => {
    const shape = hasChannelsFirst ? [IN, COUNT] : [COUNT, IN];
    const file = await open({
      inputs: { x: ["FLOAT", ...shape] },
      outputs: { y: ["FLOAT", "a", "b"] },
      initializers: { w: weight },
      nodes,
    });
    const [layer, ...others] = findGraphLayers(file) as [GraphLayer];
    expect(others).toEqual([]);
    expect(layer).toMatchObject({ node: "layer", op: nodes.at(-1)?.op, initializer: "w", input: "x", conv: null });
    expect([layer.rows, layer.cols, layer.channelAxis]).toEqual([OUT, IN, hasChannelsFirst ? -2 : -1]);

    const data = waves(IN * COUNT, 99);
    const found = await runOutput(file, shape, data);
    const weightAt = weightOf(layer, weight.data as Float32Array);
    const channel = (sample: number, c: number) =>
      data[hasChannelsFirst ? c * COUNT + sample : sample * IN + c] as number;
    const isOutputFirst = nodes.at(-1)?.in[1] === "x";
    for (let sample = 0; sample < COUNT; sample++) {
      for (let row = 0; row < OUT; row++) {
        let sum = 0;
        for (let c = 0; c < IN; c++) sum += weightAt(row, c) * channel(sample, c);
        expect(found[isOutputFirst ? row * COUNT + sample : sample * OUT + row]).toBeCloseTo(sum, 5);
      }
    }
  });

  it("lists every node that shares a weight, in the graph's order, by its output where it has no name", async () => {
    const file = await open({
      inputs: { x: ["FLOAT", 1, 4] },
      outputs: { y: ["FLOAT", 1, 4] },
      initializers: { v: { dims: [4, 4], data: waves(16, 50) }, w: { dims: [4, 4], data: waves(16) } },
      nodes: [
        { op: "MatMul", name: "first", in: ["x", "w"], out: ["a"] },
        { op: "Cast", in: ["w"], out: ["c"], attributes: { to: 1 } },
        { op: "MatMul", in: ["a", "v"], out: ["b"] },
        { op: "MatMul", name: "last", in: ["b", "c"], out: ["y"] },
      ],
    });
    const found = findGraphLayers(file).map(({ node, initializer, input }) => [node, initializer, input]);
    expect(found).toEqual([
      ["first", "w", "x"],
      ["b", "v", "a"],
      ["last", "w", "b"],
    ]);
  });
});

describe("a convolution", () => {
  interface Case {
    readonly spatial: readonly number[];
    readonly kernel: readonly number[];
    readonly attributes: Record<string, number | string | readonly number[]>;
    readonly groups?: number;
    readonly expected: Partial<ConvGeometry>;
  }
  it.each<[string, Case]>([
    ["of the defaults", { spatial: [5, 6], kernel: [3, 2], attributes: {}, expected: { pads: [0, 0, 0, 0] } }],
    [
      "with uneven pads, strides and dilations",
      {
        spatial: [7, 9],
        kernel: [3, 2],
        attributes: { pads: [2, 0, 1, 3], strides: [2, 1], dilations: [1, 3], auto_pad: "NOTSET" },
        expected: { kernel: [3, 2], pads: [2, 0, 1, 3], strides: [2, 1], dilations: [1, 3], groups: 1 },
      },
    ],
    ["in groups", { spatial: [4, 4], kernel: [1, 1], attributes: { group: 2 }, groups: 2, expected: { groups: 2 } }],
    [
      "in one dimension",
      {
        spatial: [9],
        kernel: [3],
        attributes: { pads: [2, 1], strides: [2], dilations: [2] },
        expected: { kernel: [1, 3], pads: [0, 2, 0, 1], strides: [1, 2], dilations: [1, 2] },
      },
    ],
    [
      "padded to the same size, more behind",
      { spatial: [5, 5], kernel: [4, 3], attributes: { auto_pad: "SAME_UPPER" }, expected: { pads: [1, 1, 2, 1] } },
    ],
    [
      "padded to the same size, more before",
      {
        spatial: [5, 6],
        kernel: [2, 2],
        attributes: { auto_pad: "SAME_LOWER" },
        expected: { pads: [1, 1, 0, 0] },
      },
    ],
    [
      "padded not at all",
      { spatial: [5, 5], kernel: [2, 2], attributes: { auto_pad: "VALID" }, expected: { pads: [0, 0, 0, 0] } },
    ],
  ])(
    "%s has the geometry that gives its output",
    async (_title, { spatial, kernel, attributes, groups = 1, expected }) => {
      const channels = 4;
      const rows = 6;
      const dims = [rows, channels / groups, ...kernel];
      const data = waves(dims.reduce((a, b) => a * b));
      const axes = spatial.map((_, axis) => `s${axis}`);
      const file = await open({
        inputs: { x: ["FLOAT", 1, channels, ...spatial] },
        outputs: { y: ["FLOAT", 1, rows, ...axes] },
        initializers: { w: { dims, data } },
        nodes: [{ op: "Conv", name: "conv", in: ["x", "w"], out: ["y"], attributes }],
      });
      const [layer] = findGraphLayers(file) as [GraphLayer];
      expect(layer).toMatchObject({ node: "conv", op: "Conv", input: "x", channelAxis: 1, transposed: false, rows });
      expect(layer.cols).toBe(data.length / rows);
      const geometry = layer.conv as ConvGeometry;
      expect(geometry).toMatchObject(expected);
      const [height, width] = spatial.length === 1 ? [1, spatial[0] as number] : (spatial as [number, number]);
      const input = waves(channels * height * width, 7);
      const found = await runOutput(file, [1, channels, ...spatial], input);
      const computed = convolve(layer, geometry, data, { channels, height, width, input });
      expect(found.length).toBe(computed.length);
      for (const [i, value] of computed.entries()) expect(found[i]).toBeCloseTo(value, 5);
    },
  );

  interface Image {
    readonly channels: number;
    readonly height: number;
    readonly width: number;
    readonly input: Float32Array;
  }

  function convolve(layer: GraphLayer, geometry: ConvGeometry, stored: Float32Array, image: Image): number[] {
    const { kernel, strides, pads, dilations, groups } = geometry;
    const { channels, height, width, input } = image;
    const steps = ([0, 1] as const).map((axis) => {
      const padded = [height, width][axis]! + pads[axis]! + pads[axis + 2]!;
      return Math.floor((padded - dilations[axis] * (kernel[axis] - 1) - 1) / strides[axis]) + 1;
    }) as [number, number];
    const at = (c: number, y: number, x: number): number =>
      y < 0 || x < 0 || y >= height || x >= width ? 0 : (input[(c * height + y) * width + x] as number);
    const weightAt = weightOf(layer, stored);
    const output: number[] = [];
    for (let row = 0; row < layer.rows; row++) {
      const firstChannel = Math.floor(row / (layer.rows / groups)) * (channels / groups);
      for (let y = 0; y < steps[0]; y++) {
        for (let x = 0; x < steps[1]; x++) {
          let sum = 0;
          for (let col = 0; col < layer.cols; col++) {
            const position = col % (kernel[0] * kernel[1]);
            const c = firstChannel + Math.floor(col / (kernel[0] * kernel[1]));
            const top = y * strides[0] - pads[0] + Math.floor(position / kernel[1]) * dilations[0];
            const left = x * strides[1] - pads[1] + (position % kernel[1]) * dilations[1];
            sum += weightAt(row, col) * at(c, top, left);
          }
          output.push(sum);
        }
      }
    }
    return output;
  }
});

describe("an initializer that", () => {
  const weight: TensorSpec = { dims: [4, 4], data: waves(16) };
  const kernel: TensorSpec = { dims: [2, 2, 3, 3], data: waves(36) };
  const matMul: NodeSpec = { op: "MatMul", in: ["x", "w"], out: ["m"] };
  const conv = (attributes: NodeSpec["attributes"]): NodeSpec => ({
    op: "Conv",
    in: ["x", "w"],
    out: ["y"],
    ...(attributes === undefined ? {} : { attributes }),
  });
  const body = buildGraph({ nodes: [{ op: "MatMul", in: ["x", "w"], out: ["inner"] }] });

  it.each<[string, TensorSpec, NodeSpec[], RegExp]>([
    ["is looked up", weight, [{ op: "Gather", in: ["w", "i"], out: ["y"] }], /^Gather "y" looks up its rows/],
    ["is looked up too", weight, [matMul, { op: "Gather", in: ["w", "i"], out: ["y"] }], /^Gather "y" looks up/],
    ["is added", weight, [{ op: "Add", in: ["x", "w"], out: ["y"] }], /^Add "y" reads it$/],
    [
      "is used both ways",
      weight,
      [matMul, { op: "MatMul", in: ["w", "m"], out: ["y"] }],
      /both as it is and transposed/,
    ],
    ["is a stack of matrices", { dims: [2, 2, 4], data: waves(16) }, [matMul], /has 3 dimensions/],
    ["is a bias", weight, [{ op: "Gemm", in: ["x", "x", "w"], out: ["y"] }], /is a bias/],
    ["multiplies a constant", weight, [{ op: "MatMul", in: ["k", "w"], out: ["y"] }], /multiplies the constant "k"/],
    ["is another domain's", weight, [{ ...matMul, domain: "com.example" }], /^MatMul "m" reads it$/],
    [
      "is used in a branch",
      weight,
      [{ op: "If", in: ["i"], out: ["y"], attributes: { then_branch: body } }],
      /^If "y"/,
    ],
    ["is not read", weight, [], /no node reads it/],
    ["holds integers", { dims: [2, 1], data: BigInt64Array.of(1n, 2n), type: "INT64" }, [matMul], /holds I64/],
    ["is empty", { dims: [0, 4], data: new Float32Array(0) }, [matMul], /is empty/],
    ["is a 3-D kernel", { dims: [1, 1, 2, 2, 2], data: waves(8) }, [conv(undefined)], /3 spatial dimensions/],
    ["has strides of nothing", kernel, [conv({ strides: [0, 1] })], /make no sense/],
    ["has groups that do not divide", kernel, [conv({ group: 3 })], /make no sense/],
    ["has pads for another rank", kernel, [conv({ pads: [1, 1] })], /pads make no sense/],
    [
      "is padded by the input's size",
      kernel,
      [conv({ auto_pad: "SAME_UPPER", strides: [2, 2] })],
      /depend on the input/,
    ],
  ])("%s, and is refused with that reason", async (_title, tensor, nodes, reason) => {
    const constant: TensorSpec = { dims: [4], data: waves(4) };
    const { layers, refused } = findGraphWeights(await open({ initializers: { w: tensor, k: constant }, nodes }));
    expect(layers).toEqual([]);
    expect([...refused.keys()]).toEqual(["w"]);
    expect(refused.get("w")).toMatch(reason);
  });

  it.each(["DequantizeLinear", "MatMulInteger", "MatMulNBits"])(
    "makes the graph a quantized one under %s",
    async (op) => {
      const spec: GraphSpec = {
        initializers: { w: { dims: [4, 4], data: new Uint8Array(16), type: "UINT8" } },
        nodes: [{ op, name: "q", in: op === "DequantizeLinear" ? ["w", "s"] : ["x", "w"], out: ["y"] }],
      };
      const file = await open(spec);
      expect(() => findGraphLayers(file)).toThrow(`is quantized already: ${op} "q" reads weight "w"`);
      expect(() => findGraphLayers(file)).toThrow(expect.objectContaining({ code: "E_GRAPH" }));
    },
  );

  it("ends where nodes feed each other in a circle", async () => {
    const nodes: NodeSpec[] = [
      { op: "Identity", in: ["w"], out: ["a"] },
      { op: "Identity", in: ["a"], out: ["w"] },
    ];
    expect(findGraphLayers(await open({ initializers: { w: weight }, nodes }))).toEqual([]);
  });
});
