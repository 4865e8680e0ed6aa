import { appendFile, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create, createRegistry, equals, fromBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import type { Tensor } from "onnxruntime-node";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { cloneModel } from "../../../dist/formats/onnx/edit.js";
import {
  file_onnx,
  type ModelProto,
  ModelProtoSchema,
  TensorProto_DataLocation,
  ValueInfoProtoSchema,
} from "../../../dist/formats/onnx/onnx-pb.js";
import { type OnnxFile, readOnnx } from "../../../dist/formats/onnx/read.js";
import { EXTERNAL_ALIGNMENT, type InitializerBytes, writeOnnx } from "../../../dist/formats/onnx/write.js";
import {
  ATTRIBUTE,
  bytesOf,
  denoiserFeeds,
  encode,
  entries,
  fed,
  floats,
  model,
  node,
  readRange,
  runOnce,
  SHIPPED,
  type TensorInit,
  TYPE,
  value,
} from "./graphs.js";

/** Elements of float32 at which a payload is located rather than read. */
const LOCATED_FLOATS = 1024;

const WITH_UNKNOWN = { registry: createRegistry(file_onnx), unknown: true };

let folder: string;
let fileCount = 0;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "arrowquant-onnx-"));
});
afterAll(() => rm(folder, { recursive: true }));

async function newFolder(): Promise<string> {
  const path = join(folder, String(fileCount++));
  await mkdir(path);
  return path;
}

async function place(proto: ModelProto, name = "model.onnx"): Promise<string> {
  const path = join(await newFolder(), name);
  await writeFile(path, encode(proto));
  return path;
}

async function rewrite(file: OnnxFile, externalData: "auto" | "always" | "never"): Promise<string> {
  const path = join(await newFolder(), "written.onnx");
  await writeOnnx(file, { path, model: file.model, replaced: new Map(), externalData });
  return path;
}

async function elementsOf(file: OnnxFile, name: string): Promise<Buffer> {
  const found = file.initializers.get(name);
  if (found === undefined) throw new Error(`no initializer ${name}`);
  if (found.place === null) return Buffer.from(found.bytes as Uint8Array);
  const { path, byteOffset, byteLength } = found.place;
  return readRange(path, byteOffset, byteLength);
}

async function decode(path: string): Promise<ModelProto> {
  return fromBinary(ModelProtoSchema, await readFile(path));
}

describe.each(SHIPPED)("$name", ({ path }) => {
  test("predicts the same bits after it was read and written, inline and with external data", async () => {
    const file = await readOnnx(path);
    const feeds = denoiserFeeds(2, 420);
    const before = bytesOf((await runOnce(path, feeds))["noise_pred"]);
    for (const externalData of ["never", "always"] as const) {
      const written = await rewrite(file, externalData);
      expect(bytesOf((await runOnce(written, feeds))["noise_pred"]).equals(before), externalData).toBe(true);
      const again = await readOnnx(await rewrite(await readOnnx(written), "never"));
      for (const name of file.initializers.keys()) {
        expect((await elementsOf(again, name)).equals(await elementsOf(file, name)), name).toBe(true);
      }
    }
  });

  test("written as one file holds the very message that it was read from", async () => {
    const written = await rewrite(await readOnnx(path), "auto");
    expect(equals(ModelProtoSchema, await decode(written), await decode(path), WITH_UNKNOWN)).toBe(true);
  });

  test("is read without its weights", async () => {
    const { model: graph, initializers, byteLength } = await readOnnx(path);
    const weightBytes = [...initializers.values()].reduce((sum, { place: at }) => sum + (at?.byteLength ?? 0), 0);
    expect(weightBytes + encode(graph).length).toBeLessThan(byteLength * 1.01);
    expect(encode(graph).length).toBeLessThan(byteLength * 0.03);
  });
});

type Storage = "raw" | "float" | "double" | "int64" | "uint64" | "int32" | "half" | "bool";

interface TensorSpec {
  readonly count: number;
  readonly storage: Storage;
  readonly seed: number;
}

