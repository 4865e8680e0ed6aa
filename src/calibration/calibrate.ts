/** Statistics of a model's layer inputs: taken by running it, imported, or found in the cache. */
import { constants } from "node:fs";
import { copyFile, mkdir, open, rm, stat } from "node:fs/promises";
import { resolve } from "node:path";
import type { Session } from "../engine/session.js";
import { ArrowQuantError } from "../errors.js";
import { fingerprintComponent } from "../formats/fingerprint.js";
import { openModel } from "../formats/open.js";
import { OutputTarget, writeError } from "../io/output.js";
import { assertUnchanged } from "../io/unchanged.js";
import type { Component, Model } from "../tensor/info.js";
import { type CacheKey, cachePath, openCached } from "./cache.js";
import type { CalibrateJob, CalibrateResult, CalibrationPlace } from "./calibration-job.js";
import type { Rejection } from "./data/rejections.js";
import { imatrixFingerprint, importImatrix } from "./imatrix-statistics.js";
import { prepareRun, takeStatistics } from "./run-calibration.js";
import { classifySource, type SourceKind } from "./source-kind.js";
import { isStatisticsFile, openStatistics, type Statistics } from "./statistics.js";
import { HELD_BACK_EVERY } from "./time-bins.js";

/**
 * Takes statistics of one component of a model, as a job of its own.
 * @throws E_CALIBRATION, E_STATISTICS, E_GRAPH, E_RUNTIME, E_SCHEDULER, E_NONFINITE, errors of the input, E_OUTPUT,
 *   E_WRITE, the signal's reason; output and cache are then as they were
 */
export async function calibrateModel(job: CalibrateJob, session: Session): Promise<CalibrateResult> {
  using place = await session.jobs.enter(job.signal);
  try {
    return (await calibrateWithin(job, session, place)).result;
  } catch (thrown) {
    throw place.signal.aborted ? place.signal.reason : thrown;
  }
}

/** What a calibration answers, with its statistics open: hashing the file a second time takes as long as the first. */
export interface Calibrated {
  readonly statistics: Statistics;
  readonly result: CalibrateResult;
  /** Of the calibration alone: those of session and model are their opener's to tell. */
  readonly warnings: readonly string[];
}

/** `calibrateModel` within a job that is under way: a second place might never come free. */
export async function calibrateWithin(
  job: CalibrateJob,
  session: Session,
  place: CalibrationPlace,
): Promise<Calibrated> {
  const startedAt = performance.now();
  const model = await openModel(job.input, {
    ...(job.variant === null ? {} : { variant: job.variant }),
    ...(job.components === null ? {} : { components: job.components }),
  });
  const component = chooseComponent(model);
  const modelFingerprint = await fingerprintComponent(component);
  const kind = await classifySource(job.source);
  const done = await settle({ job, session, place, model, component, modelFingerprint, kind });
  const { statistics } = done;
  const result: CalibrateResult = {
    path: statistics.path,
    info: statistics.info,
    fingerprint: statistics.fingerprint,
    cached: done.cached,
    source: { kind, label: done.label },
    byteLength: (await stat(statistics.path)).size,
    seconds: (performance.now() - startedAt) / 1000,
    rejected: done.rejected,
    warnings: [...session.warnings, ...model.warnings, ...done.warnings],
  };
  return { statistics, result, warnings: done.warnings };
}

interface Setting {
  readonly job: CalibrateJob;
  readonly session: Session;
  readonly place: CalibrationPlace;
  readonly model: Model;
  readonly component: Component;
  readonly modelFingerprint: string;
  readonly kind: SourceKind;
}

interface Settled {
  readonly statistics: Statistics;
  readonly cached: boolean;
  readonly label: string;
  readonly rejected: readonly Rejection[];
  readonly warnings: readonly string[];
}

async function settle(setting: Setting): Promise<Settled> {
  const { job, kind, modelFingerprint } = setting;
  if (kind === "statistics") {
    const given = await openStatistics(resolve(job.source));
    assertSameModel(given, modelFingerprint, job.input);
    const statistics = job.output === null ? given : await copyStatistics(given.path, job.output, setting);
    return { statistics, cached: false, label: `statistics file ${job.source}`, rejected: [], warnings: [] };
  }
  return kind === "imatrix" ? settleImatrix(setting) : settleRun(setting, kind);
}

async function settleImatrix(setting: Setting): Promise<Settled> {
  const { job, component, modelFingerprint } = setting;
  const fingerprint = await imatrixFingerprint(job.source);
  const key: CacheKey = { modelFingerprint, graph: null, source: { kind: "imatrix", fingerprint }, settings: {} };
  const label = `imatrix ${job.source}: second moments alone`;
  const cached = await findCached([key], setting);
  if (cached !== null) return { statistics: cached, cached: true, label, rejected: [], warnings: [] };
  const statistics = await produce(setting, key, async (temporaryPath) => {
    await importImatrix({ path: job.source, fingerprint, component, modelFingerprint, outputPath: temporaryPath });
    return key;
  });
  return { statistics, cached: false, label, rejected: [], warnings: [] };
}

