/** What running two models side by side is asked and what it answers. */

import type { Config } from "../config/config.js";
import type { RoleNames } from "../graph/roles.js";
import type { TimeError } from "../tensor/time-errors.js";

export interface RunOptions {
  /** ONNX graph of the original; null: the one found beside it. */
  readonly graph?: string | null | undefined;
  /** Names of the graph's inputs and output where they are not evident. */
  readonly roles?: RoleNames | undefined;
  /** Samples to denoise, or to read of `data`; by default 16. */
  readonly samples?: number | undefined;
  /** Steps of the sampler; by default 20. */
  readonly steps?: number | undefined;
  /** Seed of the noise and the class labels; by default 1, calibration having 0. */
  readonly seed?: number | undefined;
  /** Inputs for the predictions instead of those that the original's own sampling visits. */
  readonly data?: string | null | undefined;
  /** Quantize activations per token while running, at this width, whatever the file says. */
  readonly dynamicBits?: number | null | undefined;
  /** A PNG file: samples of the original and the quantized model side by side. */
  readonly images?: string | null | undefined;
  /** Largest relative error of the prediction; null: none. */
  readonly maxPredictionError?: number | null | undefined;
  /** Least PSNR of the samples in dB; null: none. */
  readonly minPsnr?: number | null | undefined;
}

export interface RunVariant {
  /** What is quantized. */
  readonly quantized: "weights" | "weights and activations";
  /** Mean over times of ‖p − r‖/‖r‖, r being the original's prediction for the same input. */
  readonly predictionError: number;
  /** Mean over times of the cosine similarity. */
  readonly predictionCosine: number;
  readonly times: readonly TimeError[];
  /** Of the final samples from the same noise, dB; null where inputs were given. */
  readonly psnrDb: number | null;
}

export interface RunResult {
  readonly component: string;
  readonly graph: string;
  readonly runtime: string;
  readonly inputs: {
    readonly source: string;
    readonly samples: number;
    readonly steps: number | null;
    readonly seed: number | null;
    readonly scheduler: string | null;
  };
  readonly variants: readonly RunVariant[];
  /** Layers whose weights ran as they were quantized. */
  readonly layerCount: number;
  /** Quantized layers that the graph has no weight of: they ran as they are. */
  readonly notRun: readonly { readonly name: string; readonly reason: string }[];
  /** Layers with quantized activations. */
  readonly activationCount: number;
  readonly images: string | null;
  readonly passed: boolean;
  readonly warnings: readonly string[];
}

/** The part of `arrowquant.config` that says how activations are quantized while running. */
export type RecordedActivations = { readonly mode: NonNullable<Config["activation_mode"]>; readonly bits: number };
