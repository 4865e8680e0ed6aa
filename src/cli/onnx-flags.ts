/** The flags of outputs in ONNX. */
import type { Flag } from "./command.js";
import { ROLE_FLAGS } from "./role-flags.js";

const ONNX_GROUP = "ONNX FLAGS";

export const ACTIVATIONS_FLAG: Flag = {
  name: "activations",
  description: "ONNX: quantize the inputs of layers too, by the parameters for each timestep group",
  group: ONNX_GROUP,
};

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
  ACTIVATIONS_FLAG,
  ...ROLE_FLAGS,
];
