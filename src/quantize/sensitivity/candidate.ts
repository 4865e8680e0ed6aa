/** A layer as it would be planned with one of its candidates. */
import type { ComponentPlan, LayerPlan } from "../../plan/plan.js";
import type { QuantSpec } from "../../tensor/layout.js";

/** The layer with `spec`, settled: neither quality nor another method moves it. */
export function candidateLayer(layer: LayerPlan, spec: QuantSpec): LayerPlan {
  return { ...layer, spec, candidates: [], pinned: true };
}

/**
 * The layer as its weights are measured: activations count only where they decide about weights, by way of the
 * equalization that serves both best; else their error would be the same for every candidate.
 */
export function measuredLayer(layer: LayerPlan, spec: QuantSpec): LayerPlan {
  const planned = candidateLayer(layer, spec);
  return layer.spatial === null ? { ...planned, activations: null } : planned;
}

/** Everything beside weights and statistics that decides a candidate's codes, as text. */
export function describeCandidate(plan: ComponentPlan, layer: LayerPlan, spec: QuantSpec): string {
  const { tensor, calibrated, spatial, activations } = measuredLayer(layer, spec);
  const gptq = plan.calibration?.gptq ?? null;
  return JSON.stringify([tensor.name, specText(spec), calibrated, spatial?.alphas ?? null, activations, gptq]);
}

/** A spec as text, the same for equal specs however they were made. */
export function specText(spec: QuantSpec): string {
  const { bits, groupSize, symmetric, method, scaleBits, zeroPointBits, superGroupSize, weighting, preserveGain } =
    spec;
  return [bits, groupSize, symmetric, method, scaleBits, zeroPointBits, superGroupSize, weighting, preserveGain].join();
}
