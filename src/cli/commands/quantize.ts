import type { Command } from "../command.js";
import { GGUF_FLAGS } from "../gguf-flags.js";
import { ACTIVATIONS_FLAG } from "../onnx-flags.js";
import { FORMAT_FLAG } from "../output-format.js";
import { ROLE_FLAGS } from "../role-flags.js";
import { DTYPE_FLAG, PACKED_FLAG } from "../safetensors-flags.js";
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
    "MODEL is a .safetensors, .gguf or .onnx file, a folder with a sharded set and its index, a diffusers component " +
    "folder or a diffusers pipeline folder, whose denoiser is quantized unless --components says otherwise. An ONNX " +
    "model is calibrated by running itself.\n" +
    "A layer whose cosine similarity falls below --min-accuracy falls back, alone, to more bits (2 to 4 to 8, 3 to " +
    "4, 5 to 6 to 8; then it is kept). With --fail-fast the first such layer ends the run with exit code 4 and " +
    "without output.\n" +
    "An .onnx output is the model's graph with the quantized weights in it, a .safetensors output holds them rebuilt, " +
    "for PyTorch; see arrowquant export, which makes both from a .parquet file. Into a folder: --format onnx (under " +
    "the name that transformers.js looks for; with --dtype f16 in float16) or --format safetensors.\n" +
    "A .gguf output, for stable-diffusion.cpp, ComfyUI-GGUF and diffusers, takes --type instead of bits, groups and " +
    "method. What loaders read as plain floats and layers that the model cannot spare stay float; --tensor-type " +
    "settles single tensors, and --dry-run shows the type of each and why. Columns weigh by --calibration, which may " +
    "be an imatrix.\n" +
    "With a target (--target-bpw, --target-size, --max-error, --mean-group-size) bits and group sizes are chosen layer " +
    "by layer, by what --sensitivity measures: the layer's weights, its output or the model's prediction. Query, key " +
    "and value of an attention get the same. --search evolutionary goes on from there by running the quantized " +
    "model.\n" +
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
      description: "A .parquet file for one component, a folder for several; or an .onnx, .safetensors or .gguf file",
      group: OUTPUT_GROUP,
    },
    FORMAT_FLAG,
    DTYPE_FLAG,
    PACKED_FLAG,
    ACTIVATIONS_FLAG,
    ...GGUF_FLAGS,
    { name: "dry-run", description: "Show the plan and stop", group: OUTPUT_GROUP },
    {
      name: "plan",
      value: "file",
      description: "Do what a plan file says, tensor by tensor; see arrowquant plan",
      group: OUTPUT_GROUP,
    },
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
    {
      description: "Three bits per weight, spent where the model needs them",
      command:
        "arrowquant quantize ./my-model -o out.parquet --calibration sampling --target-bpw 3 --report report.html",
    },
    {
      description: "For stable-diffusion.cpp and ComfyUI, one kind of layer with more bits",
      command: "arrowquant quantize flux1-dev.safetensors -o flux1-dev.gguf --type q4_k --tensor-type 'img_mod=q6_k'",
    },
  ],
  run: async (invocation) => (await import("../run/quantize.js")).runQuantize(invocation),
};
