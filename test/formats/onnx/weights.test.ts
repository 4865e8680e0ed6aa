/** What an ONNX model's initializers are as a model's tensors: names, shapes as torch has them, places, roles. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openModel } from "../../../dist/formats/open.js";
import type { TensorInfo } from "../../../dist/tensor/info.js";
import { ATTRIBUTE, encode, floats, type GraphInit, model, type NodeInit, node, SHIPPED, TYPE } from "./graphs.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "arrowquant-onnx-weights-"));
});
afterAll(() => rm(folder, { recursive: true }));

async function open(graph: GraphInit, name = "g.onnx") {
  const path = join(folder, name);
  await writeFile(path, encode(model(graph)));
  const { components, warnings } = await openModel(path);
  const [component] = components;
  return { component: component!, warnings, byName: new Map(component!.tensors.map((each) => [each.name, each])) };
}

const named = (name: string, each: NodeInit): NodeInit => ({ ...each, name });
const int = (name: string, value: number) => ({ name, type: ATTRIBUTE.int, i: BigInt(value) });
const perm = { name: "perm", type: ATTRIBUTE.ints, ints: [1n, 0n] };
const zeros = (name: string, ...shape: number[]) =>
  floats(name, shape, new Float32Array(shape.reduce((product, size) => product * size, 1)));

describe("orientation", () => {
  // A matrix of 3 outputs and 5 inputs, as each node takes it.
  const cases: readonly [string, readonly [number, number], NodeInit[], boolean][] = [
    ["MatMul, second operand", [5, 3], [node("MatMul", ["x", "w"], "y")], true],
    ["MatMul, first operand", [3, 5], [node("MatMul", ["w", "x"], "y")], false],
    ["Gemm", [5, 3], [node("Gemm", ["x", "w"], "y")], true],
    ["Gemm, transB", [3, 5], [node("Gemm", ["x", "w"], "y", [int("transB", 1)])], false],
    ["Gemm, first operand, transA", [5, 3], [node("Gemm", ["w", "x"], "y", [int("transA", 1)])], true],
    ["Transpose, MatMul", [3, 5], [node("Transpose", ["w"], "t", [perm]), node("MatMul", ["x", "t"], "y")], false],
    ["Gather", [3, 5], [node("Gather", ["w", "i"], "y")], false],
    [
      "Identity, Cast, MatMul",
      [5, 3],
      [
        node("Identity", ["w"], "i"),
        node("Cast", ["i"], "c", [int("to", TYPE.float)]),
        node("MatMul", ["x", "c"], "y"),
      ],
      true,
    ],
  ]; // prettier-ignore
  it.each(cases)("of %s", async (_, stored, nodes, transposed) => {
    const { byName } = await open({ node: nodes, initializer: [zeros("w", ...stored)] });
    const weight = byName.get("w");
    expect(weight?.shape).toEqual([3, 5]);
    expect(weight?.transposed).toBe(transposed || undefined);
    expect(weight?.notWeight).toBeUndefined();
  });

  it("is found within subgraphs, weights of the graph around them and their own", async () => {
    const inner = { name: "then", node: [node("MatMul", ["x", "w"], "a"), node("MatMul", ["x", "own"], "b")] };
    const branch = { name: "then_branch", type: ATTRIBUTE.graph, g: { ...inner, initializer: [zeros("own", 5, 3)] } };
    const { byName } = await open({ node: [node("If", ["f"], "y", [branch])], initializer: [zeros("w", 5, 3)] });
    for (const name of ["w", "own"]) expect(byName.get(name)).toMatchObject({ shape: [3, 5], transposed: true });
  });
});

describe("names", () => {
  const gemm = named("/blocks.0/attn/to_q/MatMul", node("MatMul", ["x", "onnx::MatMul_7"], "y"));

  it("of modules stand in for those that the exporter made up", async () => {
    const { byName } = await open({ node: [gemm], initializer: [zeros("onnx::MatMul_7", 5, 3)] });
    expect([...byName.keys()]).toEqual(["blocks.0.attn.to_q.weight"]);
  });

  it("stay as they are where the module's is taken, by a tensor or by another one's path", async () => {
    const twin = named("/blocks.0/attn/to_q/MatMul", node("MatMul", ["x", "onnx::MatMul_8"], "z"));
    const both = [zeros("onnx::MatMul_7", 5, 3), zeros("onnx::MatMul_8", 5, 3)];
    const { byName } = await open({ node: [gemm, twin], initializer: both });
    expect([...byName.keys()].sort()).toEqual(["onnx::MatMul_7", "onnx::MatMul_8"]);
    const taken = [zeros("onnx::MatMul_7", 5, 3), zeros("blocks.0.attn.to_q.weight", 2, 2)];
    const other = await open({ node: [gemm], initializer: taken });
    expect(other.byName.has("onnx::MatMul_7")).toBe(true);
  });
});

describe("roles", () => {
  it("of what no layer multiplies are told, with the node that reads it", async () => {
    const use = named("/norm/Mul", node("Mul", ["x", "gain"], "y"));
    const mixed = [node("MatMul", ["x", "both"], "a"), node("MatMul", ["both", "x"], "b")];
    const { byName } = await open({
      node: [use, ...mixed, node("MatMul", ["x", "stack"], "c")],
      initializer: [zeros("gain", 8, 1, 1), zeros("both", 4, 4), zeros("stack", 2, 3, 4), zeros("unread", 2, 2)],
    });
    const why = (name: string) => (byName.get(name) as TensorInfo).notWeight;
    expect(why("gain")).toBe('Mul "/norm/Mul" reads it');
    expect(why("both")).toContain("both as it is and transposed");
    expect(why("stack")).toContain("MatMul");
    expect(why("unread")).toBe("no node reads it");
  });

  it("of quantized weights are refused", async () => {
    const quantized = { node: [node("DequantizeLinear", ["q", "s"], "w"), node("MatMul", ["x", "w"], "y")] };
    await expect(open({ ...quantized, initializer: [zeros("q", 4, 4)] })).rejects.toMatchObject({
      code: "E_PREQUANTIZED",
      details: { op: "DequantizeLinear", initializer: "q" },
    });
  });
});

it("elements lie where the file has them, the smallest too; lists of integers are left out and named", async () => {
  const { component, warnings } = await open({
    node: [node("Add", ["x", "bias"], "y")],
    initializer: [
      floats("bias", [3], [1, 2, 3]),
      { name: "list", dims: [2n], dataType: TYPE.float, floatData: [4, 5] },
      { name: "ints", dims: [2n], dataType: TYPE.int64, int64Data: [1n, 2n] },
    ],
  });
  expect(component.tensors.map(({ name }) => name)).toEqual(["bias", "list"]);
  expect(warnings).toEqual([expect.stringMatching(/^"ints" is left out/)]);
});

describe.each(SHIPPED)("$name", ({ folder: pipeline, path }) => {
  it("has the names and shapes of the model's own weights", async () => {
    const [own] = (await openModel(pipeline)).components;
    const [found] = (await openModel(path)).components;
    const shapes = (tensors: readonly TensorInfo[]) =>
      tensors.filter(({ shape }) => shape.length >= 2).map(({ name, shape }) => `${name} [${shape}]`);
    const weights = found!.tensors.filter(({ notWeight }) => notWeight === undefined);
    expect(shapes(weights).sort()).toEqual(shapes(own!.tensors).sort());
    // The pipeline around it says what it is.
    expect(found).toMatchObject({ name: "model", className: own!.className, configText: own!.configText });
  });
});
