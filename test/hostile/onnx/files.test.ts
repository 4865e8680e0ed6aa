/** Model files made to hurt: each is refused with a code, none is decoded beyond the limits. */
import { mkdir, mkdtemp, open, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ArrowQuantError } from "../../../dist/errors.js";
import { readOnnx } from "../../../dist/formats/onnx/read.js";
import {
  LOCATED_BYTES,
  MAX_GRAPH_BYTES,
  MAX_MESSAGES,
  MAX_NESTING,
  MAX_TEXT_BYTES,
  MAX_UNKNOWN_FIELDS,
  MAX_VALUES,
} from "../../../dist/formats/onnx/wire.js";
import { openModel } from "../../../dist/formats/open.js";
import { encode, entries, floats, model, node, type TensorInit, TYPE, value } from "../../formats/onnx/graphs.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "arrowquant-hostile-"));
  await mkdir(join(folder, "model"));
  await mkdir(join(folder, "model/folder"));
  await writeFile(join(folder, "outside.bin"), Buffer.alloc(64));
  await writeFile(join(folder, "model/inside.bin"), Buffer.alloc(64));
  await symlink(join(folder, "outside.bin"), join(folder, "model/link.bin"));
});
afterAll(() => rm(folder, { recursive: true }));

/** Reads bytes as a model; the code of the refusal, or null where they are one. */
async function refusal(bytes: Uint8Array): Promise<string | null> {
  const path = join(folder, "model/model.onnx");
  await writeFile(path, bytes);
  const codes: (string | null)[] = [];
  // As the graph of a model, and as a model itself.
  for (const read of [readOnnx, openModel]) {
    try {
      await read(path);
      codes.push(null);
    } catch (thrown) {
      if (!(thrown instanceof ArrowQuantError)) throw thrown;
      codes.push(thrown.code);
    }
  }
  const [asGraph = null, asModel = null] = codes;
  // Which of several faults is met first may differ; other formats are known by their first bytes.
  expect(asModel === null).toBe(asGraph === null);
  return asGraph;
}

function varint(n: number): Buffer {
  const bytes: number[] = [];
  for (let rest = n; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return Buffer.from([...bytes, rest]);
    bytes.push((rest % 128) + 128);
  }
}

function field(number: number, content: Uint8Array, length = content.length): Buffer {
  return Buffer.concat([varint(number * 8 + 2), varint(length), content]);
}

function scalar(number: number, content: number): Buffer {
  return Buffer.concat([varint(number * 8), varint(content)]);
}

function repeat(bytes: Uint8Array, count: number): Buffer {
  return Buffer.alloc(bytes.length * count, bytes);
}

/** ModelProto.graph, GraphProto.node, NodeProto.attribute, AttributeProto.g … as onnx.proto numbers them. */
const graph = (...parts: Uint8Array[]): Buffer => field(7, Buffer.concat(parts));
const inNode = (...parts: Uint8Array[]): Buffer => graph(field(1, Buffer.concat(parts)));
const inAttribute = (...parts: Uint8Array[]): Buffer => inNode(field(5, Buffer.concat(parts)));
const inTensor = (...parts: Uint8Array[]): Buffer => graph(field(5, Buffer.concat(parts)));

function nest(depth: number, numbers: readonly number[]): Buffer {
  let bytes: Buffer = Buffer.alloc(0);
  for (let level = depth - 1; level >= 0; level--) bytes = field(numbers[level % numbers.length] as number, bytes);
  return bytes;
}

/** Graph, node, attribute, in turn; the model itself is one level. */
function nestedGraphs(depth: number): Buffer {
  const inner = nest(depth - 4, [6, 1, 5]);
  return inAttribute(inner);
}

function nestedTypes(depth: number): Buffer {
  // ValueInfoProto.type, then TypeProto.sequence_type and its elem_type by turns.
  return graph(field(11, field(2, nest(depth - 4, [4, 1]))));
}

/** A sound model: the graph is its last field, so no shorter run of its bytes is a model. */
function sound(): Buffer {
  const large = new Float32Array(LOCATED_BYTES / 4);
  const proto = model({
    node: [node("MatMul", ["x", "w"], "y")],
    initializer: [
      floats("w", [1, large.length], large),
      { name: "i", dataType: TYPE.int64, dims: [2n], int64Data: [1n, -1n] },
    ],
    input: [value("x", TYPE.float, ["batch", 1])],
    output: [value("y", TYPE.float)],
  });
  proto.opsetImport = [];
  return encode(proto);
}

