/** What a native file says of the settings that made it (`arrowquant.config`). */
import type { ComponentPlan } from "../plan/plan.js";
import type { ResolvedConfig } from "./config.js";

/**
 * The settings that change tensors, as canonical JSON: keys sorted, no spaces. Two runs over the same
 * source with the same text write the same tensors. Values are the effective ones of `plan`, so a choice of
 * the strategy and the same choice by hand read alike; nothing of paths, threads, memory or verbosity is in
 * it, and nothing of settings that were not applied.
 */
export function configThatChangesTensors(config: ResolvedConfig, plan: ComponentPlan): string {
  const { values } = config;
  const spec = plan.baseSpec;
  const isCoded = spec.scaleBits !== null;
  const hasZeroPoints = !spec.symmetric;
  return toCanonicalJson({
    bit_width: spec.bits,
    group_size: spec.groupSize,
    method: spec.method,
    symmetric: spec.symmetric,
    scale_bits: spec.scaleBits ?? "none",
    // Of an r2q plan they still decide the layers that fall back to hqq.
    ...(hasZeroPoints ? { zero_point_bits: spec.zeroPointBits ?? "none" } : {}),
    ...(isCoded ? { super_group_size: spec.superGroupSize } : {}),
    ...(spec.method === "mse" ? { weighting: spec.weighting, preserve_gain: spec.preserveGain } : {}),
    modality: plan.modality,
    min_accuracy: values.min_accuracy,
    on_nonfinite: values.on_nonfinite,
    include: values.include,
    exclude: values.exclude,
    skip_sensitive_layers: values.skip_sensitive_layers,
    sensitive_layer_names: values.sensitive_layer_names,
    sensitive_layer_patterns: values.sensitive_layer_patterns,
    // Pairs, as sorting the keys would lose which match comes first.
    layer_bit_widths: Object.entries(values.layer_bit_widths),
  });
}

function toCanonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, part: unknown) =>
    typeof part === "object" && part !== null && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)))
      : part,
  );
}
