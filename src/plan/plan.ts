/** What will be done with each tensor, and why. Plans are plain data: pure functions make and change them. */

import type { Dtype } from "../tensor/dtype.js";
import type { TensorInfo } from "../tensor/info.js";
import type { QuantSpec } from "../tensor/layout.js";

export const MODALITIES = ["text", "code", "image", "audio", "video"] as const;
export type Modality = (typeof MODALITIES)[number];

/** A choice and the rule that made it. */
export interface Decision {
  /** The setting, e.g. `method`. */
  readonly what: string;
  readonly value: string;
  /** The rule, e.g. `strategy image: hqq without calibration` or `flag --method`. */
  readonly rule: string;
}

/** 16 stands for activations as they are. */
export const ACTIVATION_BIT_WIDTHS = [4, 5, 6, 7, 8, 16] as const;
export const ACTIVATION_RANGES = ["minmax", "percentile", "mse"] as const;
export const ACTIVATION_MODES = ["time", "static", "dynamic"] as const;
export const TIME_GROUPINGS = ["uniform", "optimal"] as const;
export const BOUNDARY_INTERPOLATIONS = ["linear", "cubic", "sigmoid"] as const;
export const GPTQ_ORDERS = ["activation", "natural"] as const;
/** What a layer's quantization costs is measured by; `entropy` is an older heuristic, kept as a baseline. */
export const SENSITIVITY_KINDS = ["weight", "output", "model", "entropy"] as const;
export type SensitivityKind = (typeof SENSITIVITY_KINDS)[number];
export const TIE_RULES = ["qkv", "none"] as const;
export const SEARCHES = ["none", "evolutionary"] as const;

/** How the input of a quantized layer is quantized where the model is run. */
export interface ActivationSettings {
  /** 4 … 8. */
  readonly bits: number;
  /** One range per time group, one for all times, or one per token found while running (nothing is stored). */
  readonly mode: (typeof ACTIVATION_MODES)[number];
  readonly groups: (typeof TIME_GROUPINGS)[number];
  /** Wanted groups; there are never more than the statistics have time bins. 1 unless mode is `time`. */
  readonly groupCount: number;
  readonly range: (typeof ACTIVATION_RANGES)[number];
  /** Range `percentile`: how much of the values lies inside, in percent. */
  readonly percentile: number;
  /** null: groups meet in a step. */
  readonly boundarySmoothing: {
    /** Groups on either side that take part, at least 1. */
    readonly window: number;
    readonly interpolation: (typeof BOUNDARY_INTERPOLATIONS)[number];
  } | null;
  /** λ of the penalty on steps between neighbouring log scales; null: none. */
  readonly transitionWeight: number | null;
  /** Steps between neighbouring log scales above this are warned of. */
  readonly smoothnessThreshold: number;
}

/** Channel equalization of a layer. */
export interface SpatialSettings {
  /** Values of α to try, s_c = a_c^α / w_c^(1−α). The layer without scales is always a candidate beside them. */
  readonly alphas: readonly number[];
}

/** How gptq treats a layer's Hessian. */
export interface GptqSettings {
  /** Added to the diagonal, as a part of its mean. */
  readonly damp: number;
  /** Columns in activation order (largest diagonal of the Hessian first), or as they stand. */
  readonly order: (typeof GPTQ_ORDERS)[number];
}

export interface LayerPlan {
  readonly tensor: TensorInfo;
  /** null: kept. */
  readonly spec: QuantSpec | null;
  /**
   * Method `auto`: every spec to choose from by output error on held-back samples, `spec` (what is taken where
   * they cannot be told apart) first. Empty: `spec` stands.
   */
  readonly candidates: readonly QuantSpec[];
  /** What a target chooses the spec from, within the layer's least and most bits. Empty: there is no target, or kept. */
  readonly options: readonly QuantSpec[];
  /** The statistics know this layer: methods weigh by its importance. */
  readonly calibrated: boolean;
  /** null: no channel equalization. */
  readonly spatial: SpatialSettings | null;
  /** null: activations stay as they are. */
  readonly activations: ActivationSettings | null;
  /** Type of the bytes of a kept tensor: the source's, or F32 where a source scale was applied. */
  readonly storedDtype: Dtype;
  /** The rule that kept or quantized it, in a few words. */
  readonly reason: string;
  /** The width is settled (`layer_bit_widths`, a target, a plan file), so quality does not move it. */
  readonly pinned: boolean;
}

