/** How far a prediction or sample lies from its reference, in float64. */
import { ArrowQuantError } from "../errors.js";
import { deriveOutputMetrics, type OutputSums } from "./metrics.js";

/** The sums of `prediction` against `reference`, of the same length (`E_SHAPE`); those of parts add up. */
export function sumPrediction(prediction: Float32Array, reference: Float32Array): OutputSums {
  if (prediction.length !== reference.length) {
    const message = `a prediction of ${prediction.length} values against a reference of ${reference.length}`;
    throw new ArrowQuantError("E_SHAPE", message, {
      details: { predictionLength: prediction.length, referenceLength: reference.length },
    });
  }
  const sums = { dot: 0, sourceNorm2: 0, rebuiltNorm2: 0, errorNorm2: 0 };
  for (let i = 0; i < reference.length; i++) {
    const r = reference[i] as number;
    const p = prediction[i] as number;
    sums.dot += p * r;
    sums.sourceNorm2 += r * r;
    sums.rebuiltNorm2 += p * p;
    sums.errorNorm2 += (p - r) ** 2;
  }
  return sums;
}

/** ‖p − r‖/‖r‖; two zero vectors: 0, a zero reference alone: Infinity. */
export function relativeError(prediction: Float32Array, reference: Float32Array): number {
  return deriveOutputMetrics(sumPrediction(prediction, reference)).relativeError;
}

/** ⟨p,r⟩/(‖p‖‖r‖); two zero vectors: 1, one: 0. */
export function cosine(prediction: Float32Array, reference: Float32Array): number {
  return deriveOutputMetrics(sumPrediction(prediction, reference)).cosineSimilarity;
}

/** 10·log10(peakToPeak²/mean (s − r)²) dB; no error at all: Infinity. Images in [−1, 1] have a peak to peak of 2. */
export function psnr(sample: Float32Array, reference: Float32Array, peakToPeak: number): number {
  const { errorNorm2 } = sumPrediction(sample, reference);
  return errorNorm2 === 0 ? Infinity : 10 * Math.log10((peakToPeak ** 2 * reference.length) / errorNorm2);
}
