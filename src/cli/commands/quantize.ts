import type { Command } from "../command.js";
import { ROLE_FLAGS } from "../role-flags.js";
import {
  CONFIG_FLAG,
  DISPLAY_FLAGS,
  ENGINE_FLAGS,
  FAIL_FAST_FLAG,
  FORCE_FLAG,
  OUTPUT_GROUP,
  REPORT_FLAG,
  SETTING_FLAGS,
} from "../settings.js";

export const quantize: Command = {
  name: "quantize",
  summary: "Quantize the weights of a model and measure what was written",
  description:
    "MODEL is a .safetensors file, a folder with a sharded set and its index, a diffusers component folder or a " +
    "diffusers pipeline folder, whose denoiser is quantized unless --components says otherwise.\n" +
    "A layer whose cosine similarity falls below --min-accuracy falls back, alone, to the next width (2, 4, 8 bits, " +
    "then kept). With --fail-fast the first such layer ends the run with exit code 4 and without output.\n" +
    "Flags go before environment variables (ARROW_QUANT_BIT_WIDTH, ...), those before the file of --config, that " +
    "before the profile; arrowquant config show prints what results.",
  args: [{ name: "MODEL", description: "A model file or folder" }],
  flags: [
    {
      name: "output",
      short: "o",
      value: "path",
      required: true,
      unless: "dry-run",
      description: "A .parquet file for one component, a folder for several",
      group: OUTPUT_GROUP,
    },
    { name: "dry-run", description: "Show the plan, from headers alone, and stop", group: OUTPUT_GROUP },
    REPORT_FLAG,
    FORCE_FLAG,
    {
      name: "resume",
      description: "Go on where a stopped run with --resume left off, and keep what is done if this one is stopped",
      group: OUTPUT_GROUP,
    },
    {
      name: "validate",
      value: "layers|run",
      choices: ["layers", "run"],
      description: "Validate what was written: layer by layer, or by running both models as well (validate --run)",
      group: OUTPUT_GROUP,
      contradicts: "dry-run",
    },
    CONFIG_FLAG,
    ...SETTING_FLAGS,
    FAIL_FAST_FLAG,
    ...ROLE_FLAGS,
    ...ENGINE_FLAGS,
    ...DISPLAY_FLAGS,
  ],
  examples: [
    { description: "4 bits, the usual settings", command: "arrowquant quantize ./my-model -o my-model-int4.parquet" },
    {
      description: "See first what would be done, and why",
      command: "arrowquant quantize ./my-model -o my-model-int2.parquet --bit-width 2 --dry-run",
    },
    {
      description: "2 bits in small groups, one kind of layer at 8 bits",
      command:
        "arrowquant quantize ./my-model -o out.parquet -b 2 -g 32 --layer-bits 'norm1\\.linear=8' --report report.md",
    },
  ],
  run: async (invocation) => (await import("../run/quantize.js")).runQuantize(invocation),
};
