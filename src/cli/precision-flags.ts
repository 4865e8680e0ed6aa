/** The flags of mixed precision: what bits and group sizes are chosen for, from what, and how. */
import { BYTES_TEXT, parseBytes } from "../config/bytes.js";
import { ArrowQuantError } from "../errors.js";
import type { Flag } from "./command.js";

const MIXED = "MIXED PRECISION FLAGS";

/** `PATTERN=BITS`, given any number of times; a pattern may hold `=` itself. */
export function readLayerBits(flag: string) {
  return (given: string | readonly string[]): string | readonly string[] => {
    const patterns = new Set<string>();
    for (const text of typeof given === "string" ? [given] : given) {
      const split = text.lastIndexOf("=");
      if (split < 1) {
        throw new ArrowQuantError("E_USAGE", `--${flag} ${text}: PATTERN=BITS is expected`, {
          hint: `for example --${flag} 'attn1\\.to_q=8'`,
          details: { value: text },
        });
      }
      const pattern = text.slice(0, split);
      if (patterns.has(pattern)) {
        throw new ArrowQuantError("E_CONFLICT", `--${flag} gives the pattern ${pattern} twice`, {
          hint: "the first match wins: give each pattern once, the most particular first",
          details: { pattern },
        });
      }
      patterns.add(pattern);
    }
    return given;
  };
}

/** A size with its unit, in MB of 10^6 bytes: a bare number could be MB as well as bytes. */
function targetSize(given: string | readonly string[]): number {
  const text = String(given);
  if (!BYTES_TEXT.test(text) || /^[\d.]+$/.test(text)) {
    throw new ArrowQuantError("E_USAGE", `--target-size ${text}: a size with a unit is expected`, {
      hint: "for example --target-size 12MB or --target-size 1.5GiB",
      details: { value: text },
    });
  }
  return parseBytes(text) / 1e6;
}

export const PRECISION_FLAGS: readonly Flag[] = [
  {
    name: "target-bpw",
    value: "bits",
    description: "Choose bits and group size of each layer for this many bits per weight",
    group: MIXED,
    setting: "target_bpw",
  },
  {
    name: "target-size",
    value: "size",
    description: "The same for a file of at most this size, e.g. 12MB",
    group: MIXED,
    setting: "target_model_size_mb",
    parse: targetSize,
  },
  {
    name: "max-error",
    value: "x",
    description: "The same for the smallest file whose layers' errors add up to at most this",
    group: MIXED,
    setting: "max_error",
  },
  {
    name: "mean-group-size",
    value: "n",
    description: "Choose the group size of each layer for this mean",
    group: MIXED,
    setting: "mean_group_size",
  },
  {
    name: "candidate-bits",
    value: "list",
    description: "Widths to choose from, e.g. 2,4,8",
    group: MIXED,
    setting: "candidate_bits",
  },
  {
    name: "candidate-group-sizes",
    value: "list",
    description: "Group sizes to choose from, e.g. 32,64,128; by default --group-size alone",
    group: MIXED,
    setting: "candidate_group_sizes",
  },
  {
    name: "sensitivity",
    value: "weight|output|model|entropy",
    description: "What a layer's quantization costs is measured by; by default the best there is data for",
    group: MIXED,
    setting: "sensitivity",
  },
  {
    name: "layer-min-bits",
    value: "pattern=bits",
    description: "Least bits of tensors that match; the first match wins",
    group: MIXED,
    setting: "layer_min_bits",
    repeatable: true,
    parse: readLayerBits("layer-min-bits"),
  },
  {
    name: "layer-max-bits",
    value: "pattern=bits",
    description: "Most bits of tensors that match; the first match wins",
    group: MIXED,
    setting: "layer_max_bits",
    repeatable: true,
    parse: readLayerBits("layer-max-bits"),
  },
  {
    name: "sensitive-min-bits",
    value: "bits|none",
    description: "Least bits of sensitive layers; none: they are kept",
    group: MIXED,
    setting: "sensitive_min_bits",
  },
  {
    name: "tie-layers",
    value: "qkv|none",
    description: "Query, key and value of an attention get the same bits and group size",
    group: MIXED,
    setting: "tie_layers",
  },
  {
    name: "tie-patterns",
    value: "pattern",
    description: "Layers that match, with the same captures, get the same bits and group size",
    group: MIXED,
    setting: "tie_patterns",
    repeatable: true,
  },
  {
    name: "knapsack-gap",
    value: "0..1",
    description: "Part of the error by which an allocation may miss the optimum; 0: exact",
    group: MIXED,
    setting: "knapsack_gap",
  },
  {
    name: "enable-mixed-precision",
    description: "Bits and group size layer by layer (needs a target)",
    group: MIXED,
    setting: "enable_mixed_precision",
  },
  {
    name: "disable-mixed-precision",
    description: "The same bits for all layers, whatever the configuration's target",
    group: MIXED,
    setting: "enable_mixed_precision",
    sets: false,
  },
  {
    name: "search",
    value: "none|evolutionary",
    description: "Go on from the allocation by the error of the whole quantized model",
    group: MIXED,
    setting: "search",
  },
  {
    name: "population",
    value: "n",
    description: "Search: plans that live at a time",
    group: MIXED,
    setting: "evolution.population",
  },
  {
    name: "generations",
    value: "n",
    description: "Search: generations after the first",
    group: MIXED,
    setting: "evolution.generations",
  },
  {
    name: "mutation",
    value: "0..1",
    description: "Search: chance that a layer of a new plan changes",
    group: MIXED,
    setting: "evolution.mutation",
  },
  {
    name: "crossover",
    value: "0..1",
    description: "Search: chance that a new plan has two parents",
    group: MIXED,
    setting: "evolution.crossover",
  },
  {
    name: "elite",
    value: "0..1",
    description: "Search: part of the population that lives on unchanged",
    group: MIXED,
    setting: "evolution.elite",
  },
  {
    name: "evaluations",
    value: "n",
    description: "Search: most plans whose error is measured",
    group: MIXED,
    setting: "evolution.evaluations",
  },
];
