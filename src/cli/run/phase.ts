import type { ProgressEvent } from "../../engine/progress.js";

/** What the progress is called in phases that a command does not call by its own name. */
const PHASE_LABELS: Partial<Record<ProgressEvent["phase"], string>> = {
  sample: "sampling",
  calibrate: "calibrating",
  sensitivity: "measuring",
  search: "searching",
  validate: "validating",
  run: "running",
  export: "exporting",
};

/** undefined: the command's own. */
export function phaseLabel(phase: ProgressEvent["phase"]): string | undefined {
  return PHASE_LABELS[phase];
}