describe("a file that was cut off", () => {
  test("is refused wherever it was cut", async () => {
    const bytes = sound();
    expect(await refusal(bytes)).toBe(null);
    const places = [...Array(400).keys(), ...Array.from({ length: 40 }, (_, index) => bytes.length - 1 - index)];
    for (const length of places) {
      const code = await refusal(bytes.subarray(0, length));
      expect(["E_TRUNCATED", "E_HEADER"], `${length} bytes`).toContain(code);
    }
  });
});

const LARGE = Buffer.alloc(LOCATED_BYTES);
const TENSOR_OF_LARGE = Buffer.concat([scalar(1, LOCATED_BYTES / 4), scalar(2, TYPE.float)]);

describe("bytes that are no message", () => {
  test.each<[string, Uint8Array, string]>([
    ["no bytes", Buffer.alloc(0), "E_HEADER"],
    ["a Git LFS pointer", Buffer.from("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "E_HEADER"],
    ["no graph", scalar(1, 8), "E_HEADER"],
    ["field 0", Buffer.from([0x02, 0]), "E_HEADER"],
    ["a field number beyond 29 bits", Buffer.concat([varint(2 ** 32 + 8), Buffer.from([0])]), "E_HEADER"],
    ["a group", graph(Buffer.from([0x0b, 0x0c])), "E_HEADER"],
    ["a group of an unknown field", graph(Buffer.from([0xa3, 0x06, 0xa4, 0x06])), "E_HEADER"],
    ["a wire type that does not exist", graph(Buffer.from([0x0e, 0])), "E_HEADER"],
    ["a field longer than the file", field(7, Buffer.alloc(4), 2 ** 31), "E_TRUNCATED"],
    ["a length of 2^63", Buffer.from([0x3a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1]), "E_TRUNCATED"],
    ["a field longer than the message around it", Buffer.concat([graph(field(2, LARGE, 5000)), LARGE]), "E_HEADER"],
    [
      "an integer of 11 bytes",
      Buffer.concat([Buffer.from([0x08]), Buffer.alloc(10, 0x80), Buffer.from([0])]),
      "E_HEADER",
    ],
    [
      "an integer of 65 bits",
      Buffer.concat([Buffer.from([0x08]), Buffer.alloc(9, 0xff), Buffer.from([2])]),
      "E_HEADER",
    ],
    ["an integer without end", Buffer.from([0x08, 0x80]), "E_TRUNCATED"],
    ["an integer that its message cuts", Buffer.concat([inNode(Buffer.from([0x50, 0x80])), scalar(1, 8)]), "E_HEADER"],
    ["a name that is an integer", graph(scalar(2, 1)), "E_HEADER"],
    ["a node that is an integer", graph(scalar(1, 1)), "E_HEADER"],
    ["a version that is text", field(1, Buffer.from("8")), "E_HEADER"],
    ["a float that is an integer", inAttribute(scalar(2, 1)), "E_HEADER"],
    ["packed floats of 5 bytes", inTensor(field(4, Buffer.alloc(5))), "E_HEADER"],
    ["packed integers cut in the middle", inTensor(field(7, Buffer.from([1, 0x80]))), "E_HEADER"],
    [
      "a packed integer of 11 bytes",
      inTensor(field(7, Buffer.concat([Buffer.alloc(10, 0x80), varint(1)]))),
      "E_HEADER",
    ],
    ["a name that is not UTF-8", inNode(field(3, Buffer.from([0x61, 0xc0, 0xaf]))), "E_UTF8"],
    ["a tensor's large data twice", inTensor(TENSOR_OF_LARGE, field(9, LARGE), field(9, LARGE)), "E_HEADER"],
    ["two kinds of large data", inTensor(TENSOR_OF_LARGE, field(9, LARGE), field(4, LARGE)), "E_HEADER"],
    ["large data and small", inTensor(TENSOR_OF_LARGE, field(9, LARGE), field(9, varint(1))), "E_HEADER"],
    [
      "a tensor in two parts, to be merged",
      inAttribute(...[1, 2].map(() => field(5, Buffer.concat([TENSOR_OF_LARGE, field(9, LARGE)])))),
      "E_DUPLICATE",
    ],
  ])("%s", async (_, bytes, code) => {
    expect(await refusal(bytes)).toBe(code);
  });
});

describe("bombs", () => {
  test("of depth end at the limit, and not before", async () => {
    for (const nested of [nestedGraphs, nestedTypes]) {
      expect(await refusal(nested(MAX_NESTING))).toBe(null);
      expect(await refusal(nested(MAX_NESTING + 1))).toBe("E_LIMIT");
      expect(await refusal(nested(20_000))).toBe("E_LIMIT");
    }
  });

  test.each<[string, () => Uint8Array]>([
    ["messages", () => inNode(repeat(field(5, Buffer.alloc(0)), MAX_MESSAGES))],
    ["packed integers", () => inTensor(field(7, Buffer.alloc(MAX_VALUES + 1, 1)))],
    ["packed floats", () => inAttribute(field(7, Buffer.alloc(4 * MAX_VALUES + 4)))],
    ["versions", () => Buffer.concat([repeat(scalar(1, 8), MAX_VALUES + 1), graph()])],
    ["unknown fields", () => graph(repeat(scalar(900, 1), MAX_UNKNOWN_FIELDS + 1))],
    ["text in one", () => graph(field(10, Buffer.alloc(MAX_TEXT_BYTES + 1, 0x61)))],
  ])("of %s end at the limit", async (_, bytes) => {
    expect(await refusal(bytes())).toBe("E_LIMIT");
  });

  test("of a graph too large for memory end at the limit, tensors of any size are left in the file", async () => {
    const path = join(folder, "model/sparse.onnx");
    const write = async (head: Buffer, byteLength: number): Promise<void> => {
      const handle = await open(path, "w");
      await handle.write(head);
      await handle.truncate(byteLength);
      await handle.close();
    };
    const head = Buffer.concat([varint(7 * 8 + 2), varint(MAX_GRAPH_BYTES + 10), varint(900 * 8 + 2)]);
    const unknown = Buffer.concat([head, varint(MAX_GRAPH_BYTES + 4)]);
    await write(unknown, unknown.length + MAX_GRAPH_BYTES + 4);
    await expect(readOnnx(path)).rejects.toMatchObject({ code: "E_LIMIT" });

    const byteLength = 5 * 2 ** 30;
    const about = Buffer.concat([field(8, Buffer.from("w")), scalar(1, byteLength), scalar(2, TYPE.uint8)]);
    const raw = Buffer.concat([about, varint(9 * 8 + 2), varint(byteLength)]);
    const tensor = Buffer.concat([varint(5 * 8 + 2), varint(raw.length + byteLength), raw]);
    const all = Buffer.concat([varint(7 * 8 + 2), varint(tensor.length + byteLength), tensor]);
    await write(all, all.length + byteLength);
    const { initializers } = await readOnnx(path);
    expect(initializers.get("w")).toMatchObject({
      shape: [byteLength],
      place: { path, byteOffset: all.length, byteLength },
    });
    await rm(path);
  });
});

function tensorModel(...initializer: TensorInit[]): Buffer {
  return encode(model({ initializer }));
}

const rawBytes = (byteLength: number) => ({ name: "w", dataType: TYPE.float, rawData: new Uint8Array(byteLength) });

describe("a tensor", () => {
  test.each<[string, Uint8Array, string | null]>([
    ["of a negative dimension", tensorModel({ ...rawBytes(4), dims: [-1n, -1n] }), "E_SHAPE"],
    ["of dimensions whose product overflows", tensorModel({ ...rawBytes(0), dims: [2n ** 62n, 2n ** 62n] }), "E_SHAPE"],
    ["of 2^60 elements", tensorModel({ ...rawBytes(4), dims: [2n ** 30n, 2n ** 30n] }), "E_SHAPE"],
    ["of 2^40 elements, located", tensorModel({ ...rawBytes(8192), dims: [2n ** 40n] }), "E_SHAPE"],
    ["of too little data", tensorModel({ ...rawBytes(8), dims: [3n] }), "E_SHAPE"],
    ["of too much data", tensorModel({ ...rawBytes(8192), dims: [3n] }), "E_SHAPE"],
    ["of no data", tensorModel({ name: "w", dataType: TYPE.float, dims: [3n] }), "E_SHAPE"],
    ["of data in another type's list", tensorModel({ name: "w", dataType: 1, dims: [1n], int64Data: [1n] }), "E_SHAPE"],
    ["of huge dimensions and a zero", tensorModel({ ...rawBytes(0), dims: [2n ** 52n, 0n, 2n ** 52n] }), null],
    ["of 65 dimensions", tensorModel({ ...rawBytes(4), dims: new Array<bigint>(65).fill(1n) }), "E_LIMIT"],
    ["of no type", tensorModel({ ...rawBytes(4), dataType: 0, dims: [1n] }), "E_DTYPE"],
    ["of an unknown type", tensorModel({ ...rawBytes(4), dataType: 99, dims: [1n] }), "E_DTYPE"],
    ["of raw text", tensorModel({ ...rawBytes(8192), dataType: 8, dims: [1n] }), "E_DTYPE"],
    ["that stands twice", tensorModel({ ...rawBytes(4), dims: [1n] }, { ...rawBytes(4), dims: [1n] }), "E_DUPLICATE"],
  ])("%s", async (_, bytes, code) => {
    expect(await refusal(bytes)).toBe(code);
  });
});

function external(record: Readonly<Record<string, string>>, rest: TensorInit = {}): Buffer {
  const tensor = { name: "w", dataType: TYPE.float, dims: [16n], externalData: entries(record), dataLocation: 1 };
  return tensorModel({ ...tensor, ...rest } as TensorInit);
}

describe("external data", () => {
  test.each<[string, Uint8Array, string | null]>([
    ["inside", external({ location: "inside.bin" }), null],
    ["above", external({ location: "../outside.bin" }), "E_PATH"],
    ["above, by a detour", external({ location: "folder/../../outside.bin" }), "E_PATH"],
    ["behind a link", external({ location: "link.bin" }), "E_PATH"],
    ["at an absolute path", external({ location: "/etc/passwd" }), "E_PATH"],
    ["at an absolute path of Windows", external({ location: "C:\\windows\\win.ini" }), "E_PATH"],
    ["behind a backslash", external({ location: "..\\outside.bin" }), "E_PATH"],
    ["behind a NUL byte", external({ location: "inside.bin\0.txt" }), "E_PATH"],
    ["in memory, as ONNX Runtime writes it", external({ location: "*/_ORT_MEM_ADDR_/*", offset: "64" }), "E_NOT_FOUND"],
    ["nowhere", external({}), "E_HEADER"],
    ["of no name", external({ location: "" }), "E_HEADER"],
    ["in a file that is not there", external({ location: "missing.bin" }), "E_NOT_FOUND"],
    ["in a folder", external({ location: "folder" }), "E_READ"],
    ["past the end", external({ location: "inside.bin", offset: "4" }), "E_TRUNCATED"],
    ["far past the end", external({ location: "inside.bin", offset: "9007199254740991" }), "E_TRUNCATED"],
    ["at a negative offset", external({ location: "inside.bin", offset: "-64" }), "E_INTEGER"],
    ["at an offset of 2^64", external({ location: "inside.bin", offset: "18446744073709551616" }), "E_INTEGER"],
    ["at an offset in hexadecimal", external({ location: "inside.bin", offset: "0x10" }), "E_INTEGER"],
    ["of too few bytes", external({ location: "inside.bin", length: "60" }), "E_SHAPE"],
    ["of text", external({ location: "inside.bin" }, { dataType: 8 }), "E_DTYPE"],
    ["and data inside", external({ location: "inside.bin" }, { rawData: new Uint8Array(64) }), "E_HEADER"],
    [
      "said twice",
      external({}, { externalData: [...entries({ location: "inside.bin" }), ...entries({ location: "link.bin" })] }),
      "E_DUPLICATE",
    ],
    [
      "of a constant in a subgraph",
      encode(
        model({
          node: [
            {
              opType: "If",
              attribute: [
                {
                  type: 5,
                  g: {
                    name: "body",
                    node: [
                      {
                        opType: "Constant",
                        attribute: [
                          {
                            type: 4,
                            t: {
                              dataType: TYPE.float,
                              dims: [16n],
                              externalData: entries({ location: "../outside.bin" }),
                              dataLocation: 1,
                            },
                          },
                        ],
                      },
                    ],
                  },
                },
              ],
            },
          ],
        }),
      ),
      "E_PATH",
    ],
  ])("%s", async (_, bytes, code) => {
    expect(await refusal(bytes)).toBe(code);
  });
});

describe("a damaged model", () => {
  test("is read or refused, never anything else", async () => {
    const bytes = sound();
    const damage = fc.record({
      at: fc.oneof(fc.nat({ max: 200 }), fc.nat({ max: bytes.length })),
      cut: fc.nat({ max: 3 }),
      insert: fc.uint8Array({ maxLength: 4 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(damage, { minLength: 1, maxLength: 4 }), async (damages) => {
        const damaged = damages.reduce(
          (whole, { at, cut, insert }) => Buffer.concat([whole.subarray(0, at), insert, whole.subarray(at + cut)]),
          bytes,
        );
        const code = await refusal(damaged);
        expect(code).not.toBe("E_INTERNAL");
      }),
      { numRuns: 500 },
    );
  });
});
