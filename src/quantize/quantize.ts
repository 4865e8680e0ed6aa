/** A model start to end: open by headers, plan, quantize every component, put the output in place. */
import { mkdir, readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { ProgressMeter } from "../engine/meter.js";
import type { Session } from "../engine/session.js";
import { raceSignal } from "../engine/signal.js";
import { ArrowQuantError } from "../errors.js";
import { fingerprintComponent } from "../formats/fingerprint.js";
import { wasWrittenByUs } from "../formats/parquet/reader.js";
import { OutputTarget } from "../io/output.js";
import { assertUnchanged } from "../io/unchanged.js";
import type { ComponentPlan } from "../plan/plan.js";
import type { Component, Model } from "../tensor/info.js";
import { quantizeComponent } from "./component.js";
import { Journal } from "./journal.js";
import { fitLayer } from "./layer-resources.js";
import { nativeMetadata } from "./metadata.js";
import { prepareModel } from "./prepare-model.js";
import type { LayerReport, PlanJob, QuantizeJob, QuantizePlan, QuantizeResult } from "./result.js";
import { summarizeLayers } from "./summary.js";

/** Ending of native files. */
export const NATIVE_ENDING = ".parquet";

/** What a run tells while it is under way, besides progress. */
export interface QuantizeWatcher {
  readonly onPlanned?: (plan: QuantizePlan) => void;
  /** Each layer as it has been written, in file order. */
  readonly onLayer?: (layer: LayerReport) => void;
  /** The complete native file, where it is written on the way to another format and then removed. */
  readonly onNative?: (path: string) => Promise<void>;
}

/**
 * What `quantizeModel` would do, from headers and, where the configuration names a calibration or a target, statistics
 * and measurements of layers: they are taken now and kept, so that the quantization finds them.
 * @throws errors of the input (exit 3) and of the configuration (exit 2)
 */
export async function planModel(job: PlanJob, session: Session): Promise<QuantizePlan> {
  using place = await session.jobs.enter(job.signal);
  return (await prepareModel(job, session, place)).plan;
}

/**
 * Quantizes a model into a native file (one component) or a folder of them (several).
 * @param journalFolder what a run with `resume` keeps; by default beside the output
 * @throws any ArrowQuantError, or the signal's reason; the output is then as it was before
 */
export async function quantizeModel(
  job: QuantizeJob,
  session: Session,
  watcher: QuantizeWatcher = {},
  journalFolder?: string,
): Promise<QuantizeResult> {
  using place = await session.jobs.enter(job.signal);
  const { signal, abort } = place;
  const startedAt = performance.now();
  const { model, config, plan, statistics } = await prepareModel(job, session, place);
  const isFolder = plan.components.length > 1;
  checkOutputName(job.output, plan.components);
  session.assertTensorsFit(plan.components.reduce((sum, { layers }) => sum + layers.length, 0));
  for (const component of plan.components) for (const layer of component.layers) fitLayer(session, layer);
  watcher.onPlanned?.(plan);
  const target = await OutputTarget.prepare(job.output, {
    kind: isFolder ? "folder" : "file",
    force: job.force ?? false,
    inputs: [job.input, ...model.components.flatMap(({ files }) => files.map(({ path }) => path))],
    isOurs: isFolder ? isFolderOfOurs : wasWrittenByUs,
  });
  const totals = plan.components.flatMap(({ layers }) => layers);
  const meter = new ProgressMeter(
    "quantize",
    { layers: totals.length, bytes: totals.reduce((sum, layer) => sum + layer.tensor.location.byteLength, 0) },
    job.onProgress,
    abort,
  );
  const resumeFolder = journalFolder ?? `${target.path}.arrowquant-resume`;
  let layers: LayerReport[] = [];
  const fingerprints: Record<string, string> = {};
  const warnings: string[] = [];
  let bytesOut = 0;
  try {
    if (isFolder) await mkdir(target.temporaryPath);
    for (const componentPlan of plan.components) {
      signal.throwIfAborted();
      const component = findComponent(model, componentPlan.component);
      const fingerprint = await raceSignal(fingerprintComponent(component), signal);
      fingerprints[component.name] = fingerprint;
      const metadata = nativeMetadata(component, config, componentPlan, fingerprint);
      await using journal = job.resume
        ? await Journal.open(join(resumeFolder, `${component.name}.log`), JSON.stringify([...metadata]))
        : null;
      const written = await quantizeComponent({
        session,
        component,
        plan: componentPlan,
        statistics: statistics !== null && statistics.info.component === component.name ? statistics : null,
        quality: { minAccuracy: config.values.min_accuracy, failFast: config.values.fail_fast },
        onNonFinite: config.values.on_nonfinite,
        outputPath: isFolder ? join(target.temporaryPath, component.name + NATIVE_ENDING) : target.temporaryPath,
        metadata,
        journal,
        spillPath: () => target.spillPath(),
        signal,
        abort,
        meter,
        onLayer: watcher.onLayer,
      });
      await assertUnchanged(component.files);
      layers = layers.concat(written.layers);
      warnings.push(...written.warnings);
      bytesOut += written.byteLength;
    }
    signal.throwIfAborted();
    await meter.finish(plan.components.at(-1)?.component ?? "", signal);
    await target.commit();
    await rm(resumeFolder, { recursive: true, force: true });
  } catch (thrown) {
    abort(thrown);
    await target.discard();
    // Whatever an abort broke on its way, the reason for it is what the caller is told.
    throw job.signal?.aborted ? job.signal.reason : signal.reason;
  }
  return {
    output: target.path,
    plan,
    summary: summarizeLayers(layers, bytesOut, (performance.now() - startedAt) / 1000),
    layers,
    exported: null,
    warnings: [
      ...session.warnings,
      ...plan.warnings,
      ...plan.components.flatMap((component) => component.warnings),
      ...warnings,
    ],
    fingerprints,
  };
}

function checkOutputName(output: string, components: readonly ComponentPlan[]): void {
  const names = components.map(({ component }) => component);
  const endsNative = output.toLowerCase().endsWith(NATIVE_ENDING);
  if (components.length === 1 && !endsNative) {
    throw new ArrowQuantError("E_USAGE", `output ${output} does not end in ${NATIVE_ENDING}`, {
      hint: `a model of one component (${names[0]}) is written as one ${NATIVE_ENDING} file`,
      details: { output },
    });
  }
  if (components.length > 1 && endsNative) {
    throw new ArrowQuantError("E_USAGE", `output ${output} names a file, but there are ${names.length} components`, {
      hint: `name a folder for ${names.join(", ")}, or choose one with --components`,
      details: { output, components: names },
    });
  }
}

function findComponent(model: Model, name: string): Component {
  return model.components.find((component) => component.name === name) as Component;
}

async function isFolderOfOurs(path: string): Promise<boolean> {
  for (const name of await readdir(path)) {
    const inside = join(path, name);
    if (!(await stat(inside)).isFile() || !(await wasWrittenByUs(inside))) return false;
  }
  return true;
}
