import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { cloneModel } from "../../dist/formats/onnx/edit.js";
import { type OnnxFile, readOnnx } from "../../dist/formats/onnx/read.js";
import { type OpenOptions, openModel } from "../../dist/formats/open.js";
import { type GraphMatch, matchGraph } from "../../dist/graph/match.js";
import type { Component } from "../../dist/tensor/info.js";
import { type Contents, folderMaker } from "../formats/folders.ts";
import { buildSafetensors, type Part } from "../hostile/safetensors/build.ts";
import {
  areModelsHere,
  graphOpener,
  MODELS,
  type NodeSpec,
  REAL_MODELS,
  type TensorSpec,
  waves,
} from "./onnx-model.ts";

async function componentOf(path: string, options: OpenOptions = {}): Promise<Component> {
  return (await openModel(path, options)).components[0] as Component;
}

interface Truth {
  readonly initializers: readonly {
    readonly initializer: string;
    readonly torch_name: string;
    readonly transposed: boolean;
    readonly used_by: readonly { readonly op: string; readonly node: string }[];
  }[];
}

/** What initializers.json says of the matrices and kernels: tensor name to where and how the graph has it. */
function readTruth(model: string): Map<string, object[]> {
  const { initializers } = JSON.parse(readFileSync(join(MODELS, model, "onnx/initializers.json"), "utf8")) as Truth;
  return new Map(
    initializers
      .filter(
        ({ torch_name, used_by }) => torch_name?.endsWith(".weight") && /MatMul|Gemm|Conv/.test(used_by[0]?.op ?? ""),
      )
      .map(({ initializer, torch_name, transposed, used_by }) => [
        torch_name,
        used_by.map(({ op, node }) => ({ initializer, transposed, op, node })),
      ]),
  );
}

function found(match: GraphMatch): Map<string, object[]> {
  return new Map(
    [...match.matched].map(([name, { layers }]) => [
      name,
      layers.map(({ initializer, transposed, op, node }) => ({ initializer, transposed, op, node })),
    ]),
  );
}

/** The graph as an exporter without a memory for names would have written it. */
function anonymise(file: OnnxFile): OnnxFile {
  const model = cloneModel(file.model);
  const names = new Map([...file.initializers.keys()].map((name, i) => [name, `val_${i}`]));
  for (const [i, node] of (model.graph?.node ?? []).entries()) {
    node.name = `n${i}`;
    node.input = node.input.map((name) => names.get(name) ?? name);
  }
  const initializers = new Map(
    [...file.initializers.values()].map((one) => [
      names.get(one.name) as string,
      { ...one, name: names.get(one.name) as string },
    ]),
  );
  return { ...file, model, initializers };
}

describe.skipIf(!areModelsHere)("a real model and its graph (skipped where ../shared is absent)", () => {
  describe.each(REAL_MODELS)("%s", (model, componentName) => {
    const variants: readonly (readonly [string, string, OpenOptions])[] = [
      ["F32", model, {}],
      ["F16", model, { variant: "fp16" }],
      ["BF16 in shards", `${model}/bf16-sharded`, {}],
    ];

    it.each(variants)("match as initializers.json says, with %s weights", async (_title, path, options) => {
      const file = await readOnnx(join(MODELS, model, "onnx/model.onnx"));
      const component = await componentOf(join(MODELS, path), options);
      const match = await matchGraph(file, component);
      expect(found(match)).toEqual(readTruth(model));
      const { targets } = JSON.parse(readFileSync(join(MODELS, model, "baselines.json"), "utf8")) as {
        targets: string[];
      };
      expect([...match.matched.keys()]).toEqual(
        expect.arrayContaining(targets.map((name) => name.replace(/(?:\.weight)?$/, ".weight"))),
      );
      expect(match.unmatched.every(({ reason }) => /looks up its rows/.test(reason))).toBe(true);

      const anonymous = await matchGraph(anonymise(file), component);
      expect(new Set([...anonymous.matched.values()].map(({ by }) => by))).toEqual(new Set(["content"]));
      const namesOf = ({ matched }: GraphMatch) =>
        [...matched].map(([name, { layers }]) => [
          name,
          layers.map(({ input, transposed }) => ({ input, transposed })),
        ]);
      expect(namesOf(anonymous)).toEqual(namesOf(match));
    });

    it("do not match the other model's graph", async () => {
      const [other] = REAL_MODELS.find(([name]) => name !== model) as [string, string];
      const file = await readOnnx(join(MODELS, other, "onnx/model.onnx"));
      const component = await componentOf(join(MODELS, model));
      expect(component.name).toBe(componentName);
      await expect(matchGraph(file, component)).rejects.toThrow(/holds none of the weights of/);
    });
  });
});

