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

export const plan: Command = {
  name: "plan",
  summary: "Write what would be done with each tensor, to be edited and followed by quantize --plan",
  description:
    "The plan file is YAML with a line for each tensor that could be quantized: bits, group size, method, storage, " +
    "size, error and the rule that said so. With a target (--target-bpw, --target-size, --max-error, " +
    "--mean-group-size) bits and group sizes are chosen layer by layer, by what --sensitivity measures.\n" +
    "Edit it, and arrowquant quantize MODEL --plan FILE does exactly what it says; a file that does not fit the model " +
    "is refused.",
  args: [{ name: "MODEL", description: "A model file or folder" }],
  flags: [
    {
      name: "output",
      short: "o",
      value: "path",
      required: true,
      description: "The plan file, e.g. plan.yaml",
      group: OUTPUT_GROUP,
    },
    REPORT_FLAG,
    FORCE_FLAG,
    CONFIG_FLAG,
    ...SETTING_FLAGS,
    ...ROLE_FLAGS,
    ...ENGINE_FLAGS,
    ...DISPLAY_FLAGS,
  ],
  examples: [
    {
      description: "Three bits per weight, spent where the layers' outputs need them",
      command:
        "arrowquant plan ./my-model --calibration samples.parquet --target-bpw 3 --sensitivity output -o plan.yaml",
    },
    {
      description: "Do what the edited plan says",
      command: "arrowquant quantize ./my-model --plan plan.yaml -o my-model.parquet",
    },
  ],
  run: async (invocation) => (await import("../run/plan.js")).runPlan(invocation),
};