/** The tensor as the file holds it, and its elements as bytes. */
function buildTensor(name: string, { count, storage, seed }: TensorSpec): { tensor: TensorInit; elements: Buffer } {
  const integers = Array.from({ length: count }, (_, index) => ((index * 2654435761 + seed) % 65536) - 32768);
  const dims = [BigInt(count)];
  const bytes = (array: ArrayBufferView): Buffer => Buffer.from(array.buffer, array.byteOffset, array.byteLength);
  switch (storage) {
    case "raw": {
      const elements = bytes(Float32Array.from(integers));
      return { tensor: { name, dims, dataType: TYPE.float, rawData: new Uint8Array(elements) }, elements };
    }
    case "float": {
      const tensor = { name, dims, dataType: TYPE.float, floatData: integers };
      return { tensor, elements: bytes(Float32Array.from(integers)) };
    }
    case "double": {
      const tensor = { name, dims, dataType: TYPE.double, doubleData: integers };
      return { tensor, elements: bytes(Float64Array.from(integers)) };
    }
    case "int64": {
      const int64Data = integers.map((integer) => BigInt(integer) * 2n ** 40n);
      return {
        tensor: { name, dims, dataType: TYPE.int64, int64Data },
        elements: bytes(BigInt64Array.from(int64Data)),
      };
    }
    case "uint64": {
      const uint64Data = integers.map((integer) => BigInt(integer + 32768));
      const elements = bytes(Uint32Array.from(uint64Data, Number));
      return { tensor: { name, dims, dataType: 12, uint64Data }, elements };
    }
    case "int32": {
      const tensor = { name, dims, dataType: TYPE.int32, int32Data: integers };
      return { tensor, elements: bytes(Int32Array.from(integers)) };
    }
    case "half": {
      const int32Data = integers.map((integer) => integer + 32768);
      return {
        tensor: { name, dims, dataType: TYPE.float16, int32Data },
        elements: bytes(Uint16Array.from(int32Data)),
      };
    }
    case "bool": {
      const int32Data = integers.map((integer) => integer & 1);
      return { tensor: { name, dims, dataType: 9, int32Data }, elements: bytes(Uint8Array.from(int32Data)) };
    }
  }
}

const tensorSpec: fc.Arbitrary<TensorSpec> = fc.record({
  count: fc.oneof(fc.nat({ max: 3 }), fc.integer({ min: LOCATED_FLOATS - 2, max: LOCATED_FLOATS + 2 })),
  storage: fc.constantFrom<Storage>("raw", "float", "double", "int64", "uint64", "int32", "half", "bool"),
  seed: fc.nat({ max: 65535 }),
});

/** Tensors in every place that a model has for them. */
const places = fc.record({
  main: fc.array(tensorSpec, { maxLength: 4 }),
  constants: fc.array(tensorSpec, { maxLength: 2 }),
  subgraph: fc.array(tensorSpec, { maxLength: 2 }),
  functions: fc.array(tensorSpec, { maxLength: 2 }),
  sparse: fc.array(tensorSpec, { maxLength: 1 }),
  unknown: fc.uint8Array({ minLength: 1, maxLength: 9 }),
});
type Places = typeof places extends fc.Arbitrary<infer T> ? T : never;

/** Elements by name, the sparse values' under no name. */
function buildModel(spec: Places): { proto: ModelProto; elements: Map<string, Buffer>; inGraphs: Set<string> } {
  const elements = new Map<string, Buffer>();
  const inGraphs = new Set<string>();
  const list = (group: keyof Omit<Places, "unknown">): TensorInit[] =>
    spec[group].map((tensorOf, index) => {
      const built = buildTensor(`${group}.${index}`, tensorOf);
      elements.set(`${group}.${index}`, built.elements);
      if (group === "main" || group === "subgraph") inGraphs.add(`${group}.${index}`);
      return built.tensor;
    });
  const body = { name: "body", initializer: list("subgraph"), docString: "ünïcode" };
  const constants = list("constants").map((t) => ({
    opType: "Constant",
    output: [`${t.name}.value`],
    attribute: [{ name: "value", type: ATTRIBUTE.tensor, t }],
  }));
  const inFunctions = list("functions").map((t) => ({
    opType: "Constant",
    attribute: [{ name: "value", type: ATTRIBUTE.tensor, t }],
  }));
  const graphInit = {
    initializer: list("main"),
    sparseInitializer: list("sparse").map((values) => ({ values, dims: [9n] })),
    node: [...constants, { opType: "If", attribute: [{ name: "then_branch", type: ATTRIBUTE.graph, g: body }] }],
    input: [value("x", TYPE.float, ["batch", 3])],
  };
  const proto = model(graphInit, {
    functions: [{ name: "f", domain: "d", node: inFunctions }],
    metadataProps: [{ key: "a", value: "b" }],
  });
  // A field that no version of ONNX has.
  const graph = proto.graph as NonNullable<ModelProto["graph"]>;
  graph.$unknown = [{ no: 1000, wireType: 2, data: Uint8Array.of(spec.unknown.length, ...spec.unknown) }];
  return { proto, elements, inGraphs };
}

