/** A model up to where its tensors are read: opened by its headers, calibrated, planned. */
import type { Statistics } from "../calibration/statistics.js";
import type { ResolvedConfig } from "../config/config.js";
import type { Job } from "../engine/jobs.js";
import type { Session } from "../engine/session.js";
import { raceSignal } from "../engine/signal.js";
import { fingerprintComponent } from "../formats/fingerprint.js";
import { openModel } from "../formats/open.js";
import type { Calibration } from "../plan/calibration.js";
import { planComponents } from "../plan/component.js";
import type { ComponentPlan, LayerPlan, MixedPrecision } from "../plan/plan.js";
import type { PlanFile } from "../plan/plan-file.js";
import { estimateLayerBytes, estimateSizes } from "../plan/size.js";
import { readTarget } from "../plan/targets.js";
import type { Model } from "../tensor/info.js";
import { countElements } from "../tensor/layout.js";
import { resolveJob, withPlanSettings } from "./job-config.js";
import { obtainStatistics } from "./obtain-statistics.js";
import { planCalibrationOf } from "./plan-calibration.js";
import type { PlanJob, QuantizePlan } from "./result.js";

export interface PreparedModel {
  readonly model: Model;
  readonly config: ResolvedConfig;
  readonly plan: QuantizePlan;
  /** null: the configuration names no calibration. */
  readonly statistics: Statistics | null;
}

/**
 * What would be done with a model: from headers, statistics where the configuration names a calibration, and
 * measurements of its layers where it names a target.
 */
export async function prepareModel(job: PlanJob, session: Session, place: Job): Promise<PreparedModel> {
  const { signal } = place;
  const given = await raceSignal(resolveJob(job.config), signal);
  const file = job.plan === undefined ? null : await raceSignal(loadPlan(job.plan), signal);
  const config = file === null ? given : await withPlanSettings(given, file);
  const { variant, components } = config.values;
  const opening = openModel(job.input, {
    ...(variant === null ? {} : { variant }),
    ...(components === null ? {} : { components }),
  });
  const model = await raceSignal(opening, signal);
  const calibrated = await obtainStatistics(job, model, config, session, place);
  const statistics = calibrated?.statistics ?? null;
  const calibration = statistics === null ? null : planCalibrationOf(statistics);
  const { plans, warnings } =
    file === null
      ? await planByConfig(job, model, config, statistics, calibration, session, place)
      : await planByFile(file, model, config, calibration, signal);
  const sizes = estimateSizes(plans);
  const plan: QuantizePlan = {
    input: job.input,
    format: model.format,
    components: plans,
    warnings: [...model.warnings, ...(calibrated?.warnings ?? []), ...warnings],
    sizes: {
      bytesIn: sizes.sourceBytes,
      bytesOut: sizes.packedBytes,
      compressionRatio: sizes.sourceBytes / sizes.packedBytes,
      bitsPerWeight: sizes.bitsPerWeight,
    },
  };
  return { model, config, plan, statistics };
}

interface PlannedComponents {
  readonly plans: readonly ComponentPlan[];
  readonly warnings: readonly string[];
}

async function planByConfig(
  job: PlanJob,
  model: Model,
  config: ResolvedConfig,
  statistics: Statistics | null,
  calibration: Calibration | null,
  session: Session,
  place: Job,
): Promise<PlannedComponents> {
  const { components, pipelineClassName } = model;
  const plans = planComponents({ components, pipelineClassName, config, calibration });
  if (readTarget(config) === null) return { plans, warnings: [] };
  const { mixPrecision } = await import("./mixed-precision.js");
  return mixPrecision({ job, config, model, plans, statistics, session, place });
}

async function loadPlan(path: string): Promise<PlanFile> {
  const [{ loadText }, { MAX_PLAN_BYTES, parsePlanFile }] = await Promise.all([
    import("../config/file.js"),
    import("../plan/plan-file.js"),
  ]);
  const hint = "`arrowquant plan MODEL -o plan.yaml` writes one";
  const { text } = await loadText(path, { code: "E_PLAN", what: "plan file", maxBytes: MAX_PLAN_BYTES, hint });
  return parsePlanFile(text, path);
}

/** The plan that a file says. @throws E_PLAN where it does not fit the model */
async function planByFile(
  file: PlanFile,
  model: Model,
  config: ResolvedConfig,
  calibration: Calibration | null,
  signal: AbortSignal,
): Promise<PlannedComponents> {
  const { components, pipelineClassName } = model;
  const { fitPlanFile } = await import("../plan/fit-plan-file.js");
  const settled = fitPlanFile(file, components, calibration);
  const plans = planComponents({ components, pipelineClassName, config, calibration, settled });
  const warnings: string[] = [];
  for (const { component: name, fingerprint, place } of file.components) {
    const component = components.find((each) => each.name === name);
    if (component === undefined || fingerprint === null) continue;
    if ((await raceSignal(fingerprintComponent(component), signal)) === fingerprint) continue;
    warnings.push(`${place}: the plan was made for other weights of "${name}": its errors are not those of this model`);
  }
  return { plans: plans.map((plan) => ({ ...plan, mixed: describeFile(file, plan) })), warnings };
}

function describeFile({ path, components }: PlanFile, plan: ComponentPlan): MixedPrecision {
  const layers = components.find(({ component }) => component === plan.component)?.layers;
  const errors = new Map(layers?.map(({ name, error }) => [name, error]));
  const quantized = plan.layers.filter((layer): layer is LayerPlan & { spec: NonNullable<LayerPlan["spec"]> } => {
    return layer.spec !== null;
  });
  return {
    origin: `plan file ${path}`,
    allocation: null,
    layers: quantized.map((layer) => ({
      name: layer.tensor.name,
      bits: layer.spec.bits,
      groupSize: layer.spec.groupSize,
      parameterCount: countElements(layer.tensor.shape),
      bytes: estimateLayerBytes(layer),
      error: errors.get(layer.tensor.name) ?? null,
    })),
  };
}
