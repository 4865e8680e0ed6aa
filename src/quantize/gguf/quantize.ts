/** A model as GGUF, start to end: open by headers, plan, write every tensor at its place, put the output in place. */

import type { Statistics } from "../../calibration/statistics.js";
import type { ResolvedConfig } from "../../config/config.js";
import type { Job } from "../../engine/jobs.js";
import { ProgressMeter } from "../../engine/meter.js";
import type { Session } from "../../engine/session.js";
import { raceSignal } from "../../engine/signal.js";
import { ArrowQuantError } from "../../errors.js";
import { fingerprintComponent } from "../../formats/fingerprint.js";
import { openModel } from "../../formats/open.js";
import { OutputTarget } from "../../io/output.js";
import { assertUnchanged } from "../../io/unchanged.js";
import { isBlockQuantized } from "../../tensor/dtype.js";
import type { Component, Model } from "../../tensor/info.js";
import { resolveJob } from "../job-config.js";
import { obtainStatistics } from "../obtain-statistics.js";
import { planCalibrationOf } from "../plan-calibration.js";
import { summarizeLayers } from "../summary.js";
import { isGgufOfOurs, type PlannedFile, planFiles } from "./files.js";
import type { GgufJob, GgufLayerReport, GgufPlan, GgufPlanJob, GgufResult } from "./job.js";
import { checkGgufOptions, type GgufPlanInput, planGgufTensors } from "./plan.js";
import { findNonFinite, type GgufRun, isLossy, writeGguf } from "./write.js";

/** Ending of GGUF files. */
export const GGUF_ENDING = ".gguf";

/** Layers named in a warning. */
const MAX_NAMED = 3;

interface PreparedGguf {
  readonly component: Component;
  readonly config: ResolvedConfig;
  readonly planInput: GgufPlanInput;
  readonly plan: GgufPlan;
  /** null: the configuration names no calibration, or it is of another component. */
  readonly statistics: Statistics | null;
}

/** What the caller knows of the source beyond what lies on disk. */
export interface SourceKnowledge extends Pick<GgufPlanInput, "keptDtypes"> {
  /** What messages and reports call the source; absent: the job's input. */
  readonly label?: string;
  /** What they call its format. */
  readonly format?: string;
  /** Of the component; absent: what it is called on disk. */
  readonly componentName?: string;
}

/**
 * What `quantizeGguf` would write, from headers and, where the configuration names a calibration, its statistics.
 * @throws errors of the input and of the configuration; see `planGgufTensors`
 */
export async function planGguf(job: GgufPlanJob, session: Session): Promise<GgufPlan> {
  using place = await session.jobs.enter(job.signal);
  return (await prepareGguf(job, session, place, {})).plan;
}

/**
 * Writes a model of one component as GGUF.
 * @throws any ArrowQuantError, or the signal's reason; the output is then as it was before
 */
export async function quantizeGguf(
  job: GgufJob,
  session: Session,
  knowledge: SourceKnowledge = {},
): Promise<GgufResult> {
  using place = await session.jobs.enter(job.signal);
  const { signal, abort } = place;
  const startedAt = performance.now();
  if (!job.output.toLowerCase().endsWith(GGUF_ENDING)) {
    throw new ArrowQuantError("E_USAGE", `output ${job.output} does not end in ${GGUF_ENDING}`, {
      hint: `name a ${GGUF_ENDING} file`,
      details: { output: job.output },
    });
  }
  const prepared = await prepareGguf(job, session, place, knowledge);
  const { component, config, statistics } = prepared;
  let { plan } = prepared;
  session.assertTensorsFit(plan.tensors.length);
  const fingerprint = await raceSignal(fingerprintComponent(component), signal);
  const keepsNonFinite = config.values.on_nonfinite === "keep";
  const targets: OutputTarget[] = [];
  let meterBytes = sum(plan.tensors, ({ tensor }) => tensor.location.byteLength);
  if (keepsNonFinite) meterBytes += sum(plan.tensors.filter(isLossy), ({ tensor }) => tensor.location.byteLength);
  const totals = { layers: plan.tensors.length, bytes: meterBytes };
  const meter = new ProgressMeter("quantize", totals, job.onProgress, abort);
  const run: GgufRun = { session, component, statistics, signal, abort, meter };
  let layers: GgufLayerReport[];
  let files: readonly PlannedFile[];
  try {
    // Refused before anything is read.
    for (const { path } of planFiles(plan, job.output, "", job.maxFileBytes)) await prepareTarget(job, component, path);
    // Types settle sizes, and sizes the header, which goes out first.
    if (keepsNonFinite) plan = await withoutNonFinite(run, prepared.planInput, plan);
    const source = JSON.stringify({
      files: component.files.map(({ name, byteLength }) => ({ name, size: byteLength })),
      fingerprint,
    });
    files = planFiles(plan, job.output, source, job.maxFileBytes);
    for (const { path } of files) targets.push(await prepareTarget(job, component, path));
    layers = await writeGguf(
      run,
      files.map((file, index) => ({ ...file, path: (targets[index] as OutputTarget).temporaryPath })),
    );
    await assertUnchanged(component.files);
    checkQuality(layers, config);
    await meter.finish(component.name, signal);
    // The first last: what is found by it is then all there.
    for (const target of targets.toReversed()) await target.commit();
  } catch (thrown) {
    abort(thrown);
    for (const target of targets) await target.discard();
    throw job.signal?.aborted ? job.signal.reason : signal.reason;
  }
  const bytesOut = sum(files, ({ layout }) => layout.byteLength);
  const blocks = plan.tensors.filter(({ dtype }) => isBlockQuantized(dtype)).length;
  const paths = targets.map(({ path }) => path);
  return {
    output: paths[0] as string,
    files: paths,
    plan,
    summary: {
      ...summarizeLayers(layers, bytesOut, (performance.now() - startedAt) / 1000),
      quantized: blocks,
      kept: layers.length - blocks,
      bitsPerWeight: plan.sizes.bitsPerWeight,
    },
    layers,
    warnings: [...session.warnings, ...plan.warnings, ...qualityWarnings(layers, config)],
    fingerprints: { [component.name]: fingerprint },
  };
}

