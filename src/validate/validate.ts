/**
 * Proves a quantized file against its source: re-read from disk, checksums verified, every tensor rebuilt by the
 * kernels and compared with the source slab by slab.
 */
import { stat } from "node:fs/promises";
import { defaultCacheFolder } from "../calibration/cache.js";
import { ProgressMeter } from "../engine/meter.js";
import type { Session } from "../engine/session.js";
import { deriveSignal, raceSignal } from "../engine/signal.js";
import { ArrowQuantError } from "../errors.js";
import { DENOISERS } from "../formats/diffusers.js";
import { openModel } from "../formats/open.js";
import { listNativeFiles } from "../formats/parquet/native-files.js";
import { type NativeFile, openNative } from "../formats/parquet/reader.js";
import { assertUnchanged } from "../io/unchanged.js";
import { summarizeLayers, totalMetrics } from "../quantize/summary.js";
import type { Component } from "../tensor/info.js";
import { Comparer, type ComponentComparison } from "./comparer.js";
import { compareGguf, isGguf } from "./gguf.js";
import type { ValidateJob, ValidateResult } from "./result.js";
import type { RunOptions, RunResult } from "./run-result.js";

/**
 * Compares. A layer below its threshold, missing, extra or of another shape makes `passed` false.
 * @throws E_CRC, E_NATIVE and other errors of reading; the signal's reason
 */
export async function validateModel(job: ValidateJob, session: Session): Promise<ValidateResult> {
  if (await isGguf(job.quantized)) return compareGguf(job, session);
  const compared = await compareModel(job, session);
  if (job.run === undefined) return compared;
  // After the comparison has left its place among the jobs, since exporting takes one.
  const run = await runQuantized(job, job.run, session);
  return {
    ...compared,
    run,
    passed: compared.passed && run.passed,
    warnings: [...compared.warnings, ...run.warnings],
  };
}

async function compareModel(job: ValidateJob, session: Session): Promise<ValidateResult> {
  using place = await session.jobs.enter(job.signal);
  const { signal, abort } = place;
  const startedAt = performance.now();
  const natives: NativeFile[] = [];
  const sources: ComponentSource[] = [];
  const runs: ComponentComparison[] = [];
  const warnings: string[] = [...session.warnings];
  let bytesOut = 0;
  try {
    for (const path of await listNativeFiles(job.quantized)) {
      signal.throwIfAborted();
      const native = await openNative(path);
      natives.push(native);
      sources.push(await raceSignal(openSource(job, native.component), signal));
      bytesOut += (await stat(path)).size;
    }
    const tensors = sources.flatMap(({ component }) => component.tensors);
    const totals = {
      layers: tensors.length,
      bytes: tensors.reduce((sum, { location }) => sum + location.byteLength, 0),
    };
    const meter = new ProgressMeter("validate", totals, job.onProgress, abort);
    for (const [index, native] of natives.entries()) {
      const source = sources[index] as ComponentSource;
      runs.push(await compareFile(native, source, job.minAccuracy ?? null, session, signal, meter));
      warnings.push(...source.warnings);
    }
    await meter.finish(runs.at(-1)?.component ?? "", signal);
  } catch (thrown) {
    abort(thrown);
    throw job.signal?.aborted ? job.signal.reason : signal.reason;
  } finally {
    for (const native of natives) native.close();
  }
  const layers = runs.flatMap((run) => run.layers);
  const missing = runs.flatMap((run) => run.missing);
  const extra = runs.flatMap((run) => run.extra);
  const misshapen = runs.flatMap((run) => run.misshapen);
  return {
    original: job.original,
    quantized: job.quantized,
    passed: missing.length + extra.length + misshapen.length === 0 && layers.every((layer) => layer.passed),
    summary: summarizeLayers(layers, bytesOut, (performance.now() - startedAt) / 1000),
    components: Object.fromEntries(runs.map((run) => [run.component, totalMetrics(run.layers)])),
    layers,
    missing,
    extra,
    misshapen,
    run: null,
    warnings,
  };
}

/** Counts runs of one sample as a meter counts bytes. */
function runMeter(component: string, listener: ValidateJob["onProgress"], abort: (reason: unknown) => void) {
  let meter: ProgressMeter | null = null;
  let counted = 0;
  return (done: number, total: number) => {
    meter ??= new ProgressMeter("run", { layers: total, bytes: total }, listener, abort);
    meter.add(component, "", done - counted, done - counted);
    counted = done;
  };
}

/** Runs the denoiser, or the only component. */
async function runQuantized(job: ValidateJob, options: RunOptions, session: Session): Promise<RunResult> {
  const { runModels } = await import("./run.js");
  using own = deriveSignal(job.signal);
  const natives: NativeFile[] = [];
  try {
    for (const path of await listNativeFiles(job.quantized)) natives.push(await openNative(path));
    const native = natives.find(({ component }) => DENOISERS.includes(component)) ?? (natives[0] as NativeFile);
    const { component } = await openSource(job, native.component);
    const onRun = runMeter(native.component, job.onProgress, own.abort);
    const cacheFolder = defaultCacheFolder(process.env);
    return await runModels(
      { original: job.original, component, native, options, cacheFolder, signal: own.signal, onRun },
      session,
    );
  } catch (thrown) {
    throw own.signal.aborted ? own.signal.reason : thrown;
  } finally {
    for (const native of natives) native.close();
  }
}

async function compareFile(
  native: NativeFile,
  { component, warnings }: ComponentSource,
  minAccuracy: number | null,
  session: Session,
  signal: AbortSignal,
  meter: ProgressMeter,
): Promise<ComponentComparison> {
  const comparer = new Comparer(component, session, signal, (tensor, byteCount, layerCount) =>
    meter.add(component.name, tensor.name, byteCount, layerCount),
  );
  try {
    for await (const row of native.rows({ reuseBuffers: true })) await comparer.add(row);
    await comparer.settle();
  } finally {
    await comparer.close();
  }
  await assertUnchanged(component.files);
  return comparer.result(minAccuracy, warnings);
}

interface ComponentSource {
  readonly component: Component;
  readonly warnings: readonly string[];
}

/** The component of the source that a native file was made from. */
async function openSource(job: ValidateJob, name: string): Promise<ComponentSource> {
  const options = job.variant === undefined ? {} : { variant: job.variant };
  const model = await openModel(job.original, options).catch((thrown) => {
    // A pipeline whose default components are not what was quantized.
    if (thrown instanceof ArrowQuantError && thrown.code === "E_COMPONENT") return null;
    throw thrown;
  });
  const named = model?.components.find((component) => component.name === name);
  const only = model?.components.length === 1 ? model.components[0] : undefined;
  if (named !== undefined) return { component: named, warnings: model?.warnings ?? [] };
  // A lone file or component folder goes by another name than within its pipeline.
  if (only !== undefined && (model?.pipelineClassName ?? null) === null) {
    return { component: only, warnings: model?.warnings ?? [] };
  }
  const chosen = await openModel(job.original, { ...options, components: [name] });
  return { component: chosen.components[0] as Component, warnings: chosen.warnings };
}
