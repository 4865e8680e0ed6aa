/** What a native file says of the settings that made it (`arrowquant.config`). */
import { createHash } from "node:crypto";
import type { ActivationSettings, ComponentPlan, LayerPlan } from "../plan/plan.js";
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
  const { calibration, activations, spatial } = plan;
  // The methods that `auto` chooses from follow from it, the width and the statistics.
  const method = values.method === "auto" ? "auto" : spec.method;
  const triesGptq = method === "auto" || method === "gptq";
  return toCanonicalJson({
    bit_width: spec.bits,
    group_size: spec.groupSize,
    method,
    symmetric: spec.symmetric,
    scale_bits: spec.scaleBits ?? "none",
    // Of an r2q plan they still decide the layers that fall back to hqq.
    ...(hasZeroPoints ? { zero_point_bits: spec.zeroPointBits ?? "none" } : {}),
    ...(isCoded ? { super_group_size: spec.superGroupSize } : {}),
    ...(method === "mse" || method === "auto" ? { weighting: spec.weighting, preserve_gain: spec.preserveGain } : {}),
    ...(calibration === null ? {} : { calibration: calibration.fingerprint }),
    ...(calibration !== null && triesGptq
      ? { gptq_damp: calibration.gptq.damp, gptq_order: calibration.gptq.order }
      : {}),
    ...(spatial === null ? {} : { spatial_alphas: spatial.alphas }),
    ...(activations === null ? {} : { activations: recordActivations(activations) }),
    modality: plan.modality,
    min_accuracy: values.min_accuracy,
    on_nonfinite: values.on_nonfinite,
    include: values.include,
    exclude: values.exclude,
    skip_sensitive_layers: values.skip_sensitive_layers,
    sensitive_layer_names: values.sensitive_layer_names,
    sensitive_layer_patterns: values.sensitive_layer_patterns,
    ...(plan.mixed === null ? {} : { mixed_precision: digestSpecs(plan.layers) }),
    // Pairs, as sorting the keys would lose which match comes first.
    layer_bit_widths: Object.entries(values.layer_bit_widths),
  });
}

/** SHA-256, in hex, of how each layer is quantized: the specs of thousands of layers would weigh as much as one. */
function digestSpecs(layers: readonly LayerPlan[]): string {
  const hash = createHash("sha256");
  for (const { tensor, spec } of layers) hash.update(`${toCanonicalJson([tensor.name, spec])}\n`);
  return hash.digest("hex");
}

function recordActivations({
  smoothnessThreshold: _warnsOnly,
  percentile,
  ...activations
}: ActivationSettings): object {
  return activations.range === "percentile" ? { ...activations, percentile } : activations;
}

function toCanonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, part: unknown) =>
    typeof part === "object" && part !== null && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)))
      : part,
  );
}