describe("matching", () => {
  const open = graphOpener();
  const make = folderMaker();

  function part(name: string, shape: readonly number[], data: Float32Array, dtype = "F32"): Part {
    return { name, dtype, shape, bytes: new Uint8Array(data.buffer) };
  }

  /** Opened as the component of its folder: `unet` where there is one. */
  async function componentWith(parts: readonly Part[], folder = ""): Promise<Component> {
    const file: Contents = { [join(folder, "model.safetensors")]: buildSafetensors(parts) };
    return componentOf(join(make(file), folder));
  }

  /** One MatMul per initializer, [in, out]; `name` gives the node's name. */
  function graphOf(
    weights: Record<string, TensorSpec>,
    name: (weight: string) => string = () => "",
  ): Promise<OnnxFile> {
    const nodes: NodeSpec[] = Object.keys(weights).map((weight, i) => {
      return { op: "MatMul", name: name(weight), in: [`x${i}`, weight], out: [`x${i + 1}`] };
    });
    return open({ initializers: weights, nodes });
  }

  const ROWS = 24;
  const COLS = 20;
  const weight = waves(ROWS * COLS);
  const turned = Float32Array.from(weight, (_, i) => weight[(i % ROWS) * COLS + Math.floor(i / ROWS)] as number);
  const stored: TensorSpec = { dims: [COLS, ROWS], data: turned };

  it.each([
    ["model.diffusion_model.a.weight", "a.weight"],
    ["a.weight", "unet._orig_mod.a.weight"],
    ["transformer.a.weight", "model.a.weight"],
  ])("knows %s as %s", async (tensorName, initializer) => {
    const component = await componentWith([part(tensorName, [ROWS, COLS], weight)], "unet");
    const { matched } = await matchGraph(await graphOf({ [initializer]: stored }), component);
    expect(matched.get(tensorName)).toMatchObject({ by: "name", layers: [{ initializer, transposed: true }] });
  });

  it("knows a kernel of one element from a matrix", async () => {
    const component = await componentWith([part("to_q.weight", [ROWS, COLS, 1, 1], weight)]);
    const { matched } = await matchGraph(await graphOf({ val_1: stored }), component);
    expect(matched.get("to_q.weight")).toMatchObject({ by: "content" });
  });

  it("refuses other values under a tensor's name or path, with the worst difference", async () => {
    const component = await componentWith([part("b.a.weight", [ROWS, COLS], weight)]);
    const other = Float32Array.from(turned);
    other[0] = (turned[0] as number) + 0.5;
    const changed: TensorSpec = { dims: [COLS, ROWS], data: other };
    const difference = /holds other weights: "b.a.weight" of model differs by up to 0\.5: .* there, .* here/;
    await expect(matchGraph(await graphOf({ "b.a.weight": changed }), component)).rejects.toThrow(difference);
    const byPath = matchGraph(await graphOf({ w: changed }, () => "/model/b/a/MatMul"), component);
    await expect(byPath).rejects.toThrow(difference);
    await expect(byPath).rejects.toMatchObject({ code: "E_GRAPH", details: { worst: { difference: 0.5 } } });
    const sized = graphOf({ "b.a.weight": { dims: [5, ROWS], data: waves(5 * ROWS) } });
    await expect(matchGraph(await sized, component)).rejects.toThrow("is 24 × 5 there and 24 × 20 here");
  });

  it("takes values for what they are where a path says otherwise", async () => {
    const second = waves(ROWS * COLS, 5000);
    const component = await componentWith([
      part("a.weight", [ROWS, COLS], weight),
      part("b.weight", [COLS, ROWS], second),
    ]);
    const file = await graphOf({ u: stored, v: { dims: [ROWS, COLS], data: turn(second, COLS, ROWS) } }, (name) =>
      name === "u" ? "/b/MatMul" : "/a/MatMul",
    );
    const { matched } = await matchGraph(file, component);
    expect([...matched].map(([name, { by, layers }]) => [name, by, layers[0]?.initializer])).toEqual([
      ["a.weight", "content", "u"],
      ["b.weight", "content", "v"],
    ]);
  });

  function turn(data: Float32Array, rows: number, cols: number): Float32Array {
    return Float32Array.from(data, (_, i) => data[(i % rows) * cols + Math.floor(i / rows)] as number);
  }

  it("gives copies of a weight to its tensor, and weights of the same values to their names only", async () => {
    const zeros = new Float32Array(ROWS * COLS);
    const component = await componentWith([
      part("a.weight", [ROWS, COLS], weight),
      part("zero.0.weight", [ROWS, COLS], zeros),
      part("zero.1.weight", [ROWS, COLS], zeros),
    ]);
    const zero: TensorSpec = { dims: [COLS, ROWS], data: zeros };
    const file = await graphOf({ c0: stored, c1: stored, z0: zero, z1: zero }, (name) =>
      name === "z0" ? "/zero.0/MatMul" : "",
    );
    const { matched, unmatched } = await matchGraph(file, component);
    expect(matched.get("a.weight")?.layers.map(({ initializer }) => initializer)).toEqual(["c0", "c1"]);
    expect(matched.get("zero.0.weight")).toMatchObject({ by: "path", layers: [{ initializer: "z0" }] });
    expect(unmatched).toEqual([
      { tensorName: "zero.1.weight", reason: expect.stringMatching(/do not tell it apart: "zero.0.weight", "zero.1/) },
    ]);
  });

  it("allows for the rounding of the coarser side, and for no more", async () => {
    // Halfway between two bfloat16: as far as rounding goes.
    const values = Float32Array.from({ length: ROWS * COLS }, (_, i) => (1 + i / 1024) * (i % 2 === 0 ? 1 : -1));
    const codes = Uint16Array.from(new Uint32Array(values.buffer), (bits) => (bits + 0x8000) >>> 16);
    const bf16: Part = { name: "a.weight", dtype: "BF16", shape: [ROWS, COLS], bytes: new Uint8Array(codes.buffer) };
    const file = await graphOf({ val: { dims: [COLS, ROWS], data: turn(values, ROWS, COLS) } });
    expect((await matchGraph(file, await componentWith([bf16]))).matched.size).toBe(1);
    const off = Float32Array.from(values, (value) => value * (1 + 2 ** -6));
    const wrong = await graphOf({ "a.weight": { dims: [COLS, ROWS], data: turn(off, ROWS, COLS) } });
    await expect(matchGraph(wrong, await componentWith([bf16]))).rejects.toMatchObject({ code: "E_GRAPH" });
    const f32 = await componentWith([
      part(
        "a.weight",
        [ROWS, COLS],
        values.map((value) => value * (1 + 2 ** -9)),
      ),
    ]);
    await expect(matchGraph(file, f32)).rejects.toMatchObject({ code: "E_GRAPH" });
  });

  it("applies the scales of float8 weights, one or one per row", async () => {
    const codes = Uint8Array.from({ length: ROWS * COLS }, (_, i) => (i * 7) % 120);
    const value = (code: number) => (code < 8 ? code / 512 : (1 + (code & 7) / 8) * 2 ** ((code >> 3) - 7));
    const perRow = Float32Array.from({ length: ROWS }, (_, row) => 1 + row / 8);
    for (const scales of [Float32Array.of(3), perRow]) {
      const real = Float32Array.from(
        codes,
        (code, i) => value(code) * (scales[scales.length > 1 ? Math.floor(i / COLS) : 0] as number),
      );
      const component = await componentWith([
        { name: "a.weight", dtype: "F8_E4M3", shape: [ROWS, COLS], bytes: codes },
        part("a.weight_scale", scales.length > 1 ? [ROWS, 1] : [], scales),
      ]);
      const file = await graphOf({ val: { dims: [COLS, ROWS], data: turn(real, ROWS, COLS) } });
      expect((await matchGraph(file, component)).matched.has("a.weight")).toBe(true);
    }
  });

  it("says of every other tensor of two dimensions and more why it has no layer", async () => {
    const component = await componentWith([
      part("a.weight", [ROWS, COLS], weight),
      part("a.bias", [ROWS], waves(ROWS)),
      part("gone.weight", [ROWS, COLS], waves(ROWS * COLS, 999)),
      part("token.weight", [ROWS, COLS], waves(ROWS * COLS, 77)),
      { name: "index", dtype: "I64", shape: [1, 2], bytes: new Uint8Array(16) },
      { name: "void", dtype: "F32", shape: [0, 2], bytes: new Uint8Array(0) },
    ]);
    const file = await open({
      initializers: { w: stored, "model.token.weight": { dims: [ROWS, COLS], data: waves(ROWS * COLS, 77) } },
      nodes: [
        { op: "MatMul", in: ["x", "w"], out: ["y"] },
        { op: "Gather", name: "g", in: ["model.token.weight", "i"], out: ["z"] },
      ],
    });
    const { unmatched } = await matchGraph(file, component);
    expect(Object.fromEntries(unmatched.map(({ tensorName, reason }) => [tensorName, reason]))).toEqual({
      "gone.weight": "the graph has no such weight",
      "token.weight": 'Gather "g" looks up its rows (an embedding)',
      index: "it holds I64, no weights",
      void: "it is empty",
    });
  });
});
