/** The flags of an export to ONNX. */
import type { Flag } from "./command.js";
import { ROLE_FLAGS } from "./role-flags.js";

const ONNX_GROUP = "ONNX FLAGS";

export const ONNX_FLAGS: readonly Flag[] = [
  {
    name: "original",
    value: "model",
    description: "ONNX: the model that was quantized; by default that beside --graph",
    group: ONNX_GROUP,
  },
  {
    name: "graph",
    value: "model.onnx",
    description: "ONNX: graph of the original, instead of the one beside it",
    group: ONNX_GROUP,
  },
  {
    name: "activations",
    description: "ONNX: quantize the inputs of layers too, by the file's parameters for each timestep group",
    group: ONNX_GROUP,
  },
  ...ROLE_FLAGS,
];

/** Whether the flags of `export` ask for ONNX: by the output's name, or by a flag that nothing else has. */
export function isOnnxExport(flags: Readonly<Record<string, unknown>>): boolean {
  return String(flags["output"]).endsWith(".onnx") || ONNX_FLAGS.some(({ name }) => isGiven(flags[name]));
}

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== false;
}
