import { BYTES_TEXT, parseBytes } from "../../config/bytes.js";
import { ArrowQuantError } from "../../errors.js";
import type { OutputFormatName } from "../../quantize/output-format.js";
import type { Command, Invocation, Outcome } from "../command.js";
import { GGUF_FLAG_NAMES, GGUF_FLAGS } from "../gguf-flags.js";
import { ONNX_FLAGS } from "../onnx-flags.js";
import { FORMAT_FLAG, type FormatFlags, readOutputFormat } from "../output-format.js";
import { DTYPE_FLAG, PACKED_FLAG } from "../safetensors-flags.js";
import { DISPLAY_FLAGS, ENGINE_FLAGS, FORCE_FLAG, OUTPUT_GROUP, SETTING_FLAGS } from "../settings.js";

const RUNS: Readonly<Record<OutputFormatName, (invocation: Invocation) => Promise<Outcome>>> = {
  native: async ({ flags }) => {
    throw new ArrowQuantError("E_USAGE", `output ${String(flags["output"])} is in the format of the input`, {
      hint: "export writes other formats: name a .safetensors, .onnx or .gguf file, or a folder",
      details: { output: flags["output"] },
    });
  },
  onnx: async (invocation) => (await import("../run/export-onnx.js")).runExportOnnx(invocation),
  safetensors: async (invocation) => (await import("../run/export.js")).runExport(invocation),
  gguf: async (invocation) => (await import("../run/export-gguf.js")).runExportGguf(invocation),
};

const OWN_FLAGS: FormatFlags = {
  native: [],
  onnx: ["dtype", ...ONNX_FLAGS.map(({ name }) => name)],
  safetensors: ["dtype", "like", "packed", "max-shard-size"],
  gguf: [...GGUF_FLAG_NAMES, "allow-requantize"],
};

/** @throws E_USAGE */
function shardBytes(given: string | readonly string[]): number {
  const text = String(given);
  const bytes = BYTES_TEXT.test(text) ? parseBytes(text) : 0;
  if (bytes >= 1) return bytes;
  throw new ArrowQuantError("E_USAGE", `--max-shard-size ${text} is no amount of bytes`, {
    hint: "for example 5GB or 500MiB",
    details: { value: text },
  });
}

export const exportCommand: Command = {
  name: "export",
  summary: "Write a quantized model as safetensors, in the original's place, as ONNX, or as GGUF",
  description:
    "Every tensor of the quantized file comes back under its own name and shape: quantized and floating-point ones " +
    "in the type asked for, all others as they are.\n" +
    "With --like ORIGINAL the output is the original's folder again: the same shards with their index, configurations " +
    "and, of a pipeline, all other components copied. What no loader reads (other sets of weights, other folders) " +
    "stays behind and is listed.\n" +
    "With --packed linear layers stay quantized, as compressed-tensors' pack-quantized format: transformers and vLLM " +
    "read it, diffusers does not. It holds whole zero points only: quantize with --zero-point-bits equal to the bit " +
    "width, or with --symmetric.\n" +
    "An .onnx output (or a folder, with --graph) is the original's graph with the quantized weights in it, for ONNX " +
    "Runtime and transformers.js; it is run once and compared before it is put in place. With --dtype f16 it computes " +
    "in float16, its inputs and outputs staying float32 (model_q4f16.onnx).\n" +
    "A .gguf output is quantized again, in the way of GGUF: both errors add up, so it takes --allow-requantize. " +
    "Quantize the original with -o FILE.gguf where it is at hand.",
  args: [
    {
      name: "NATIVE",
      description: "A .parquet file that quantize wrote, a folder of them, or a plain Parquet V2 file",
    },
  ],
  flags: [
    {
      name: "output",
      short: "o",
      value: "path",
      required: true,
      description: "A .safetensors, .onnx or .gguf file, or a folder",
      group: OUTPUT_GROUP,
    },
    FORMAT_FLAG,
    DTYPE_FLAG,
    {
      name: "like",
      value: "original",
      description: "Folder of the original, a pipeline or a component, that the output stands in for",
      group: OUTPUT_GROUP,
    },
    ...SETTING_FLAGS.filter(({ name }) => name === "variant").map((flag) => ({
      ...flag,
      description: "Variant of the original's weight files, e.g. fp16",
      group: OUTPUT_GROUP,
    })),
    PACKED_FLAG,
    {
      name: "max-shard-size",
      value: "size",
      contradicts: "like",
      description: "Cut a folder's weights into shards of at most this (default: 5GB)",
      group: OUTPUT_GROUP,
      parse: shardBytes,
    },
    ...ONNX_FLAGS,
    ...GGUF_FLAGS,
    ...SETTING_FLAGS.filter(({ name }) => name === "allow-requantize").map((flag) => ({
      ...flag,
      description: "GGUF: quantize again what is quantized already, and tell what it cost",
      group: OUTPUT_GROUP,
    })),
    FORCE_FLAG,
    ...ENGINE_FLAGS,
    ...DISPLAY_FLAGS,
  ],
  examples: [
    {
      description: "Weights that PyTorch loads, as float16",
      command: "arrowquant export my-model-int4.parquet -o my-model-int4.safetensors --dtype f16",
    },
    {
      description: "The whole pipeline, for diffusers",
      command: "arrowquant export my-model-int4.parquet -o my-model-int4 --like ./my-model --dtype bf16",
    },
    {
      description: "The graph with quantized weights, for ONNX Runtime",
      command: "arrowquant export my-model-int4.parquet -o my-model-int4.onnx --original ./my-model",
    },
    {
      description: "Four bits on disk, for transformers and vLLM",
      command: "arrowquant export my-model-int4.parquet -o my-model-w4 --packed --dtype bf16",
    },
  ],
  run: async (invocation) => RUNS[readOutputFormat(invocation.flags, OWN_FLAGS, "safetensors")](invocation),
};