/** Every tensor's elements by name, from a message alone. */
function listElements(proto: ModelProto): Map<string, Buffer> {
  const found = new Map<string, Buffer>();
  const visit = (item: unknown): void => {
    if (typeof item !== "object" || item === null || item instanceof Uint8Array) return;
    const message = item as Record<string, unknown> & { $typeName?: string };
    if (message.$typeName === "onnx.TensorProto") {
      const tensor = message as unknown as TensorInit & { name: string; rawData: Uint8Array };
      if (Object.hasOwn(tensor, "rawData")) found.set(tensor.name, Buffer.from(tensor.rawData));
    } else for (const inner of Object.values(message)) visit(inner);
  };
  visit(proto);
  return found;
}

describe("any model", () => {
  test("keeps every tensor's elements and all else, wherever they stand and however they are stored", async () => {
    await fc.assert(
      fc.asyncProperty(places, async (spec) => {
        const { proto, elements, inGraphs } = buildModel(spec);
        const path = await place(proto);
        const file = await readOnnx(path);
        expect(new Set(file.initializers.keys())).toEqual(inGraphs);
        for (const name of inGraphs) {
          expect((await elementsOf(file, name)).equals(elements.get(name) as Buffer), name).toBe(true);
        }
        const external = await readOnnx(await rewrite(file, "always"));
        for (const written of [await rewrite(file, "never"), await rewrite(external, "never")]) {
          const read = await decode(written);
          for (const [name, bytes] of listElements(read)) expect(bytes.equals(elements.get(name) as Buffer)).toBe(true);
          // What was located is raw now; all other fields are as they were.
          expect(equals(ModelProtoSchema, withoutElements(read), withoutElements(proto), WITH_UNKNOWN)).toBe(true);
          const again = await readOnnx(written);
          for (const name of inGraphs) {
            expect((await elementsOf(again, name)).equals(elements.get(name) as Buffer), name).toBe(true);
          }
        }
      }),
      { numRuns: 40 },
    );
  });
});

/** A copy in which tensors have no data. */
function withoutElements(proto: ModelProto): ModelProto {
  const copy = cloneModel(proto);
  const visit = (item: unknown): void => {
    if (typeof item !== "object" || item === null || item instanceof Uint8Array) return;
    const message = item as Record<string, unknown>;
    if (message["$typeName"] === "onnx.TensorProto") {
      delete message["rawData"];
      for (const key of ["floatData", "doubleData", "int32Data", "int64Data", "uint64Data"]) message[key] = [];
    } else for (const inner of Object.values(message)) visit(inner);
  };
  visit(copy);
  return copy;
}

const IN = 40;
const OUT = 30;

const WEIGHT = floats(
  "w",
  [IN, OUT],
  Array.from({ length: IN * OUT }, (_, index) => index % 7),
);

/** y = x·w + b, w large enough to be located. */
function linear(weight: TensorInit = WEIGHT): ModelProto {
  return model({
    node: [node("MatMul", ["x", "w"], "xw"), node("Add", ["xw", "b"], "y")],
    initializer: [weight, floats("b", [OUT], new Float32Array(OUT))],
    input: [value("x", TYPE.float, [1, IN])],
    output: [value("y", TYPE.float, [1, OUT])],
  });
}

function replacement(name: string, shape: number[], values: Float32Array, chunkBytes = 1000): InitializerBytes {
  const bytes = new Uint8Array(values.buffer);
  async function* chunks(): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < bytes.length; at += chunkBytes) yield bytes.subarray(at, at + chunkBytes);
  }
  return { name, dtype: "F32", shape, chunks };
}

