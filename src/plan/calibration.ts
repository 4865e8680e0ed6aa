/** What a plan knows of the statistics of a calibration run. */
export interface Calibration {
  /** What reports call it: `sampling, 128 samples`, `synthetic (random inputs), 64 samples`. */
  readonly label: string;
  /** SHA-256 of the statistics file, in hex. */
  readonly fingerprint: string;
  /** Name of the component whose layers were measured; the others of a pipeline have no statistics. */
  readonly component: string;
  /** Tensors whose layer's input was measured. */
  readonly layerNames: ReadonlySet<string>;
  /** Tensors with a Gram matrix of their layer's input. */
  readonly hessianNames: ReadonlySet<string>;
  /** Tensors with held-back rows of their layer's input, so that the error of its output can be measured. */
  readonly heldBackNames: ReadonlySet<string>;
  /** Time bins that ranges are known of; 0: no ranges at all (an imatrix). */
  readonly timeBinCount: number;
}

/** What is known of one layer. */
export interface LayerKnowledge {
  readonly isMeasured: boolean;
  readonly hasHessian: boolean;
  readonly hasHeldBack: boolean;
  readonly hasRanges: boolean;
}

export const NOTHING_KNOWN: LayerKnowledge = {
  isMeasured: false,
  hasHessian: false,
  hasHeldBack: false,
  hasRanges: false,
};

/** The calibration as a component sees it that it did not measure. */
export function withoutLayers(calibration: Calibration): Calibration {
  const none: ReadonlySet<string> = new Set();
  return { ...calibration, layerNames: none, hessianNames: none, heldBackNames: none, timeBinCount: 0 };
}

/** What is known of a layer that nothing is missing of. */
export function knowsAll(calibration: Calibration | null): LayerKnowledge {
  if (calibration === null) return NOTHING_KNOWN;
  return {
    isMeasured: calibration.layerNames.size > 0,
    hasHessian: calibration.hessianNames.size > 0,
    hasHeldBack: calibration.heldBackNames.size > 0,
    hasRanges: calibration.timeBinCount > 0,
  };
}

export function knowledgeOf(calibration: Calibration | null, tensorName: string): LayerKnowledge {
  if (calibration === null || !calibration.layerNames.has(tensorName)) return NOTHING_KNOWN;
  return {
    isMeasured: true,
    hasHessian: calibration.hessianNames.has(tensorName),
    hasHeldBack: calibration.heldBackNames.has(tensorName),
    hasRanges: calibration.timeBinCount > 0,
  };
}
