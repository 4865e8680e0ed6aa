/** How much each way of quantizing each layer would cost the model, by several measures of error. */
import type { SensitivityKind } from "../../plan/plan.js";
import type { QuantSpec } from "../../tensor/layout.js";

export const ENTROPY_CLASSES = ["low", "medium", "high"] as const;
export type EntropyClass = (typeof ENTROPY_CLASSES)[number];

/** What one way of quantizing a layer costs. Errors are squared and relative: 0 is none, 1 is as if the layer were gone. */
export interface CandidateErrors {
  readonly spec: QuantSpec;
  /** Bytes stored: codes, scales and zero points. */
  readonly bytes: number;
  /** Σ h (w − ŵ)² over Σ h w²; h is the second moment of each column's input, one where that is not known. */
  readonly weight: number;
  /**
   * Of the layer's output on rows of its input that calibration held back, tr((W − Ŵ) H (W − Ŵ)ᵀ) over tr(W H Wᵀ).
   * null: not asked for, or there are no such rows.
   */
  readonly output: number | null;
  /** Of the model's prediction, this layer alone quantized. null: not asked for, or the layer is not found in the graph. */
  readonly model: number | null;
}

export interface LayerSensitivity {
  readonly name: string;
  readonly parameterCount: number;
  /** Of the histogram of the weights, 256 bins from least to largest, over the entropy of equal bins: 0 … 1. */
  readonly entropy: number;
  readonly entropyClass: EntropyClass;
  /**
   * Mean square of an element of the layer's output, times the positions that a sample has there, as a part of the sum
   * of that over all layers of the table; null where `output` is.
   */
  readonly outputShare: number | null;
  /** In the order in which they were asked for. */
  readonly candidates: readonly CandidateErrors[];
}

/** What was measured of one component. */
export interface SensitivityTable {
  readonly component: string;
  /** SHA-256 of everything that the figures depend on: weights, statistics, candidates, settings. */
  readonly fingerprint: string;
  readonly kinds: readonly SensitivityKind[];
  /** Layers with candidates, in the order of the plan. */
  readonly layers: readonly LayerSensitivity[];
  readonly warnings: readonly string[];
}