async function prepareGguf(
  job: GgufPlanJob,
  session: Session,
  place: Job,
  { label, format, componentName, keptDtypes }: SourceKnowledge,
): Promise<PreparedGguf> {
  const { signal } = place;
  const config = await raceSignal(resolveJob(job.config), signal);
  checkGgufOptions(config, job);
  const { variant, components } = config.values;
  const opening = openModel(job.input, {
    ...(variant === null ? {} : { variant }),
    ...(components === null ? {} : { components }),
  });
  const model = await raceSignal(opening, signal);
  const opened = onlyComponent(model);
  const component = componentName === undefined ? opened : { ...opened, name: componentName };
  // The search weighs columns by their second moments; it has no use for the Hessians that other methods ask for.
  const moments: ResolvedConfig = { ...config, values: { ...config.values, method: "mse" } };
  const calibrated = await obtainStatistics(job, model, moments, session, place);
  const statistics = calibrated?.statistics ?? null;
  const planInput: GgufPlanInput = {
    input: label ?? job.input,
    format: format ?? model.format,
    component,
    config,
    options: job,
    calibration: statistics === null ? null : planCalibrationOf(statistics),
    keptDtypes,
    warnings: [...model.warnings, ...(calibrated?.warnings ?? [])],
  };
  const plan = planGgufTensors(planInput);
  return { component, config, planInput, plan, statistics: plan.calibration === null ? null : statistics };
}

function onlyComponent({ components }: Model): Component {
  const [first, second] = components as [Component, ...Component[]];
  if (second === undefined) return first;
  const names = components.map(({ name }) => name);
  throw new ArrowQuantError("E_USAGE", `a GGUF file holds one component, the model has ${names.join(", ")}`, {
    hint: "choose one with --components",
    details: { components: names },
  });
}

function prepareTarget(job: GgufJob, component: Component, path: string): Promise<OutputTarget> {
  return OutputTarget.prepare(path, {
    kind: "file",
    force: job.force ?? false,
    inputs: [job.input, ...component.files.map((file) => file.path)],
    isOurs: isGgufOfOurs,
  });
}

/** The plan with float32 for every tensor that holds what its type cannot. */
async function withoutNonFinite(run: GgufRun, planInput: GgufPlanInput, plan: GgufPlan): Promise<GgufPlan> {
  const found = await findNonFinite(run, plan.tensors);
  if (found.size === 0) return plan;
  const reasons = new Map(
    [...found].map(([name, { row, col, value }]) => [
      name,
      `keep: weight at row ${row}, column ${col} is ${value} (on_nonfinite keep)`,
    ]),
  );
  return planGgufTensors({ ...planInput, unstorable: reasons });
}

/** @throws E_QUALITY where `fail_fast` is set */
function checkQuality(layers: readonly GgufLayerReport[], { values }: ResolvedConfig): void {
  if (!values.fail_fast) return;
  const [worst] = layersBelow(layers, values.min_accuracy);
  if (worst === undefined) return;
  const { name, quantType, metrics, component } = worst;
  const cosineSimilarity = metrics?.cosineSimilarity ?? 0;
  throw new ArrowQuantError(
    "E_QUALITY",
    `"${name}" has a cosine similarity of ${cosineSimilarity.toFixed(4)} as ${quantType}, least is ${values.min_accuracy}`,
    {
      hint: "give it a type of more bits with --tensor-type, or lower --min-accuracy",
      details: { tensor: name, component, type: quantType, cosineSimilarity, minAccuracy: values.min_accuracy },
    },
  );
}

function qualityWarnings(layers: readonly GgufLayerReport[], { values }: ResolvedConfig): string[] {
  const below = layersBelow(layers, values.min_accuracy);
  if (below.length === 0) return [];
  const named = below.slice(0, MAX_NAMED).map(({ name }) => JSON.stringify(name));
  const rest = below.length > named.length ? ` and ${below.length - named.length} more` : "";
  return [`${below.length} tensors are below min_accuracy ${values.min_accuracy}: ${named.join(", ")}${rest}`];
}

function layersBelow(layers: readonly GgufLayerReport[], minAccuracy: number): GgufLayerReport[] {
  return layers
    .filter(({ metrics }) => metrics !== null && !(metrics.cosineSimilarity >= minAccuracy))
    .sort((a, b) => (a.metrics?.cosineSimilarity ?? 0) - (b.metrics?.cosineSimilarity ?? 0));
}

function sum<T>(items: readonly T[], value: (item: T) => number): number {
  return items.reduce((total, item) => total + value(item), 0);
}
