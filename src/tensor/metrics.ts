/**
 * What is measured of a quantized tensor, from four float64 sums and one maximum.
 * The sums of parts add up, so a chunk's give the tensor's and the tensors' give the model's.
 */

/** Of something against what stands for it: a layer's output y = W·x against ŷ = Ŵ·x̂, or a prediction. */
export interface OutputSums {
  /** Σ y·ŷ */
  dot: number;
  /** Σ y² */
  sourceNorm2: number;
  /** Σ ŷ² */
  rebuiltNorm2: number;
  /** Σ (y − ŷ)² */
  errorNorm2: number;
}

/** The same of weights w against ŵ. */
export interface ErrorSums extends OutputSums {
  /** max |w − ŵ| */
  maxAbsError: number;
}

export interface ErrorMetrics extends ErrorSums {
  /** ⟨w,ŵ⟩/(‖w‖‖ŵ‖); two zero vectors: 1, one: 0. */
  cosineSimilarity: number;
  /** 10·log10(Σw²/Σ(w−ŵ)²) dB; no error at all: Infinity. */
  sqnrDb: number;
  /** ‖w−ŵ‖/‖w‖; two zero vectors: 0, a zero source alone: Infinity. */
  relativeRmse: number;
  /** ⟨w,ŵ⟩/⟨w,w⟩; a zero source: 1 if ŵ is zero too, else Infinity. */
  gain: number;
}

export function zeroSums(): ErrorSums {
  return { ...zeroOutputSums(), maxAbsError: 0 };
}

/** Adds `part` to `total` in place; the order of calls is the order of addition. */
export function addSums(total: ErrorSums, part: ErrorSums): void {
  addOutputSums(total, part);
  total.maxAbsError = Math.max(total.maxAbsError, part.maxAbsError);
}

export function deriveMetrics(sums: ErrorSums): ErrorMetrics {
  const { dot, sourceNorm2, rebuiltNorm2, errorNorm2 } = sums;
  const bothZero = sourceNorm2 === 0 && rebuiltNorm2 === 0;
  const oneZero = sourceNorm2 === 0 || rebuiltNorm2 === 0;
  return {
    ...sums,
    cosineSimilarity: bothZero ? 1 : oneZero ? 0 : dot / (Math.sqrt(sourceNorm2) * Math.sqrt(rebuiltNorm2)),
    sqnrDb: errorNorm2 === 0 ? Infinity : 10 * Math.log10(sourceNorm2 / errorNorm2),
    relativeRmse: errorNorm2 === 0 ? 0 : Math.sqrt(errorNorm2) / Math.sqrt(sourceNorm2),
    gain: sourceNorm2 === 0 ? (rebuiltNorm2 === 0 ? 1 : Infinity) : dot / sourceNorm2,
  };
}

export interface OutputMetrics {
  /** ‖y − ŷ‖/‖y‖; two zero outputs: 0, a zero source alone: Infinity. */
  relativeError: number;
  /** ⟨y,ŷ⟩/(‖y‖‖ŷ‖); two zero outputs: 1, one: 0. */
  cosineSimilarity: number;
}

export function zeroOutputSums(): OutputSums {
  return { dot: 0, sourceNorm2: 0, rebuiltNorm2: 0, errorNorm2: 0 };
}

export function addOutputSums(total: OutputSums, part: OutputSums): void {
  total.dot += part.dot;
  total.sourceNorm2 += part.sourceNorm2;
  total.rebuiltNorm2 += part.rebuiltNorm2;
  total.errorNorm2 += part.errorNorm2;
}

export function deriveOutputMetrics(sums: OutputSums): OutputMetrics {
  const { cosineSimilarity, relativeRmse } = deriveMetrics({ ...sums, maxAbsError: 0 });
  return { cosineSimilarity, relativeError: relativeRmse };
}
