import { ArrowQuantError } from "../../errors.js";
import type { Command } from "../command.js";
import { ROLE_FLAGS } from "../role-flags.js";
import {
  CONFIG_FLAG,
  DISPLAY_FLAGS,
  ENGINE_FLAGS,
  FORCE_FLAG,
  OUTPUT_GROUP,
  REPORT_FLAG,
  SETTING_FLAGS,
} from "../settings.js";

const OWN_SETTINGS: readonly string[] = [
  "calibration",
  "graph",
  "calibration-samples",
  "calibration-steps",
  "seed",
  "components",
  "variant",
];

export const calibrate: Command = {
  name: "calibrate",
  summary: "Take statistics of a model's activations by running it",
  description:
    "The model's ONNX graph is run on calibration samples, and what flows into each layer is kept: per timestep and " +
    "channel range, mean and second moment, histograms, Hessians. quantize --calibration reads the file; given a " +
    "source itself, it does the same and keeps the result in a cache.\n" +
    "Without --calibration the model denoises noise of its own, with the scheduler of its pipeline. Every 8th sample " +
    "is held back from the statistics, to measure by. Needs onnxruntime-node: npm install onnxruntime-node.",
  args: [{ name: "MODEL", description: "A model file or folder" }],
  flags: [
    {
      name: "output",
      short: "o",
      value: "file",
      required: true,
      description: "A .safetensors file",
      group: OUTPUT_GROUP,
      parse: (given) => {
        if ((given as string).endsWith(".safetensors")) return given;
        throw new ArrowQuantError("E_USAGE", `--output ${given}: a file that ends in .safetensors is expected`, {
          details: { output: given },
        });
      },
    },
    REPORT_FLAG,
    FORCE_FLAG,
    { name: "fresh", description: "Take statistics anew even where the cache has them", group: OUTPUT_GROUP },
    {
      name: "hessians",
      negatable: true,
      description: "Take the Hessians that gptq needs; most of the time and size (default: yes)",
      group: OUTPUT_GROUP,
    },
    CONFIG_FLAG,
    ...SETTING_FLAGS.filter(({ name }) => OWN_SETTINGS.includes(name)),
    ...ROLE_FLAGS,
    ...ENGINE_FLAGS,
    ...DISPLAY_FLAGS,
  ],
  examples: [
    {
      description: "Without any data",
      command: "arrowquant calibrate ./my-model -o stats.safetensors",
    },
    {
      description: "From recorded inputs",
      command: "arrowquant calibrate ./my-model -o stats.safetensors --calibration samples.parquet",
    },
  ],
  run: async (invocation) => (await import("../run/calibrate.js")).runCalibrate(invocation),
};
