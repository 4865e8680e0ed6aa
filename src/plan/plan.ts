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

export interface LayerPlan {
  readonly tensor: TensorInfo;
  /** null: kept. */
  readonly spec: QuantSpec | null;
  /** Type of the bytes of a kept tensor: the source's, or F32 where a source scale was applied. */
  readonly storedDtype: Dtype;
  /** The rule that kept or quantized it, in a few words. */
  readonly reason: string;
  /** `layer_bit_widths` pinned the width, so quality does not move it. */
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
  readonly layers: readonly LayerPlan[];
}
