/** What an allocation of bits adds up. */
import type { SensitivityKind } from "../../plan/plan.js";
import type { CandidateErrors, EntropyClass, LayerSensitivity } from "./table.js";

/** How many times a layer's error counts by its class: a class up is worth a bit, and a bit is a factor of four. */
const CLASS_WEIGHTS: Readonly<Record<EntropyClass, number>> = { low: 1, medium: 4, high: 16 };

/**
 * The error of a layer quantized in this way, by that measure, in a unit in which errors of layers add up; null where
 * the measure is not known of it.
 */
export function errorOf(layer: LayerSensitivity, candidate: CandidateErrors, kind: SensitivityKind): number | null {
  switch (kind) {
    case "weight":
      return candidate.weight;
    case "output":
      // Neither the error relative to each layer's output nor the sum of all squares adds up best, but the square per
      // element of the output: a wide layer's are no more to the next than a narrow one's. Measured as the prediction
      // error of the plans that an exact allocation makes of it, geometric mean over dit-mnist and unet-mnist, gptq and
      // hqq, 2.75, 3, 3.5 and 4 bits per weight: .0130; relative .0153, absolute .0155 (weight .0134, model .0057). It was picked
      // from some thirty formulas on these very models, so that its lead over the weights' error says little.
      return candidate.output === null || layer.outputShare === null ? null : candidate.output * layer.outputShare;
    case "model":
      return candidate.model;
    case "entropy":
      // The heuristic knows no candidates: each bit quarters the squared error, in every weight alike.
      return CLASS_WEIGHTS[layer.entropyClass] * layer.entropy * layer.parameterCount * 4 ** -candidate.spec.bits;
  }
}
