/** ONNX files as models: fields of the protobuf, and where tensors say that their data lies. */
import assert from "node:assert/strict";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { ModelProtoSchema } from "../../../dist/formats/onnx/onnx-pb.js";
import { openModel } from "../../../dist/formats/open.js";
import { mutateBytes, repeatSteps } from "../mutate.mjs";
import { INPUT_CODES, settle } from "./outcome.mjs";

const FLOAT = 1;
const BITS = { 1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 16: 16 };

const tensor = (name, dims, dataType = FLOAT, rest = {}) => {
  const count = dims.reduce((product, size) => product * size, 1);
  const rawData = new Uint8Array((count * (BITS[dataType] ?? 8)) / 8).map((_, index) => (index * 37) & 0x3f);
  return { name, dims: dims.map(BigInt), dataType, rawData, ...rest };
};
const ints = (name, values) => ({ name, type: 7, ints: values.map(BigInt) });
const int = (name, value) => ({ name, type: 2, i: BigInt(value) });
const node = (opType, input, output, attribute = []) => ({
  opType,
  name: `/block/${output}/${opType}`,
  input,
  output: [output],
  attribute,
});

function build({ nodes = [], initializer = [], rest = {} }) {
  const graph = { name: "g", node: nodes, initializer };
  const opsetImport = [{ domain: "", version: 17n }];
  const proto = create(ModelProtoSchema, { irVersion: 8n, opsetImport, graph, ...rest });
  return Buffer.from(toBinary(ModelProtoSchema, proto));
}

const EXTERNAL = { rawData: new Uint8Array(0), dataLocation: 1 };
const external = (record) => ({
  ...EXTERNAL,
  externalData: Object.entries(record).map(([key, value]) => ({ key, value: String(value) })),
});

const SEEDS = [
  build({}),
  build({
    nodes: [
      node("MatMul", ["x", "onnx::MatMul_1"], "y"),
      node("Gemm", ["y", "b.weight", "b.bias"], "z", [int("transB", 1)]),
    ],
    initializer: [tensor("onnx::MatMul_1", [3, 4]), tensor("b.weight", [2, 4]), tensor("b.bias", [2])],
  }),
  build({
    nodes: [
      node("Transpose", ["w"], "wt", [ints("perm", [1, 0])]),
      node("MatMul", ["wt", "x"], "y"),
      node("Conv", ["y", "kernel"], "c", [ints("kernel_shape", [3, 3])]),
      node("Gather", ["table", "i"], "e"),
      node("Mul", ["c", "gain"], "m"),
    ],
    initializer: [
      tensor("w", [4, 5], 10),
      tensor("kernel", [2, 2, 3, 3], 16),
      tensor("table", [7, 4], 11),
      tensor("gain", [4, 1, 1]),
      tensor("shape", [2], 7),
      { name: "listed", dims: [3n], dataType: 7, int64Data: [1n, 2n, 3n] },
      { name: "floats", dims: [3n], dataType: 1, floatData: [1, 2, 3] },
      tensor("empty", [0, 4]),
    ],
  }),
  build({
    nodes: [
      node("If", ["flag"], "f", [
        {
          name: "then_branch",
          type: 5,
          g: { name: "then", node: [node("MatMul", ["x", "inner"], "t")], initializer: [tensor("inner", [2, 2])] },
        },
      ]),
    ],
    initializer: [
      tensor("flag", [1], 9),
      tensor("own", [1, 4], 1, external({ location: "input.onnx", offset: 0, length: 16 })),
    ],
  }),
  build({
    nodes: [node("DequantizeLinear", ["q", "s"], "w"), node("MatMul", ["x", "w"], "y")],
    initializer: [tensor("q", [4, 4], 2), tensor("s", [])],
  }),
];

const EDGES = [0n, 1n, 2n, 3n, 4n, 7n, 8n, 10n, 16n, 21n, 22n, 28n, 29n, 64n, 65n, 255n, 2n ** 31n, 2n ** 32n].concat([
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 62n,
  2n ** 63n - 1n,
  -1n,
  -(2n ** 63n),
]); // prettier-ignore
const NAMES = ["", "x", "y", "w", "wt", "onnx::MatMul_1", "b.weight", "kernel", "inner", "own", "block.y.weight"];
const TEXTS = ["", "0", "-1", "1e2", "16", "4096", "9007199254740993", "../x", "/etc/passwd", "input.onnx", "a/../b"];
const OPS = ["MatMul", "Gemm", "Conv", "Gather", "Transpose", "Identity", "Cast", "DequantizeLinear", "MatMulNBits"];

