/**
 * Outputs of a DiT-XL-shaped model as a user makes them: weights per second, and against the floor of reading what the
 * writer reads (the native file, or for GGUF the model) and writing as many bytes as the output.
 */
import { closeSync, existsSync, mkdirSync, openSync, readSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { create, toBinary } from "@bufbuild/protobuf";
import { ModelProtoSchema } from "../../dist/formats/onnx/onnx-pb.js";
import { fromFloat16Bits } from "../../dist/tensor/float16.js";
import { measureProcess, median } from "./end-to-end.mjs";
import { prepareModel } from "./model.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const PROGRAM = here("../../bin/arrowquant.js");
const FLOOR = here("floor.mjs");
const RESULTS = here("results/export.json");

const BYTES = 1e9;
const RUNS = 5;

/** The value of every float16. */
const VALUES = fromFloat16Bits(Uint16Array.from({ length: 2 ** 16 }, (_, bits) => bits));

/** What is quantized of DiT-XL. */
const LAYERS = /\.(?:attn1|ff|norm1\.linear)\..*weight$|\.norm1\.linear\.weight$/;

/** Each writer with the flags that choose it; the output's name ends in `ending`. */
const WRITERS = {
  "safetensors, F16": { ending: ".safetensors", flags: ["--dtype", "f16"] },
  "safetensors, F32": { ending: ".safetensors", flags: ["--dtype", "f32"] },
  "folder like the original, BF16": { ending: "", flags: ["--dtype", "bf16"], isLike: true },
  "ONNX, MatMulNBits": { ending: ".onnx", flags: [], hasGraph: true },
  "ONNX, float16": { ending: ".onnx", flags: ["--dtype", "f16"], hasGraph: true },
  "pack-quantized, scales F32": { ending: "", flags: ["--dtype", "f32", "--packed"] },
  "pack-quantized, scales BF16": { ending: "", flags: ["--dtype", "bf16", "--packed"] },
  "GGUF, q8_0": { ending: ".gguf", flags: ["--type", "q8_0", "--comfy"], isOfModel: true },
  "GGUF, q4_k": { ending: ".gguf", flags: ["--type", "q4_k", "--comfy"], isOfModel: true },
};

async function exportOnce({ ending, flags, isLike, hasGraph, isOfModel }, native, model) {
  const root = dirname(native);
  const output = join(root, `exported${ending}`);
  const remove = () => {
    for (const path of [output, `${output}.data`]) rmSync(path, { recursive: true, force: true });
  };
  remove();
  const like = isLike ? ["--like", model.folder] : [];
  const original = hasGraph ? ["--original", model.folder, "--graph", writeGraph(model)] : [];
  const source = isOfModel ? ["quantize", model.folder] : ["export", native];
  const line = [...source, "-o", output, ...flags, ...like, ...original, "--json"];
  const { stdout, ...measured } = await measureProcess(PROGRAM, line, join(root, "peak"));
  remove();
  return { ...measured, bytesOut: JSON.parse(stdout).summary.bytes_out };
}

/**
 * A graph of the model's quantized layers, each on an input of its own, whose weights are the safetensors file's: turned
 * to float32, since MatMulNBits takes no place of float16 products.
 */
function writeGraph({ folder, file }) {
  const path = join(folder, "model.onnx");
  if (existsSync(path)) return path;
  const header = readHeader(file);
  const layers = Object.entries(header.tensors).filter(([name, { shape }]) => shape.length === 2 && LAYERS.test(name));
  const node = (opType, input, output, attribute = []) => ({
    opType,
    name: output,
    input,
    output: [output],
    attribute,
  });
  const value = (name, shape) => {
    const dim = shape.map((size) => ({ value: { case: "dimValue", value: BigInt(size) } }));
    return { name, type: { value: { case: "tensorType", value: { elemType: 1, shape: { dim } } } } };
  };
  const floats = `${path}.data`;
  const places = writeFloats(file, header.dataBegin, layers, floats);
  const graph = {
    name: "bench",
    input: layers.map(([name, { shape }]) => value(`${name}/x`, [1, shape[1]])),
    output: layers.map(([name, { shape }]) => value(`${name}/y`, [1, shape[0]])),
    node: layers.map(([name]) => node("Gemm", [`${name}/x`, name], `${name}/y`, [{ name: "transB", type: 2, i: 1n }])),
    initializer: layers.map(([name, { shape }], index) => ({
      ...{ name, dims: shape.map(BigInt), dataType: 1, dataLocation: 1 },
      externalData: Object.entries({ location: basename(floats), ...places[index] }).map(([key, each]) => ({
        key,
        value: String(each),
      })),
    })),
  };
  const opsetImport = [{ domain: "", version: 17n }];
  writeFileSync(path, toBinary(ModelProtoSchema, create(ModelProtoSchema, { irVersion: 8n, opsetImport, graph })));
  return path;
}

function readHeader(file) {
  const handle = openSync(file, "r");
  try {
    const head = Buffer.alloc(8);
    readSync(handle, head, 0, 8, 0);
    const text = Buffer.alloc(Number(head.readBigUInt64LE(0)));
    readSync(handle, text, 0, text.length, 8);
    return { tensors: JSON.parse(text), dataBegin: 8 + text.length };
  } finally {
    closeSync(handle);
  }
}

/** The layers' weights as float32, one after the other; where each lies. */
function writeFloats(file, dataBegin, layers, path) {
  const [from, to] = [openSync(file, "r"), openSync(path, "w")];
  let offset = 0;
  try {
    return layers.map(
      ([
        ,
        {
          data_offsets: [begin, end],
        },
      ]) => {
        const halves = Buffer.alloc(end - begin);
        readSync(from, halves, 0, halves.length, dataBegin + begin);
        const floats = Float32Array.from(new Uint16Array(halves.buffer, 0, halves.length / 2), (bits) => VALUES[bits]);
        writeSync(to, new Uint8Array(floats.buffer, floats.byteOffset, floats.byteLength));
        const place = { offset, length: floats.byteLength };
        offset += floats.byteLength;
        return place;
      },
    );
  } finally {
    closeSync(from);
    closeSync(to);
  }
}

async function floorOnce(source, root, bytesOut) {
  const output = join(root, "floor.bin");
  const { seconds } = await measureProcess(FLOOR, [source, output, String(bytesOut)], join(root, "peak"));
  rmSync(output);
  return seconds;
}

/** Runs the bench, prints its table, writes its figures. */
export async function benchExport() {
  const model = prepareModel(BYTES);
  const native = join(dirname(model.folder), "exported.parquet");
  const rows = [];
  try {
    // Whole zero points, which the packed format needs.
    const settings = ["--method", "rtn", "--zero-point-bits", "4", "--min-accuracy", "0", "--json"];
    const line = ["quantize", model.folder, "-o", native, "--force", ...settings];
    await measureProcess(PROGRAM, line, join(dirname(native), "peak"));
    for (const [name, writer] of Object.entries(WRITERS)) {
      const { bytesOut } = await exportOnce(writer, native, model);
      const floors = [];
      const runs = [];
      for (let run = 0; run < RUNS; run++) {
        floors.push(await floorOnce(writer.isOfModel ? model.file : native, dirname(native), bytesOut));
        runs.push(await exportOnce(writer, native, model));
      }
      const seconds = median(runs.map((run) => run.seconds));
      const floorSeconds = median(floors);
      rows.push({
        ...{ name, bytesOut, seconds, floorSeconds, ratio: seconds / floorSeconds },
        weightsPerSecond: model.weights / seconds,
        peakBytes: Math.max(...runs.map((run) => run.peakBytes)),
      });
    }
  } finally {
    rmSync(dirname(model.folder), { recursive: true, force: true });
  }
  console.table(
    rows.map((row) => ({
      writer: row.name,
      "output, GB": (row.bytesOut / 1e9).toFixed(3),
      "floor, s": row.floorSeconds.toFixed(2),
      "program, s": row.seconds.toFixed(2),
      "times the floor": row.ratio.toFixed(2),
      "M weights/s": (row.weightsPerSecond / 1e6).toFixed(0),
      "peak memory, MB": (row.peakBytes / 1e6).toFixed(0),
    })),
  );
  mkdirSync(dirname(RESULTS), { recursive: true });
  writeFileSync(
    RESULTS,
    `${JSON.stringify({ date: new Date().toISOString(), weights: model.weights, rows }, null, 2)}\n`,
  );
  console.log(`figures: ${RESULTS}`);
}
