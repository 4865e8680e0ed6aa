/** A plan as the text of a plan file. */
import type { Session } from "../engine/session.js";
import { raceSignal } from "../engine/signal.js";
import { fingerprintComponent } from "../formats/fingerprint.js";
import { writePlanFile } from "../plan/plan-file.js";
import { settingsOfPlan } from "./job-config.js";
import { prepareModel } from "./prepare-model.js";
import type { PlanJob, QuantizePlan } from "./result.js";

export interface PlanText {
  readonly plan: QuantizePlan;
  /** YAML; a job with a file of it as `plan` does exactly what `plan` says. */
  readonly text: string;
}

/**
 * What `quantizeModel` would do, to be edited and followed.
 * @throws what `planModel` does
 */
export async function writePlanText(job: PlanJob, session: Session): Promise<PlanText> {
  using place = await session.jobs.enter(job.signal);
  const { model, config, plan } = await prepareModel(job, session, place);
  const fingerprints: Record<string, string> = {};
  for (const component of model.components) {
    fingerprints[component.name] = await raceSignal(fingerprintComponent(component), place.signal);
  }
  const mixed = plan.components[0]?.mixed ?? null;
  const { bitsPerWeight, bytesOut } = plan.sizes;
  const text = writePlanFile(plan.components, {
    model: job.input,
    target: mixed?.allocation == null ? null : mixed.origin.replace(/^target /, ""),
    settings: settingsOfPlan(config),
    fingerprints,
    figures: [
      `${bytesOut} bytes of tensors${bitsPerWeight === null ? "" : `, ${bitsPerWeight.toFixed(3)} bits per weight`}.`,
    ],
  });
  return { plan, text };
}