/** A setting that was accepted but cannot act yet. */
export interface NotApplied {
  readonly setting: string;
  readonly reason: string;
}

export interface ComponentPlan {
  readonly component: string;
  readonly architecture: string;
  readonly modality: Modality;
  readonly modalityEvidence: readonly string[];
  readonly decisions: readonly Decision[];
  readonly notApplied: readonly NotApplied[];
  readonly warnings: readonly string[];
  /** How a layer is quantized that no rule singles out. */
  readonly baseSpec: QuantSpec;
  /** What layers were measured by; null: nothing. */
  readonly calibration: PlanCalibration | null;
  /** What layers of which nothing is missing get; null: no channel equalization. */
  readonly spatial: SpatialSettings | null;
  /** What layers of which nothing is missing get; null: activations stay as they are. */
  readonly activations: ActivationSettings | null;
  /** How bits and group sizes were chosen layer by layer; null: the same for all that no rule singles out. */
  readonly mixed: MixedPrecision | null;
  readonly layers: readonly LayerPlan[];
}

/** What a target or a plan file made of a component. Errors are squared. */
export interface MixedPrecision {
  /** In words: `target 3.00 bits per weight`, `plan file plan.yaml`. */
  readonly origin: string;
  /** null: a plan file's figures. */
  readonly allocation: MixedAllocation | null;
  readonly layers: readonly MixedLayer[];
}

/** The layers whose spec was chosen, in the order of the component. */
export interface MixedLayer {
  readonly name: string;
  readonly bits: number;
  readonly groupSize: number;
  readonly parameterCount: number;
  readonly bytes: number;
  /** What the layer adds to the whole; null: not known (a plan file without figures). */
  readonly error: number | null;
}

/** Of all layers that a target was allocated over, those of other components among them. */
export interface MixedAllocation {
  readonly sensitivity: SensitivityKind;
  readonly bitsPerWeight: number;
  readonly meanGroupSize: number;
  /** Codes, scales and zero points. */
  readonly bytes: number;
  /** Of the whole output, where the target is its size; at most, where parts of it are settled while quantizing. */
  readonly fileBytes: number | null;
  /** Sum over the layers. */
  readonly error: number;
  /** No allocation that meets the target has a smaller sum. */
  readonly lowerBound: number;
  readonly gap: number;
  /** null: none. */
  readonly search: MixedSearch | null;
  /** Sizes against errors: of the sum without a search, else of what the search measured. By rising size. */
  readonly front: readonly FrontPoint[];
}

export interface FrontPoint {
  readonly bitsPerWeight: number;
  readonly error: number;
}

/** An evolutionary search. */
export interface MixedSearch {
  /** `model`: the prediction of the whole quantized model; `sum`: the sum over the layers, where it cannot be run. */
  readonly fitness: "model" | "sum";
  readonly generations: number;
  readonly evaluations: number;
  /** Of the best it was seeded with, and of the best it found. */
  readonly seedError: number;
  readonly error: number;
  /** The best of each generation. */
  readonly history: readonly number[];
}

/** The calibration of a plan: what of it changes tensors. */
export interface PlanCalibration {
  /** What reports call it: `sampling, 128 samples`. */
  readonly label: string;
  /** SHA-256 of the statistics file, in hex. */
  readonly fingerprint: string;
  readonly gptq: GptqSettings;
}