describe("new weights", () => {
  test.each(["never", "always"] as const)("are what the written model computes with (%s external)", async (wish) => {
    const path = await place(linear());
    const file = await readOnnx(path);
    const weight = Float32Array.from({ length: IN * OUT }, (_, index) => (index % 11) - 5);
    const bias = Float32Array.from({ length: OUT }, (_, index) => index);
    const added = Float32Array.from({ length: 2 * LOCATED_FLOATS }, (_, index) => index);
    const edited = cloneModel(file.model);
    (edited.graph as NonNullable<ModelProto["graph"]>).output.push(
      create(ValueInfoProtoSchema, value("c", TYPE.float)),
    );
    const replaced = new Map([
      ["w", replacement("w", [IN, OUT], weight)],
      ["b", replacement("b", [OUT], bias)],
      ["c", replacement("c", [2, LOCATED_FLOATS], added)],
    ]);
    // In place: what is read lies in the file that is replaced.
    const written = await writeOnnx(file, { path, model: edited, replaced, externalData: wish });
    expect(written.files).toEqual(wish === "always" ? [path, `${path}.data`] : [path]);
    const sizes = await Promise.all(written.files.map(async (name) => (await stat(name)).size));
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(written.byteLength);
    const x = Float32Array.from({ length: IN }, (_, index) => index - 20);
    const { y, c } = await runOnce(path, { x: fed(x, [1, IN]) });
    const expected = Array.from(bias, (start, column) =>
      x.reduce((sum, factor, row) => sum + factor * (weight[row * OUT + column] as number), start),
    );
    expect(Array.from((y as Tensor).data as Float32Array)).toEqual(expected);
    expect((c as Tensor).data).toEqual(added);
    for (const { place: at } of (await readOnnx(path)).initializers.values()) {
      if (wish === "always" && at !== null) expect(at.byteOffset % EXTERNAL_ALIGNMENT).toBe(0);
    }
  });

  test.each([
    ["fewer", IN * OUT - 1],
    ["more", IN * OUT + 1],
  ])("of %s bytes than their shape says are refused, and nothing is left behind", async (_, count) => {
    const path = await place(linear());
    const file = await readOnnx(path);
    const target = join(await newFolder(), "out.onnx");
    const replaced = new Map([["w", replacement("w", [IN, OUT], new Float32Array(count))]]);
    await expect(
      writeOnnx(file, { path: target, model: file.model, replaced, externalData: "always" }),
    ).rejects.toMatchObject({ code: "E_SHAPE" });
    expect(await readdir(join(target, ".."))).toEqual([]);
  });

  test("beyond a gigabyte are not squeezed into one file", async () => {
    const file = await readOnnx(await place(linear()));
    const chunks = () => {
      throw new Error("asked for the bytes");
    };
    const replaced = new Map([["w", { name: "w", dtype: "F32", shape: [2 ** 14, 2 ** 14], chunks } as const]]);
    const path = join(await newFolder(), "out.onnx");
    await expect(writeOnnx(file, { path, model: file.model, replaced, externalData: "never" })).rejects.toMatchObject({
      code: "E_LIMIT",
    });
  });

  test("are not mixed with a source that has changed since it was read", async () => {
    const path = await place(linear());
    const file = await readOnnx(path);
    await appendFile(path, Uint8Array.of(0x12, 0));
    await expect(rewrite(file, "never")).rejects.toMatchObject({ code: "E_CHANGED" });
  });

  test("go to the only subgraph that has an initializer of the name, and not where several have", async () => {
    const body = (name: string) => ({
      name,
      initializer: [floats("w", [LOCATED_FLOATS], new Float32Array(LOCATED_FLOATS))],
    });
    const branch = (name: string) => ({ name, type: ATTRIBUTE.graph, g: body(name) });
    const one = await readOnnx(await place(model({ node: [{ opType: "If", attribute: [branch("then_branch")] }] })));
    const replaced = new Map([["w", replacement("w", [2], Float32Array.of(1, 2))]]);
    const path = join(await newFolder(), "out.onnx");
    await writeOnnx(one, { path, model: one.model, replaced, externalData: "never" });
    expect((await readOnnx(path)).initializers.get("w")).toMatchObject({ shape: [2] });
    expect((await readOnnx(path)).model.graph?.initializer).toEqual([]);
    const both = { opType: "If", attribute: [branch("then_branch"), branch("else_branch")] };
    expect((await readOnnx(await place(model({ node: [both] })))).initializers.size).toBe(0);
  });
});

describe("external data", () => {
  test.each([{}, { length: String(4 * IN * OUT) }])("of another writer is located (%j)", async (length) => {
    const whole = await readOnnx(await place(linear()));
    const weight = await elementsOf(whole, "w");
    const externalData = entries({ location: "sub/weights.bin", offset: "12", ...length, checksum: "0" });
    const { name, dataType, dims } = WEIGHT;
    const dataLocation = TensorProto_DataLocation.EXTERNAL;
    const path = await place(linear({ name, dataType, dims, dataLocation, externalData } as TensorInit));
    await mkdir(join(path, "../sub"));
    await writeFile(join(path, "../sub/weights.bin"), Buffer.concat([Buffer.alloc(12, 1), weight, Buffer.alloc(3)]));
    const file = await readOnnx(path);
    expect((await elementsOf(file, "w")).equals(weight)).toBe(true);
    expect(file.files.map((source) => source.name)).toEqual(["model.onnx", "sub/weights.bin"]);
    const x = fed(new Float32Array(IN).fill(1), [1, IN]);
    const before = await runOnce(path, { x });
    const after = await runOnce(await rewrite(file, "never"), { x });
    expect(after["y"]?.data).toEqual(before["y"]?.data);
  });
});
