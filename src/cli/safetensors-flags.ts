/** The flags of outputs in safetensors. */
import type { ExportDtype } from "../quantize/export-job.js";
import type { Flag } from "./command.js";
import { OUTPUT_GROUP } from "./settings.js";

export const DTYPE_FLAG: Flag = {
  name: "dtype",
  choices: ["f32", "f16", "bf16"],
  description: "Type of rebuilt weights and scales (safetensors need it), or f16 for an ONNX graph in float16",
  group: OUTPUT_GROUP,
};

export const PACKED_FLAG: Flag = {
  name: "packed",
  description: "Keep linear layers quantized (compressed-tensors, pack-quantized)",
  group: OUTPUT_GROUP,
};

export function readDtype(flags: Readonly<Record<string, unknown>>): ExportDtype | undefined {
  return (flags["dtype"] as string | undefined)?.toUpperCase() as ExportDtype | undefined;
}
