import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { loadRuntime, type RunSession, type RunTensor, type Runtime } from "../../dist/runtime/runtime.js";
import { areModelsHere, graphOpener, MODELS, REAL_MODELS } from "../graph/onnx-model.ts";
import { openReference } from "./reference.ts";

const open = graphOpener();
let runtime: Runtime;
beforeAll(async () => {
  runtime = await loadRuntime();
});

describe("a machine without the runtime", () => {
  const script = fileURLToPath(new URL("missing.mjs", import.meta.url));
  it.each([
    ["missing", /which is not installed$/],
    ["broken", /cannot be loaded on .*libstdc\+\+\.so\.6: version not found/],
  ])("is told so where it is %s, with the line that installs it", (state, message) => {
    const { stdout, stderr } = spawnSync(process.execPath, [script, state], { encoding: "utf8" });
    const error = JSON.parse(stdout || JSON.stringify(stderr));
    expect(error).toMatchObject({ code: "E_RUNTIME", hint: "npm install onnxruntime-node" });
    expect(error.message).toMatch(message);
  });
});

describe.skipIf(!areModelsHere)("the real models (skipped where ../shared is absent)", () => {
  it.each(REAL_MODELS)("%s predicts what the reference has", async (model) => {
    const reference = openReference(join(MODELS, model, "eval_reference.safetensors"));
    const session = await runtime.open(join(MODELS, model, "onnx/model.onnx"), { threads: 2 });
    for (const step of reference.steps) {
      const { noise_pred: found } = await session.run(step.feeds);
      expect(relativeError(found?.data as Float32Array, step.prediction), `step ${step.time}`).toBeLessThan(1e-4);
    }
    await session.close();
  });
});

function relativeError(found: Float32Array, expected: Float32Array): number {
  const norm = (values: Float32Array) => Math.hypot(...values);
  return norm(found.map((value, i) => value - (expected[i] as number))) / norm(expected);
}

describe("a session", () => {
  async function openTypes(): Promise<RunSession> {
    const file = await open({
      inputs: { h: ["FLOAT16", "n"], t: ["INT64"], b: ["BOOL", 2], d: ["DOUBLE", 1] },
      outputs: { twice: ["FLOAT16", "n"], later: ["INT64"], not: ["BOOL", 2], root: ["DOUBLE", 1] },
      nodes: [
        { op: "Add", in: ["h", "h"], out: ["twice"] },
        { op: "Add", in: ["t", "t"], out: ["later"] },
        { op: "Not", in: ["b"], out: ["not"] },
        { op: "Sqrt", in: ["d"], out: ["root"] },
      ],
    });
    return runtime.open(file.path);
  }
  const feeds: Record<string, RunTensor> = {
    // 1.5, −2 and the smallest float16.
    h: { dtype: "F16", shape: [3], data: Uint16Array.of(0x3e00, 0xc000, 0x0001) },
    t: { dtype: "I64", shape: [], data: BigInt64Array.of(2n ** 53n + 1n) },
    b: { dtype: "BOOL", shape: [2], data: Uint8Array.of(1, 0) },
    d: { dtype: "F64", shape: [1], data: Float64Array.of(2) },
  };

  it("passes every type on as it is, and says what it takes", async () => {
    const session = await openTypes();
    expect(session.inputs).toEqual([
      { name: "h", dtype: "F16", shape: ["n"] },
      { name: "t", dtype: "I64", shape: [] },
      { name: "b", dtype: "BOOL", shape: [2] },
      { name: "d", dtype: "F64", shape: [1] },
    ]);
    expect(await session.run(feeds)).toEqual({
      twice: { dtype: "F16", shape: [3], data: Uint16Array.of(0x4200, 0xc400, 0x0002) },
      later: { dtype: "I64", shape: [], data: BigInt64Array.of(2n ** 54n + 2n) },
      not: { dtype: "BOOL", shape: [2], data: Uint8Array.of(0, 1) },
      root: { dtype: "F64", shape: [1], data: Float64Array.of(Math.SQRT2) },
    });
    expect(Object.keys(await session.run(feeds, ["root"]))).toEqual(["root"]);
    await session.close();
    await session.close();
    await expect(session.run(feeds)).rejects.toMatchObject({ code: "E_GRAPH" });
  });

  it("refuses feeds that are not the graph's, and outputs that it does not have, by name", async () => {
    const session = await openTypes();
    const refusal = (change: Record<string, RunTensor | undefined>, outputs?: string[]) =>
      session.run({ ...feeds, ...change } as Record<string, RunTensor>, outputs).then(
        () => null,
        ({ code, message }) => `${code}: ${message}`,
      );
    expect(await refusal({ t: undefined })).toMatch(/^E_GRAPH: input "t" of ".*" is I64, given was nothing$/);
    const float: RunTensor = { dtype: "F32", shape: [], data: Float32Array.of(1) };
    expect(await refusal({ t: float })).toMatch(/^E_GRAPH: input "t" of ".*" is I64, given was F32$/);
    const short: RunTensor = { dtype: "BOOL", shape: [2], data: Uint8Array.of(1) };
    expect(await refusal({ b: short })).toMatch(/^E_GRAPH: input "b" of .* size\(2\) does not match data length\(1\)/);
    const long: RunTensor = { dtype: "BOOL", shape: [3], data: Uint8Array.of(1, 0, 1) };
    expect(await refusal({ b: long })).toMatch(/^E_GRAPH: .* invalid dimensions for input: b .* Got: 3 Expected: 2/);
    expect(await refusal({}, ["nothing"])).toMatch(
      /^E_GRAPH: .* no output "nothing"; it has: twice, later, not, root$/,
    );
    await session.close();
  });

  it("is not opened on what is no graph, or has values that cannot be passed on", async () => {
    await expect(runtime.open("/nowhere/model.onnx")).rejects.toMatchObject({ code: "E_NOT_FOUND" });
    await expect(runtime.open(fileURLToPath(import.meta.url))).rejects.toMatchObject({ code: "E_GRAPH" });
    const brain = await open({
      inputs: { x: ["BFLOAT16", 1] },
      outputs: { y: ["BFLOAT16", 1] },
      nodes: [{ op: "Identity", in: ["x"], out: ["y"] }],
    });
    await expect(runtime.open(brain.path)).rejects.toMatchObject({ code: "E_GRAPH" });
    const text = await open({
      inputs: { x: ["STRING", 1] },
      outputs: { y: ["STRING", 1] },
      nodes: [{ op: "Identity", in: ["x"], out: ["y"] }],
    });
    await expect(runtime.open(text.path)).rejects.toThrow(/input "x" of ".*" is string, which cannot be passed on/);
  });
});
