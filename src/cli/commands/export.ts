import type { Command } from "../command.js";
import { DISPLAY_FLAGS, ENGINE_FLAGS, FORCE_FLAG, OUTPUT_GROUP } from "../settings.js";

export const exportCommand: Command = {
  name: "export",
  summary: "Rebuild the tensors of a quantized file as safetensors",
  description:
    "Every tensor of the quantized file comes back under its own name and shape: quantized and floating-point ones " +
    "in the type asked for, all others as they are.",
  args: [{ name: "NATIVE", description: "A .parquet file that quantize wrote, or a plain Parquet V2 file" }],
  flags: [
    {
      name: "output",
      short: "o",
      value: "file",
      required: true,
      description: "A .safetensors file",
      group: OUTPUT_GROUP,
    },
    {
      name: "dtype",
      choices: ["f32", "f16", "bf16"],
      required: true,
      description: "Type of the rebuilt weights",
      group: OUTPUT_GROUP,
    },
    FORCE_FLAG,
    ...ENGINE_FLAGS,
    ...DISPLAY_FLAGS,
  ],
  examples: [
    {
      description: "Weights that PyTorch loads, as float16",
      command: "arrowquant export my-model-int4.parquet -o my-model-int4.safetensors --dtype f16",
    },
  ],
  run: async (invocation) => (await import("../run/export.js")).runExport(invocation),
};
