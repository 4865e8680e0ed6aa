import type { Command } from "../command.js";
import { RUN_FLAGS } from "../run-flags.js";
import { DISPLAY_FLAGS, ENGINE_FLAGS, REPORT_FLAG, SETTING_FLAGS } from "../settings.js";

export const validate: Command = {
  name: "validate",
  summary: "Compare a quantized model on disk with its original, layer by layer",
  description:
    "Reads the quantized file back from disk, checks its checksums, rebuilds every tensor and compares it with the " +
    "original. Ends with exit code 4 if a layer is below its threshold (0.70, 0.80, 0.90, 0.92, 0.93, 0.95 at " +
    "2, 3, 4, 5, 6, 8 bits, unless --min-accuracy says otherwise), missing, extra, of another shape, or kept but " +
    "changed.\n" +
    "With --run, both models are run side by side as well (npm install onnxruntime-node; the model's ONNX graph is " +
    "found beside it or named with --graph): the error of the prediction at each timestep, and the PSNR of samples " +
    "from the same noise, with quantized weights and with quantized weights and activations.",
  args: [
    { name: "ORIGINAL", description: "The model that was quantized: a file, component or pipeline folder" },
    { name: "QUANTIZED", description: "The .parquet file, the folder of one per component, or a .gguf file" },
  ],
  flags: [
    ...SETTING_FLAGS.filter(({ name }) => name === "min-accuracy").map((flag) => ({
      ...flag,
      description: "Least cosine similarity of every layer, instead of the thresholds by bit width",
    })),
    ...SETTING_FLAGS.filter(({ name }) => name === "variant"),
    ...RUN_FLAGS,
    REPORT_FLAG,
    ...ENGINE_FLAGS,
    ...DISPLAY_FLAGS,
  ],
  examples: [
    {
      description: "Prove what quantize wrote",
      command: "arrowquant validate ./my-model ./my-model-int4.parquet",
    },
    {
      description: "Hold every layer to 0.98 and keep the figures",
      command: "arrowquant validate ./my-model ./my-model-int4.parquet --min-accuracy 0.98 --report report.md",
    },
    {
      description: "Run both models and look at what they draw",
      command: "arrowquant validate ./my-model ./my-model-int4.parquet --run --images samples.png",
    },
  ],
  run: async (invocation) => (await import("../run/validate.js")).runValidate(invocation),
};
