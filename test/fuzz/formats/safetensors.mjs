/** Safetensors files: headers first of all, and their data's length. */
import assert from "node:assert/strict";
import { openModel } from "../../../dist/formats/open.js";
import { BOUNDARIES, mutateBytes, mutateJson, mutateText, repeatSteps } from "../mutate.mjs";
import { INPUT_CODES, settle } from "./outcome.mjs";

const DTYPE_BITS = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
}; // prettier-ignore

const DICTIONARY = [
  ...BOUNDARIES,
  ...Object.keys(DTYPE_BITS).map((name) => `"${name}"`),
  ...["{", "}", "[", "]", ",", ":", '"', "\\", "null", "true", "false", "{}", "[]", '""', " ", "\n", "\ufeff"],
  ...['"__metadata__"', '"shape"', '"dtype"', '"data_offsets"', '"a"', '"b.weight"', '"format"', '"pt"'],
  ...["[0,0]", "[0]", "[1,1,1]", "[4294967296,4294967296]", "[0,18446744073709551615]", '"\\u0061"', '"__proto__"'],
  ...['"b.weight_scale"', '"b.scale_weight"', '"scaled_fp8"', '"b.comfy_quant"', '"c.qweight"', '"constructor"'],
];

export function buildSafetensors(tensors, metadata) {
  let begin = 0;
  const header = metadata === undefined ? {} : { __metadata__: metadata };
  for (const { name, dtype, shape } of tensors) {
    const byteLength = (DTYPE_BITS[dtype] * shape.reduce((product, size) => product * size, 1)) / 8;
    header[name] = { dtype, shape, data_offsets: [begin, begin + byteLength] };
    begin += byteLength;
  }
  const data = Buffer.from(Array.from({ length: begin }, (_, index) => (index * 37) & 0x3f));
  return joinFile(Buffer.from(JSON.stringify(header)), data);
}

function joinFile(header, data, claimed = BigInt(header.length)) {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt.asUintN(64, claimed));
  return Buffer.concat([length, header, data]);
}

const SEEDS = [
  buildSafetensors([]),
  buildSafetensors([{ name: "a", dtype: "F32", shape: [2, 3] }], { format: "pt" }),
  buildSafetensors([
    { name: "b.weight", dtype: "F8_E4M3", shape: [4, 8] },
    { name: "b.weight_scale", dtype: "F32", shape: [] },
    { name: "norm.weight", dtype: "BF16", shape: [4] },
    { name: "empty", dtype: "I64", shape: [0, 3] },
  ]),
  buildSafetensors(
    [
      { name: "b.weight", dtype: "F8_E5M2", shape: [4, 8] },
      { name: "b.scale_weight", dtype: "F32", shape: [4, 1] },
      { name: "b.comfy_quant", dtype: "U8", shape: [12] },
      { name: "conv.weight", dtype: "F16", shape: [2, 2, 3, 3] },
    ],
    { a: "b", "": "" },
  ),
];

/** A tensor of the right length in the wrong place, or one longer or shorter with its offsets to match. */
function moveTensor(random, header) {
  const entries = JSON.parse(header);
  const tensors = Object.values(entries).filter((entry) => Array.isArray(entry.data_offsets));
  if (tensors.length === 0) return header;
  const { shape, data_offsets: offsets } = random.pick(tensors);
  const delta = random.pick([-64, -32, -8, -4, -1, 1, 4, 8, 32, 64]);
  if (random.chance(0.5)) offsets[0] += delta;
  offsets[1] += delta;
  if (shape.length > 0 && random.chance(0.3)) shape[0] += delta;
  return Buffer.from(JSON.stringify(entries));
}

function mutate(random, seeds) {
  const base = random.pick(seeds);
  if (random.chance(0.2)) return repeatSteps(random, base, (bytes) => mutateBytes(random, bytes));
  const headerEnd = 8 + base.readUInt32LE(0);
  const mutateHeader = random.pick([mutateJson, mutateText, moveTensor]);
  const header = repeatSteps(random, base.subarray(8, headerEnd), (text) => mutateHeader(random, text, DICTIONARY));
  const data = base.subarray(headerEnd);
  // Data of the length that the changed header speaks of, so that the file may be legal again.
  const ends = [...header.toString("latin1").matchAll(/,\s*(\d+)\s*\]/g)].map(([, end]) => Number(end));
  const needed = Math.max(0, ...ends.filter((end) => end <= 4096));
  const fitting = random.chance(0.5) ? Buffer.alloc(needed, data.length > 0 ? data : 0) : data;
  return random.chance(0.9)
    ? joinFile(header, fitting)
    : joinFile(header, fitting, BigInt(header.length + random.pick([-8, -1, 1, 8, 2 ** 20, 2 ** 40, -(2 ** 40)])));
}

/** Entries of a header by JavaScript's own JSON parser; `[begin, end)` counted from the file's first byte. */
export function readEntries(bytes) {
  const headerEnd = 8 + Number(bytes.readBigUInt64LE(0));
  const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes.subarray(8, headerEnd));
  const entries = Object.entries(JSON.parse(text)).filter(([name]) => name !== "__metadata__");
  return entries.map(([name, { dtype, shape, data_offsets: offsets }]) => ({
    name,
    dtype,
    shape,
    begin: headerEnd + offsets[0],
    end: headerEnd + offsets[1],
    dataBegin: headerEnd,
  }));
}

/** That entries cover the data without gap or overlap, each as long as its shape and type say. */
function checkTiling(entries, dataBegin, fileEnd) {
  let covered = dataBegin;
  for (const { dtype, shape, begin, end } of entries.toSorted((a, b) => a.begin - b.begin || a.end - b.end)) {
    assert.equal(begin, covered, "tensors do not follow each other");
    const count = shape.reduce((product, size) => product * BigInt(size), 1n);
    assert.equal(BigInt(end - begin) * 8n, count * BigInt(DTYPE_BITS[dtype]), "a tensor of the wrong length");
    covered = end;
  }
  assert.equal(covered, fileEnd, "bytes belong to no tensor");
}

/** Tensors that may vanish from the list: parameters of quantization that are applied or checked. */
const PARAMETER = /(?:^|\.)(?:weight_scale|scale_weight|input_scale|scale_input|comfy_quant|scaled_fp8)$/;

async function check(path, bytes) {
  return settle(INPUT_CODES, async () => {
    const { components } = await openModel(path);
    const entries = readEntries(bytes);
    checkTiling(entries, 8 + Number(bytes.readBigUInt64LE(0)), bytes.length);
    const [{ tensors }] = components;
    const byName = new Map(entries.map((entry) => [entry.name, entry]));
    const applied = new Set(
      tensors.flatMap(({ sourceScale }) => (sourceScale === null ? [] : [sourceScale.tensorName])),
    );
    for (const { name, dtype, shape, location } of tensors) {
      const entry = byName.get(name);
      assert.deepEqual(
        { dtype, shape, begin: location.byteOffset, end: location.byteOffset + location.byteLength },
        { dtype: entry.dtype, shape: entry.shape, begin: entry.begin, end: entry.end },
      );
      byName.delete(name);
    }
    for (const name of byName.keys()) assert.ok(applied.has(name) || PARAMETER.test(name), `"${name}" was lost`);
  });
}

export default {
  module: import.meta.url,
  name: "safetensors",
  fileName: "case.safetensors",
  writeSeeds: async () => SEEDS,
  mutate,
  check,
};
