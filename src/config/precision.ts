/** The settings of mixed precision, and the patterns that settings of layers share. */
import { z } from "zod";
import { MAX_PATTERN_LENGTH } from "../plan/pattern.js";
import { SEARCHES, SENSITIVITY_KINDS, TIE_RULES } from "../plan/plan.js";
import { BIT_WIDTHS, MAX_GROUP_SIZE, MIN_GROUP_SIZE } from "../tensor/layout.js";

/** Enough for one entry per layer of the largest models known. */
export const MAX_LIST_LENGTH = 10_000;

export const pattern = z.string().min(1).max(MAX_PATTERN_LENGTH);
export const patterns = z.array(pattern).max(MAX_LIST_LENGTH);
const widths = z.literal([...BIT_WIDTHS]);
/** Patterns, the first match wins. A JavaScript object moves keys that look like array indices to the front. */
const widthsByPattern = z.record(pattern.regex(/^(?!(?:0|[1-9]\d*)$)/), widths);
/** Every group size a model's rows make sense of is among so many; each is quantized and measured. */
const MAX_CANDIDATE_GROUP_SIZES = 8;

export const PRECISION_SETTINGS = {
  enable_mixed_precision: z.boolean().nullable().default(null).meta({
    description: "Bits and group size layer by layer, for a target; null: where a target is set.",
  }),
  target_bpw: z
    .number()
    .min(1)
    .max(32)
    .nullable()
    .default(null)
    .meta({
      description: "Target: bits per weight over the quantized tensors, everything a reader needs counted.",
      examples: [3.5],
    }),
  target_model_size_mb: z
    .number()
    .min(0)
    .max(1e9)
    .nullable()
    .default(null)
    .meta({
      description: "Target: size of the whole output in MB of 10^6 bytes, kept tensors and file structure counted.",
      examples: [12.5],
    }),
  max_error: z
    .number()
    .min(0)
    .max(1e6)
    .nullable()
    .default(null)
    .meta({
      description:
        "Target: smallest output whose layers' squared errors, by sensitivity, add up to at most the square of this.",
      examples: [0.01],
    }),
  mean_group_size: z
    .number()
    .min(MIN_GROUP_SIZE)
    .max(MAX_GROUP_SIZE)
    .nullable()
    .default(null)
    .meta({
      description: "Target: mean group size over the quantized weights, at bit_width unless candidate_bits says more.",
      examples: [64],
    }),
  candidate_bits: z
    .array(widths)
    .min(1)
    .max(BIT_WIDTHS.length)
    .default([...BIT_WIDTHS])
    .meta({
      description: "Widths that a target chooses from.",
      examples: [[2, 4, 8]],
    }),
  candidate_group_sizes: z
    .array(z.int().min(MIN_GROUP_SIZE).max(MAX_GROUP_SIZE))
    .min(1)
    .max(MAX_CANDIDATE_GROUP_SIZES)
    .nullable()
    .default(null)
    .meta({
      description: "Group sizes that a target chooses from; null: group_size alone, 16 to 256 for mean_group_size.",
      examples: [[32, 64, 128]],
    }),
  sensitivity: z
    .enum([...SENSITIVITY_KINDS])
    .nullable()
    .default(null)
    .meta({
      description:
        "What a layer's quantization costs is measured by; null: model where the model can be run and is calibrated, " +
        "else output where it is calibrated, else weight.",
    }),
  layer_min_bits: widthsByPattern.default({}).meta({
    description: "Least bits of the tensors that match a regular expression; first match wins.",
    examples: [{ "attn1\\.": 3 }],
  }),
  layer_max_bits: widthsByPattern.default({}).meta({
    description: "Most bits of the tensors that match a regular expression; first match wins.",
    examples: [{ "ff\\.net": 4 }],
  }),
  sensitive_min_bits: z
    .union([widths, z.literal("none")])
    .default("none")
    .meta({
      description: "Mixed precision: sensitive layers get at least these bits instead of being kept; none: kept.",
    }),
  tie_layers: z
    .enum([...TIE_RULES])
    .default("qkv")
    .meta({
      description: "Layers that get the same bits and group size: query, key and value of one attention, or none.",
    }),
  tie_patterns: patterns.default([]).meta({
    description: "Regular expressions; the layers that match one, and have the same captures, get the same bits.",
    examples: [["blocks\\.(\\d+)\\.ff\\."]],
  }),
  knapsack_gap: z.number().min(0).max(1).default(0.001).meta({
    description: "Part of the additive error by which an allocation may miss the optimum; 0: exact.",
  }),
  search: z
    .enum([...SEARCHES])
    .default("none")
    .meta({
      description: "What follows the allocation: nothing, or evolution by the error of the whole quantized model.",
    }),
  "evolution.population": z.int().min(2).max(10_000).default(20).meta({
    description: "Plans that live at a time.",
  }),
  "evolution.generations": z.int().min(0).max(100_000).default(10).meta({
    description: "Generations after the first.",
  }),
  "evolution.mutation": z.number().min(0).max(1).default(0.2).meta({
    description: "Chance that a layer of a new plan changes.",
  }),
  "evolution.crossover": z.number().min(0).max(1).default(0.7).meta({
    description: "Chance that a new plan has two parents.",
  }),
  "evolution.elite": z.number().min(0).max(1).default(0.1).meta({
    description: "Part of the population that lives on unchanged.",
  }),
  "evolution.evaluations": z.int().min(1).max(1_000_000).default(200).meta({
    description: "Most plans whose error is measured.",
  }),
};
