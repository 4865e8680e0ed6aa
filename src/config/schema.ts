/**
 * Every setting of the program: one zod schema that gives the type, the validation and the JSON Schema.
 * Keys are the same in YAML, JSON, batch jobs and the API. The defaults are those of profile `local`.
 */
import { z } from "zod";
import {
  ACTIVATION_BIT_WIDTHS,
  ACTIVATION_MODES,
  ACTIVATION_RANGES,
  BOUNDARY_INTERPOLATIONS,
  GPTQ_ORDERS,
  MODALITIES,
  TIME_GROUPINGS,
} from "../plan/plan.js";
import { BIT_WIDTHS, MAX_GROUP_SIZE, METHOD_NAMES, MIN_GROUP_SIZE } from "../tensor/layout.js";
import { BYTES_TEXT, MIN_MEMORY_BYTES, parseBytes } from "./bytes.js";
import { nestKeys } from "./nested.js";
import { MAX_LIST_LENGTH, PRECISION_SETTINGS, pattern, patterns } from "./precision.js";

export const PROFILE_NAMES = ["edge", "local", "cloud"] as const;

/** Largest super-group, in elements: beyond it a super-group is the whole row of any known model. */
const MAX_SUPER_GROUP_SIZE = 65_536;
const codeBits = z.union([z.int().min(2).max(8), z.literal("none")]);
const name = z.string().min(1).max(1024);
/** Linux takes no longer path (PATH_MAX), and no server a longer address. */
const location = z.string().min(1).max(4096);

