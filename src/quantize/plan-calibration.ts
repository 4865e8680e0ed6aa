/** A statistics file as a plan sees it. */

import type { Statistics, ValueInfo } from "../calibration/statistics.js";
import { rowCountOf, type SourceInfo } from "../calibration/statistics-info.js";
import type { Calibration } from "../plan/calibration.js";

/** How reports call each source; random inputs are named as such wherever they were used. */
const SOURCE_LABELS: Readonly<Record<SourceInfo["kind"], string>> = {
  sampling: "sampling",
  data: "data",
  synthetic: "synthetic (random inputs)",
  imatrix: "imatrix (second moments alone)",
};

export function planCalibrationOf({ info, fingerprint, layerNames }: Statistics): Calibration {
  const { source, sampleCount, heldBackCount, component, time, secondMomentsOnly } = info;
  const samples = source.kind === "imatrix" ? "" : `, ${sampleCount} samples, ${heldBackCount} held back`;
  const having = (part: (value: ValueInfo) => number) =>
    new Set([...layerNames].filter((name) => part(info.values[info.layers[name] as string] as ValueInfo) > 0));
  return {
    label: SOURCE_LABELS[source.kind] + samples,
    fingerprint,
    component,
    layerNames,
    hessianNames: having(({ hessian }) => rowCountOf(hessian)),
    heldBackNames: having(({ heldBack }) => rowCountOf(heldBack)),
    timeBinCount: secondMomentsOnly ? 0 : time.bins.length,
  };
}