/** One thing of the model changed that keeps it a protobuf. */
const STEPS = [
  (random, { graph }) => {
    const { dims } = random.pick(graph.initializer);
    const kind = random.below(5);
    if (kind === 0) dims.push(random.pick(EDGES));
    else if (kind === 1) dims.pop();
    else if (dims.length > 0) dims[random.below(dims.length)] = random.pick(EDGES);
  },
  (random, { graph }) => {
    random.pick(graph.initializer).dataType = random.below(30);
  },
  (random, { graph }) => {
    random.pick(graph.initializer).name = random.pick(NAMES);
  },
  (random, { graph }) => {
    const { rawData } = random.pick(graph.initializer);
    random.pick(graph.initializer).rawData = rawData.slice(0, random.below(rawData.length + 1));
  },
  (random, { graph }) => {
    const target = random.pick(graph.initializer);
    const [key, value] = [random.pick(["location", "offset", "length", "checksum"]), random.pick(TEXTS)];
    const entry = { $typeName: "onnx.StringStringEntryProto", key, value };
    target.externalData = [...target.externalData, entry];
    if (random.chance(0.7)) target.dataLocation = 1;
    if (random.chance(0.7)) target.rawData = new Uint8Array(0);
  },
  (random, { graph }) => {
    random.pick(graph.node).opType = random.pick(OPS);
  },
  (random, { graph }) => {
    const { input } = random.pick(graph.node);
    if (input.length > 0) input[random.below(input.length)] = random.pick(NAMES);
  },
  (random, { graph }) => {
    random.pick(graph.node).output[0] = random.pick(NAMES);
  },
  (random, { graph }) => {
    random.pick(graph.node).name = random.pick(["", "/", "///", "/a//b/", "MatMul_1"]);
  },
  (random, { graph }) => {
    const { attribute } = random.pick(graph.node);
    if (attribute.length === 0) return;
    const target = random.pick(attribute);
    target.i = random.pick(EDGES.slice(0, 20));
    target.ints = Array.from({ length: random.below(4) }, () => random.pick(EDGES.slice(0, 20)));
  },
  (random, { graph }) => graph.node.push(random.pick(graph.node)),
  (random, { graph }) => graph.initializer.push(random.pick(graph.initializer)),
];

function mutateModel(random, bytes) {
  let proto;
  try {
    proto = fromBinary(ModelProtoSchema, bytes);
  } catch {
    return mutateBytes(random, bytes);
  }
  if (!proto.graph || proto.graph.node.length === 0 || proto.graph.initializer.length === 0)
    return mutateBytes(random, bytes);
  random.pick(STEPS)(random, proto);
  try {
    return Buffer.from(toBinary(ModelProtoSchema, proto));
  } catch {
    // A number that the field does not hold.
    return bytes;
  }
}

function mutate(random, seeds) {
  return repeatSteps(random, random.pick(seeds), (bytes) =>
    random.chance(0.7) ? mutateModel(random, bytes) : mutateBytes(random, bytes),
  );
}

async function check(path, bytes) {
  return settle(INPUT_CODES, async () => {
    const { components, format } = await openModel(path);
    // Whatever the first bytes may have become is another format's to check.
    if (format !== "onnx") return;
    const [{ tensors, files }] = components;
    const names = new Set();
    for (const { name, shape, dtype, location, transposed } of tensors) {
      assert.ok(name !== "" && !names.has(name), `${name} stands twice`);
      names.add(name);
      const { byteOffset, byteLength } = location;
      assert.ok(byteOffset + byteLength <= files[location.file].byteLength, `${name} ends after its file`);
      if (transposed) assert.equal(shape.length, 2);
      const count = shape.reduce((product, size) => product * size, 1);
      assert.equal(byteLength, Math.ceil((count * dtypeBits(dtype)) / 8), `${name}: ${dtype} [${shape}]`);
    }
    const { graph } = fromBinary(ModelProtoSchema, bytes);
    const inner = graph.initializer.filter(({ name }) => name !== "");
    assert.ok(tensors.length >= inner.filter(isLocatable).length, "tensors are missing");
  });
}

/** Whether a tensor's elements lie one after the other in the file, in a type that models are made of. */
function isLocatable({ dataType, rawData, dataLocation }) {
  return BITS[dataType] !== undefined && rawData.length > 0 && dataLocation !== 1;
}

function dtypeBits(dtype) {
  if (dtype === "BOOL") return 8;
  return Number(/\d+/.exec(dtype)[0]);
}

export default {
  module: import.meta.url,
  name: "onnx",
  fileName: "input.onnx",
  writeSeeds: async () => SEEDS,
  mutate,
  check,
};