async function settleRun(setting: Setting, kind: "sampling" | "synthetic" | "data"): Promise<Settled> {
  const { job, session, place, component, modelFingerprint } = setting;
  const heldBackEvery = job.heldBackEvery ?? HELD_BACK_EVERY;
  const run = await prepareRun({ job, kind, component, signal: place.signal });
  const settings = { samples: job.samples, hessians: job.hessians, heldBackEvery, roles: run.rolesKey };
  const key: CacheKey = { modelFingerprint, graph: run.graphFingerprint, source: run.sourceKey, settings };
  // What did not fit the memory of one run may fit that of the next.
  const keyOfMemory: CacheKey = { ...key, settings: { ...settings, arenaBytes: session.arenaBytes } };
  // Whoever needs no Hessians is served by a file that has them.
  const withHessians: CacheKey = { ...key, settings: { ...settings, hessians: true } };
  const cached = await findCached(job.hessians ? [key, keyOfMemory] : [key, withHessians], setting);
  const { label } = run;
  if (cached !== null) return { statistics: cached, cached: true, label, rejected: [], warnings: run.warnings };
  const warnings = [...run.warnings];
  const statistics = await produce(setting, key, async (temporaryPath, workFolder) => {
    const taken = await takeStatistics({
      run,
      session,
      component,
      modelFingerprint,
      settings: { samples: job.samples, hessians: job.hessians, heldBackEvery },
      seed: job.seed,
      workFolder,
      outputPath: temporaryPath,
      ...place,
      onProgress: job.onProgress,
    });
    warnings.push(...taken.warnings);
    await assertUnchanged([...component.files, ...run.file.files]);
    return taken.refusedCount > 0 ? keyOfMemory : key;
  });
  return { statistics, cached: false, label, rejected: run.rejected(), warnings };
}

/** Statistics of the first key that the cache has, copied to the output where there is one. */
async function findCached(keys: readonly CacheKey[], setting: Setting): Promise<Statistics | null> {
  const { job, modelFingerprint } = setting;
  if (job.fresh) return null;
  for (const key of keys) {
    const found = await openCached(await cachePath(job.cacheFolder, key));
    if (found === null || found.info.modelFingerprint !== modelFingerprint) continue;
    return job.output === null ? found : copyStatistics(found.path, job.output, setting);
  }
  return null;
}

/**
 * Lets `write` make a statistics file beside the place where it is to stand, and a folder that is gone afterwards; it
 * tells the key that the file is to be found by.
 */
async function produce(
  setting: Setting,
  key: CacheKey,
  write: (temporaryPath: string, workFolder: string) => Promise<CacheKey>,
): Promise<Statistics> {
  const { job, place } = setting;
  const path = job.output ?? (await cachePath(job.cacheFolder, key));
  const target = await prepareTarget(path, setting);
  const workFolder = target.spillPath();
  try {
    await mkdir(workFolder).catch((thrown) => {
      throw writeError(thrown, workFolder);
    });
    const finalKey = await write(target.temporaryPath, workFolder);
    place.signal.throwIfAborted();
    const keptPath = await cachePath(job.cacheFolder, finalKey);
    if (job.output === null && keptPath !== path) {
      return await copyInto(target.temporaryPath, keptPath, setting);
    }
    await target.commit();
    if (job.output !== null) await copyInto(target.path, keptPath, setting);
    return await openStatistics(target.path);
  } finally {
    await target.discard();
    await rm(workFolder, { recursive: true, force: true });
  }
}

function copyStatistics(from: string, output: string, setting: Setting): Promise<Statistics> {
  return copyInto(from, output, setting);
}

/** A copy that appears whole; of the same blocks where the file system can. */
async function copyInto(from: string, to: string, setting: Setting): Promise<Statistics> {
  if (resolve(from) === resolve(to)) return openStatistics(from);
  const target = await prepareTarget(to, setting);
  try {
    try {
      await copyFile(from, target.temporaryPath, constants.COPYFILE_FICLONE);
      const file = await open(target.temporaryPath, "r+");
      await file.sync();
      await file.close();
    } catch (thrown) {
      throw writeError(thrown, to);
    }
    await target.commit();
  } finally {
    await target.discard();
  }
  return openStatistics(target.path);
}

function prepareTarget(path: string, { job, component }: Setting): Promise<OutputTarget> {
  const isOutput = path === job.output;
  return OutputTarget.prepare(path, {
    kind: "file",
    force: !isOutput || (job.force ?? false),
    inputs: [job.input, job.source, ...component.files.map((file) => file.path)],
    isOurs: isStatisticsFile,
  });
}

function chooseComponent({ components, path }: Model): Component {
  const [first, second] = components;
  if (first !== undefined && second === undefined) return first;
  const names = components.map(({ name }) => name);
  throw new ArrowQuantError(
    "E_USAGE",
    `"${path}" has the components ${names.join(", ")}, calibrated is one at a time`,
    {
      hint: `choose one: --components ${names[0]}`,
      details: { path, components: names },
    },
  );
}

function assertSameModel({ path, info }: Statistics, modelFingerprint: string, input: string): void {
  if (info.modelFingerprint === modelFingerprint) return;
  throw new ArrowQuantError("E_STATISTICS", `the statistics "${path}" were taken of another model than "${input}"`, {
    hint: "calibrate this model: arrowquant calibrate MODEL -o stats.safetensors",
    details: { path, found: info.modelFingerprint, expected: modelFingerprint },
  });
}
