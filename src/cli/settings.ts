/** The flags that are settings of the configuration, and the flags that several commands share. */
import type { Flag } from "./command.js";
import { PRECISION_FLAGS, readLayerBits } from "./precision-flags.js";
import { reportEnding } from "./report.js";

const CONFIGURATION = "CONFIGURATION FLAGS";
const QUANTIZATION = "QUANTIZATION FLAGS";
const STORAGE = "STORAGE FLAGS";
const LAYERS = "LAYER FLAGS";
const QUALITY = "QUALITY FLAGS";
const CALIBRATION = "CALIBRATION FLAGS";
const ACTIVATIONS = "ACTIVATION FLAGS";
const ENGINE = "ENGINE FLAGS";
export const OUTPUT_GROUP = "OUTPUT FLAGS";
const DISPLAY = "DISPLAY FLAGS";

/** Settings of what is written. */
export const SETTING_FLAGS: readonly Flag[] = [
  {
    name: "profile",
    short: "p",
    value: "edge|local|cloud",
    description: "Set of defaults: edge 2 bits, local 4 bits, cloud 8 bits (default: local)",
    group: CONFIGURATION,
    setting: "profile",
  },
  {
    name: "bit-width",
    short: "b",
    value: "2|3|4|5|6|8",
    description: "Bits per weight code",
    group: QUANTIZATION,
    setting: "bit_width",
  },
  {
    name: "group-size",
    short: "g",
    value: "n",
    description: "Weights that share a scale, 16 to 1024",
    group: QUANTIZATION,
    setting: "group_size",
  },
  {
    name: "method",
    value: "rtn|hqq|mse|r2q|gptq|auto",
    description: "Quantization method; by default chosen by modality and bit width",
    group: QUANTIZATION,
    setting: "method",
  },
  {
    name: "symmetric",
    negatable: true,
    description: "No zero points: codes stand around zero",
    group: QUANTIZATION,
    setting: "symmetric",
  },
  {
    name: "weighting",
    value: "none|magnitude",
    description: "Method mse: what a weight's squared error is weighted by",
    group: QUANTIZATION,
    setting: "weighting",
  },
  {
    name: "preserve-gain",
    negatable: true,
    description: "Method mse: rescale each row so that quantization does not shrink it",
    group: QUANTIZATION,
    setting: "preserve_gain",
  },
  {
    name: "modality",
    value: "text|code|image|audio|video",
    description: "What the model generates; by default read from the model",
    group: QUANTIZATION,
    setting: "modality",
  },
  {
    name: "scale-bits",
    value: "2..8|none",
    description: "Bits of a scale's code; none: float32",
    group: STORAGE,
    setting: "scale_bits",
  },
  {
    name: "zero-point-bits",
    value: "2..8|none",
    description: "Bits of a zero point's code; none: float32",
    group: STORAGE,
    setting: "zero_point_bits",
  },
  {
    name: "super-group-size",
    value: "n",
    description: "Weights whose scale codes share one float32 scale, a multiple of the group size",
    group: STORAGE,
    setting: "super_group_size",
  },
  {
    name: "components",
    value: "names",
    repeatable: true,
    description: "Components of a pipeline to quantize, by default its denoiser",
    group: LAYERS,
    setting: "components",
  },
  {
    name: "variant",
    value: "name",
    description: "Variant of the weight files, e.g. fp16",
    group: LAYERS,
    setting: "variant",
  },
  {
    name: "include",
    value: "pattern",
    repeatable: true,
    description: "Quantize only tensors that match the regular expression",
    group: LAYERS,
    setting: "include",
  },
  {
    name: "exclude",
    value: "pattern",
    repeatable: true,
    description: "Keep tensors that match the regular expression",
    group: LAYERS,
    setting: "exclude",
  },
  {
    name: "layer-bits",
    value: "pattern=bits",
    repeatable: true,
    description: "Bits, or none to keep, of tensors that match; the first match wins",
    group: LAYERS,
    setting: "layer_bit_widths",
    parse: readLayerBits("layer-bits"),
  },
  {
    name: "min-accuracy",
    value: "0..1",
    description: "Cosine similarity below which a layer falls back to more bits; 0: never",
    group: QUALITY,
    setting: "min_accuracy",
  },
  {
    name: "on-nonfinite",
    value: "error|keep",
    description: "What a NaN or infinite weight does: stop, or keep its layer",
    group: QUALITY,
    setting: "on_nonfinite",
  },
  {
    name: "allow-requantize",
    description: "Quantize weights that the source holds quantized already (GGUF)",
    group: QUALITY,
    setting: "allow_requantize",
  },
  {
    name: "calibration",
    value: "source",
    description: "Samples (file, folder, address), statistics, imatrix, or: sampling, synthetic",
    group: CALIBRATION,
    setting: "calibration",
  },
  {
    name: "graph",
    value: "model.onnx",
    description: "ONNX graph that runs the model; by default the one found beside it",
    group: CALIBRATION,
    setting: "graph",
  },
  {
    name: "calibration-samples",
    value: "n",
    description: "Samples read from the calibration set",
    group: CALIBRATION,
    setting: "calibration_samples",
  },
  {
    name: "calibration-steps",
    value: "n",
    description: "Calibration by sampling: steps of the sampler",
    group: CALIBRATION,
    setting: "calibration_steps",
  },
  {
    name: "seed",
    value: "n",
    description: "Seed of the sampler's noise and of random inputs",
    group: CALIBRATION,
    setting: "seed",
  },
  {
    name: "gptq-damp",
    value: "0..1",
    description: "Method gptq: part of the mean diagonal added to the Hessian's diagonal",
    group: CALIBRATION,
    setting: "gptq_damp",
  },
  {
    name: "gptq-order",
    value: "activation|natural",
    description: "Method gptq: columns in activation order (largest diagonal of the Hessian first), or as they stand",
    group: CALIBRATION,
    setting: "gptq_order",
  },
  {
    name: "enable-spatial",
    description: "Channel equalization and smoothing (needs calibration)",
    group: CALIBRATION,
    setting: "enable_spatial",
  },
  {
    name: "disable-spatial",
    description: "No channel equalization",
    group: CALIBRATION,
    setting: "enable_spatial",
    sets: false,
  },
  {
    name: "spatial-alpha",
    value: "0..1|auto",
    description: "Part of a channel's range that moves to the weights; auto: searched per layer",
    group: CALIBRATION,
    setting: "spatial_alpha",
  },
  {
    name: "activation-bits",
    value: "4|5|6|7|8|16",
    description: "Bits of the inputs of quantized layers; 16: none (needs calibration)",
    group: ACTIVATIONS,
    setting: "activation_bits",
  },
  {
    name: "activation-mode",
    value: "time|static|dynamic",
    description: "A range per timestep group, one for all times, or per token while running",
    group: ACTIVATIONS,
    setting: "activation_mode",
  },
  {
    name: "activation-range",
    value: "minmax|percentile|mse",
    description: "How a range is found; by default minmax at 8 bits, mse below",
    group: ACTIVATIONS,
    setting: "activation_range",
  },
  {
    name: "activation-percentile",
    value: "50..100",
    description: "Range percentile: part of the values inside, in percent",
    group: ACTIVATIONS,
    setting: "activation_percentile",
  },
  {
    name: "enable-time-aware",
    description: "Activation parameters per timestep group (needs calibration)",
    group: ACTIVATIONS,
    setting: "enable_time_aware",
  },
  {
    name: "disable-time-aware",
    description: "One set of activation parameters for all timesteps",
    group: ACTIVATIONS,
    setting: "enable_time_aware",
    sets: false,
  },
  {
    name: "num-time-groups",
    value: "n",
    description: "Timestep groups with activation parameters of their own (needs calibration)",
    group: ACTIVATIONS,
    setting: "num_time_groups",
  },
  {
    name: "time-groups",
    value: "uniform|optimal",
    description: "Timestep groups of equal length, or those of least error",
    group: ACTIVATIONS,
    setting: "time_groups",
  },
  {
    name: "smoothness-threshold",
    value: "x",
    description: "Steps between log scales of neighbouring groups above this are warned of",
    group: ACTIVATIONS,
    setting: "thermodynamic.validation.smoothness_threshold",
  },
  {
    name: "boundary-window",
    value: "n",
    description: "Groups on either side that smooth the boundaries between groups; 0: none",
    group: ACTIVATIONS,
    setting: "thermodynamic.boundary_smoothing.window",
  },
  {
    name: "boundary-interpolation",
    value: "linear|cubic|sigmoid",
    description: "How a group's weight falls with its distance from a boundary",
    group: ACTIVATIONS,
    setting: "thermodynamic.boundary_smoothing.interpolation",
  },
  {
    name: "transition-weight",
    value: "x",
    description: "Fit log scales with this penalty on steps between them; without it they stand as found",
    group: ACTIVATIONS,
    setting: "thermodynamic.transition_optimization.weight",
  },
  ...PRECISION_FLAGS,
];

