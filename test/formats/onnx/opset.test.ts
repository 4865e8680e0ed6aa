/** Raising the operator set keeps what a graph computes. */
import { create } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { cloneModel } from "../../../dist/formats/onnx/edit.js";
import { AttributeProtoSchema } from "../../../dist/formats/onnx/onnx-pb.js";
import { OPSET_OF_BLOCKS, raiseOpset } from "../../../dist/formats/onnx/opset.js";
import { ATTRIBUTE, encode, model, type NodeInit, TYPE, value } from "./graphs.js";

const integers = (name: string, ints: readonly bigint[]) =>
  create(AttributeProtoSchema, { name, type: ATTRIBUTE.ints, ints: [...ints] });

/** Mean over an axis, then the two halves of what is left. */
const NODES: NodeInit[] = [
  { name: "mean", opType: "ReduceMean", input: ["x"], output: ["m"], attribute: [integers("axes", [1n])] },
  { name: "split", opType: "Split", input: ["m"], output: ["a", "b"] },
];

const graph = (nodes: NodeInit[]) => ({
  node: nodes,
  input: [value("x", TYPE.float, [4, 3])],
  output: [value("a", TYPE.float, [2, 1]), value("b", TYPE.float, [2, 1])],
});

async function run(proto: ReturnType<typeof model>): Promise<number[][]> {
  const ort = await import("onnxruntime-node");
  const session = await ort.InferenceSession.create(encode(proto));
  const feeds = {
    x: new ort.Tensor(
      "float32",
      Float32Array.from({ length: 12 }, (_, i) => i * i - 7),
      [4, 3],
    ),
  };
  const { a, b } = await session.run(feeds);
  await session.release();
  return [a, b].map((tensor) => Array.from((tensor as { data: unknown }).data as Float32Array));
}

describe("raiseOpset", () => {
  it("gives reductions their axes and splits their number, with the same results", async () => {
    const before = model(graph(NODES));
    const after = cloneModel(before);
    expect(raiseOpset(after)).toBeNull();
    expect(after.opsetImport[0]?.version).toBe(OPSET_OF_BLOCKS);
    expect(await run(after)).toEqual(await run(before));
  });

  it.each([
    { opset: 12, opType: "Relu", reason: "operator set 12" },
    { opset: 17, opType: "DFT", reason: "DFT" },
  ])("leaves a graph as it was that it cannot raise: $reason", ({ opset, opType, reason }) => {
    const before = model(graph([...NODES, { name: "odd", opType, input: ["x"], output: ["y"] }]), { opset });
    const after = cloneModel(before);
    expect(raiseOpset(after)).toContain(reason);
    expect(encode(after).equals(encode(before))).toBe(true);
  });
});