export const configSchema = z.strictObject({
  profile: z.enum(PROFILE_NAMES).default("local").meta({
    description: "Set of defaults for a kind of machine.",
  }),
  bit_width: z
    .literal([...BIT_WIDTHS])
    .default(4)
    .meta({
      description: "Bits per weight code.",
    }),
  group_size: z.int().min(MIN_GROUP_SIZE).max(MAX_GROUP_SIZE).default(128).meta({
    description: "Weights that share a scale; the last group of a row may be shorter.",
  }),
  method: z
    .enum([...METHOD_NAMES, "auto"])
    .nullable()
    .default(null)
    .meta({
      description: "Quantization method; null: chosen by modality and bit width.",
    }),
  symmetric: z.boolean().default(false).meta({
    description: "No zero points: the codes stand around zero.",
  }),
  scale_bits: codeBits.default(6).meta({
    description: "Bits of a scale's own code; none: scales are float32.",
  }),
  zero_point_bits: codeBits.default(6).meta({
    description: "Bits of a zero point's code; none: zero points are float32.",
  }),
  super_group_size: z.int().min(MIN_GROUP_SIZE).max(MAX_SUPER_GROUP_SIZE).default(1024).meta({
    description: "Weights whose scale codes share one float32 scale, a multiple of group_size.",
  }),
  weighting: z.enum(["none", "magnitude"]).default("magnitude").meta({
    description: "Method mse: what an element's squared error is weighted by.",
  }),
  preserve_gain: z.boolean().default(true).meta({
    description: "Method mse: rescale each row so that quantization does not shrink it.",
  }),
  modality: z.enum(MODALITIES).nullable().default(null).meta({
    description: "What the model generates; null: read from class names, config and tensor names.",
  }),
  gptq_damp: z.number().min(0).max(1).default(0.01).meta({
    description: "Method gptq: part of the Hessian's mean diagonal that is added to its diagonal.",
  }),
  gptq_order: z
    .enum([...GPTQ_ORDERS])
    .default("activation")
    .meta({
      description:
        "Method gptq: columns in activation order (largest diagonal of the Hessian first), or as they stand.",
    }),
  calibration: location
    .nullable()
    .default(null)
    .meta({
      description:
        "What to learn from: a file, folder or address of samples, a statistics file, an imatrix, " +
        "sampling (the model denoises noise) or synthetic (random inputs); null: nothing.",
      examples: ["sampling", "samples.parquet"],
    }),
  graph: location
    .nullable()
    .default(null)
    .meta({
      description: "ONNX graph that runs the model; null: the one found beside it.",
      examples: ["onnx/model.onnx"],
    }),
  calibration_samples: z.int().min(1).max(1_000_000).default(128).meta({
    description: "Samples read from the calibration set.",
  }),
  calibration_steps: z.int().min(1).max(1000).default(20).meta({
    description: "Calibration by sampling: steps of the sampler.",
  }),
  seed: z
    .int()
    .min(0)
    .max(2 ** 32 - 1)
    .default(0)
    .meta({
      description: "Seed of the noise that the sampler starts from and of random inputs.",
    }),
  enable_time_aware: z.boolean().nullable().default(null).meta({
    description: "Activation parameters per timestep group; null: chosen by modality.",
  }),
  activation_bits: z
    .literal([...ACTIVATION_BIT_WIDTHS])
    .nullable()
    .default(null)
    .meta({
      description: "Bits of the inputs of quantized layers, 16: none; null: 8 where it is time-aware, else 16.",
    }),
  activation_mode: z
    .enum([...ACTIVATION_MODES])
    .nullable()
    .default(null)
    .meta({
      description: "Activation range per timestep group, one for all times, or per token while running; null: time.",
    }),
  activation_range: z
    .enum([...ACTIVATION_RANGES])
    .nullable()
    .default(null)
    .meta({
      description: "How an activation range is found; null: minmax at 8 bits, mse below.",
    }),
  activation_percentile: z.number().min(50).max(100).default(99.9).meta({
    description: "Activation range percentile: part of the values inside of the range, in percent.",
  }),
  num_time_groups: z.int().min(1).max(1000).default(10).meta({
    description: "Timestep groups with activation parameters of their own.",
  }),
  time_groups: z
    .enum([...TIME_GROUPINGS])
    .default("optimal")
    .meta({
      description: "Timestep groups of equal length, or those of least error.",
    }),
  enable_spatial: z.boolean().nullable().default(true).meta({
    description: "Channel equalization and smoothing; a profile's true leaves it to the modality, as does null.",
  }),
  spatial_alpha: z
    .union([z.number().min(0).max(1), z.literal("auto")])
    .default("auto")
    .meta({
      description: "Part of a channel's range that moves from activations to weights; auto: searched per layer.",
    }),
  "thermodynamic.validation.smoothness_threshold": z.number().min(0).max(100).default(0.3).meta({
    description: "Steps between the log scales of neighbouring timestep groups above this are warned of.",
  }),
  "thermodynamic.boundary_smoothing.window": z.int().min(0).max(1000).default(0).meta({
    description: "Timestep groups on either side of a boundary that smooth it; 0: none.",
  }),
  "thermodynamic.boundary_smoothing.interpolation": z
    .enum([...BOUNDARY_INTERPOLATIONS])
    .default("linear")
    .meta({
      description: "How the weight of a timestep group falls with its distance from a boundary.",
    }),
  "thermodynamic.transition_optimization.enabled": z.boolean().nullable().default(null).meta({
    description: "Fit log scales with a penalty on their steps; null: where its weight is given.",
  }),
  "thermodynamic.transition_optimization.weight": z.number().min(0).max(1e6).default(0.1).meta({
    description: "Penalty on a squared step between log scales, in units of a group's own squared change.",
  }),
  min_accuracy: z.number().min(0).max(1).default(0.85).meta({
    description: "Least cosine similarity of a layer before it falls back to a wider code; 0: never.",
  }),
  fail_fast: z.boolean().default(false).meta({
    description: "Stop at the first layer below min_accuracy instead of falling back.",
  }),
  on_nonfinite: z.enum(["error", "keep"]).default("error").meta({
    description: "What a NaN or infinite weight does: stop, or keep its layer unquantized.",
  }),
  allow_requantize: z.boolean().default(false).meta({
    description: "Quantize weights that the source holds quantized (GGUF's Q8_0, Q4_K …), losses upon losses.",
  }),
  components: z
    .array(name.regex(/^[^/\\]+$/))
    .min(1)
    .max(100)
    .nullable()
    .default(null)
    .meta({
      description: "Components of a pipeline to quantize; null: the denoiser.",
      examples: [["transformer", "text_encoder"]],
    }),
  variant: z
    .string()
    .regex(/^[A-Za-z0-9_-]{1,64}$/)
    .nullable()
    .default(null)
    .meta({
      description: "Variant of the weight files, as in diffusers; null: the plain files.",
      examples: ["fp16"],
    }),
  include: patterns.default([]).meta({
    description: "Regular expressions; where given, only tensors that match one are candidates.",
    examples: [["attn1\\."]],
  }),
  exclude: patterns.default([]).meta({
    description: "Regular expressions of tensors to keep.",
    examples: [["\\.ff\\."]],
  }),
  skip_sensitive_layers: z.boolean().default(true).meta({
    description: "Keep the layers that diffusion models cannot spare, by architecture.",
  }),
  sensitive_layer_names: z
    .array(name)
    .max(MAX_LIST_LENGTH)
    .default([])
    .meta({
      description: "Exact names of tensors or layers to keep as well.",
      examples: [["transformer_blocks.0.attn1.to_q"]],
    }),
  sensitive_layer_patterns: patterns.default([]).meta({
    description: "Regular expressions of tensors to keep as well.",
    examples: [["norm1\\.linear"]],
  }),
  layer_bit_widths: z
    .record(
      // A JavaScript object moves keys that look like array indices to the front, so order would be lost.
      pattern.regex(/^(?!(?:0|[1-9]\d*)$)/),
      z.union([z.literal([...BIT_WIDTHS]), z.literal("none")]),
    )
    .default({})
    .meta({
      description: "Bits of the tensors that match a regular expression, or none to keep; first match wins.",
      examples: [{ "norm1\\.linear": 8, "ff\\.net\\.2": "none" }],
    }),
  ...PRECISION_SETTINGS,
  num_threads: z.int().min(1).max(1024).nullable().default(null).meta({
    description: "Worker threads; null: one per core.",
  }),
  memory: z
    .union([
      z.int().min(MIN_MEMORY_BYTES),
      z
        .string()
        .regex(BYTES_TEXT)
        .meta({ examples: ["512MiB", "1GB"] })
        .transform(parseBytes),
    ])
    .pipe(z.int().min(MIN_MEMORY_BYTES).max(Number.MAX_SAFE_INTEGER))
    .prefault("512MiB")
    .meta({ description: "Most memory of the whole process, in bytes or with a unit, at least 1 MiB." }),
  enable_streaming: z.boolean().default(true).meta({
    description: "Read, quantize and write in slabs; nothing is ever held whole.",
  }),
});