export const FAIL_FAST_FLAG: Flag = {
  name: "fail-fast",
  description: "Stop at the first layer below --min-accuracy instead of falling back",
  group: QUALITY,
  setting: "fail_fast",
};

export const CONFIG_FLAG: Flag = {
  name: "config",
  short: "c",
  value: "file",
  description: "YAML file of settings; see arrowquant config init",
  group: CONFIGURATION,
};

/** Settings of how the work is done: they change no byte of the output. */
export const ENGINE_FLAGS: readonly Flag[] = [
  {
    name: "threads",
    value: "n",
    description: "Worker threads, by default one per core",
    group: ENGINE,
    setting: "num_threads",
  },
  {
    name: "memory",
    value: "size",
    description: "Most memory of the whole process, e.g. 320MiB (default: 512MiB)",
    group: ENGINE,
    setting: "memory",
  },
];

export const DISPLAY_FLAGS: readonly Flag[] = [
  { name: "json", description: "One JSON document on stdout and nothing else", group: DISPLAY },
  { name: "verbose", description: "Show all layers, and the stack of errors", group: DISPLAY },
  {
    name: "quiet",
    contradicts: "verbose",
    description: "No progress, notes or warnings on stderr",
    group: DISPLAY,
  },
];

export const REPORT_FLAG: Flag = {
  name: "report",
  value: "file",
  description: "Also write the result to FILE.json, FILE.md or FILE.html, the last two with charts",
  group: OUTPUT_GROUP,
  parse: (given) => {
    reportEnding(given as string);
    return given;
  },
};

export const FORCE_FLAG: Flag = {
  name: "force",
  description: "Replace an output that arrowquant did not write",
  group: OUTPUT_GROUP,
};
