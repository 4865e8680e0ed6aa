/** Graphs in float16 compute what they did in float32, within float16's digits, and keep their inputs and outputs. */
import { describe, expect, it } from "vitest";
import { cloneModel } from "../../../dist/formats/onnx/edit.js";
import { convertToHalf } from "../../../dist/formats/onnx/half-precision.js";
import type { ModelProto } from "../../../dist/formats/onnx/onnx-pb.js";
import { ATTRIBUTE, encode, fed, floats, model, node, runOnce, TYPE, value } from "./graphs.js";

const SIDE = 24;
const waves = (count: number, phase: number) =>
  Float32Array.from({ length: count }, (_, i) => Math.sin(1 + 12.9898 * (i + phase)));
const weight = (name: string, phase: number) =>
  floats(
    name,
    [SIDE, SIDE],
    waves(SIDE * SIDE, phase).map((w) => w / 5),
  );
const int = (name: string, each: number) => ({ name, type: ATTRIBUTE.int, i: BigInt(each) });

/** A timestep whose sines need more digits than float16 has, a residual block, a norm whose squares leave its range. */
function network(): ModelProto {
  const scalar = (output: string, each: number) =>
    node("Constant", [], output, [{ name: "value", type: ATTRIBUTE.tensor, t: floats("", [], [each]) }]);
  return model({
    input: [value("x", TYPE.float, ["n", SIDE]), value("t", TYPE.int64, ["n", 1])],
    output: [value("y", TYPE.float), value("e", TYPE.float), value("p", TYPE.float)],
    initializer: [
      floats(
        "frequencies",
        [1, SIDE],
        waves(SIDE, 3).map((f) => 1 + f / 2),
      ),
      weight("w1", 10),
      weight("w2", 999),
      floats("b1", [SIDE], waves(SIDE, 7)),
    ],
    node: [
      node("Cast", ["t"], "tf", [int("to", TYPE.float)]),
      node("Mul", ["tf", "frequencies"], "angles"),
      node("Sin", ["angles"], "e"),
      node("Add", ["x", "e"], "xe"),
      node("MatMul", ["xe", "w1"], "p"),
      scalar("large", 900),
      node("Mul", ["p", "large"], "wide"),
      scalar("two", 2),
      node("Pow", ["wide", "two"], "squares"),
      node("ReduceMean", ["squares"], "mean", [{ name: "axes", type: ATTRIBUTE.ints, ints: [-1n] }]),
      node("Sqrt", ["mean"], "deviation"),
      node("Div", ["wide", "deviation"], "normed"),
      node("Gemm", ["normed", "w2", "b1"], "q", [int("transB", 1)]),
      node("Relu", ["q"], "r"),
      node("Add", ["r", "p"], "y"),
    ],
  });
}

const feeds = () => ({
  x: fed(waves(2 * SIDE, 5), [2, SIDE]),
  t: fed(BigInt64Array.from([999n, 3n]), [2, 1]),
});

describe("a graph turned to float16", () => {
  const half = cloneModel(network());
  const given = convertToHalf(half, []);

  it("gives the same outputs, in the type they had", async () => {
    expect(given.size).toBe(0);
    const [expected, found] = [await runOnce(encode(network()), feeds()), await runOnce(encode(half), feeds())];
    expect(Object.keys(found)).toEqual(["y", "e", "p"]);
    for (const name of ["y", "e", "p"]) {
      const [a, b] = [expected[name]!, found[name]!];
      expect([b.type, b.dims]).toEqual(["float32", a.dims]);
      const [wanted, got] = [a.data as Float32Array, b.data as Float32Array];
      const error = Math.hypot(...wanted.map((each, i) => each - got[i]!)) / Math.hypot(...wanted);
      expect(error, name).toBeLessThan(name === "e" ? 1e-6 : 4e-3);
      // Some rounding there must be, or nothing was turned.
      if (name !== "e") expect(error, name).toBeGreaterThan(0);
    }
  });

  it("holds in float16 what products take, and in float32 what leads to the first of them", () => {
    const types = new Map(half.graph?.initializer.map(({ name, dataType }) => [name, dataType]));
    expect(types.get("frequencies")).toBe(TYPE.float);
    for (const name of ["w1", "w2", "b1"]) expect(types.get(name), name).toBe(TYPE.float16);
  });

  it("is refused where there are subgraphs", () => {
    const branch = { name: "then_branch", type: ATTRIBUTE.graph, g: { name: "then" } };
    expect(() => convertToHalf(model({ node: [node("If", ["f"], "y", [branch])] }), [])).toThrow(
      expect.objectContaining({ code: "E_GRAPH", message: expect.stringContaining("If") }),
    );
  });
});