export type ConfigKey = keyof typeof configSchema.shape;

/** All keys, in the order they are shown. */
export const CONFIG_KEYS = Object.keys(configSchema.shape) as ConfigKey[];

export function isConfigKey(key: string): key is ConfigKey {
  return Object.hasOwn(configSchema.shape, key);
}

/** Every `a` and `a.b` that a key `a.b.c` stands below. */
const SECTIONS: ReadonlySet<string> = new Set(
  CONFIG_KEYS.flatMap((key) => {
    const steps = key.split(".");
    return steps.slice(1).map((_step, index) => steps.slice(0, index + 1).join("."));
  }),
);

/** Whether `key` is the beginning of keys with dots, written as a mapping. */
export function isSection(key: string): boolean {
  return SECTIONS.has(key);
}

/** The part of JSON Schema that these settings use. */
export interface JsonSchema {
  readonly title?: string;
  readonly type?: string | readonly string[];
  readonly description?: string;
  readonly default?: unknown;
  readonly examples?: readonly unknown[];
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly anyOf?: readonly JsonSchema[];
  readonly minimum?: number;
  readonly maximum?: number;
  readonly pattern?: string;
  readonly maxLength?: number;
  readonly items?: JsonSchema;
  readonly propertyNames?: JsonSchema;
  readonly additionalProperties?: JsonSchema | boolean;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
}

/**
 * The JSON Schema (draft 2020-12) of a configuration file; every key is optional. Keys with dots may be written as
 * they are or as mappings of mappings.
 */
export function configJsonSchema(): JsonSchema {
  const schema = z.toJSONSchema(configSchema, { io: "input" }) as JsonSchema;
  const nested = nestKeys(
    schema.properties ?? {},
    (key, properties): JsonSchema => ({
      type: ["object", "null"],
      description: `Settings ${key}.*, as a mapping.`,
      default: {},
      properties,
      additionalProperties: false,
    }),
  );
  return { title: "arrowquant configuration", ...schema, properties: { ...schema.properties, ...nested } };
}
