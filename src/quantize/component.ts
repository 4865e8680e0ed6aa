/**
 * One component from plan to file: layers are started in order as far ahead as the memory budget allows, settled
 * by the workers in any order, and written in order.
 */
import { closeSync, openSync } from "node:fs";
import type { Statistics } from "../calibration/statistics.js";
import type { ProgressMeter } from "../engine/meter.js";
import { Queue } from "../engine/queue.js";
import type { Session } from "../engine/session.js";
import { raceSignal } from "../engine/signal.js";
import type { NativeRow } from "../formats/parquet/row.js";
import { NativeWriter } from "../formats/parquet/writer.js";
import { readSourceScales } from "../formats/scale.js";
import { OutputFile } from "../io/output.js";
import type { ComponentPlan, LayerPlan } from "../plan/plan.js";
import type { Component } from "../tensor/info.js";
import { countElements } from "../tensor/layout.js";
import { addSums, deriveMetrics, zeroSums } from "../tensor/metrics.js";
import { bytesOf, floatsOf } from "../worker/parts.js";
import type { PlannedActivations } from "./activations.js";
import type { Factors } from "./factors.js";
import { type Journal, replayLayer } from "./journal.js";
import { type LayerOutcome, type QualityRule, reportLayer, type SettledLayer, settleLayer } from "./layer.js";
import type { LayerSource, StoredChunkOutput } from "./layer-chunks.js";
import type { LayerMemory } from "./layer-layout.js";
import { fitLayer, openFactors, readKnowledge, shareOfBudget } from "./layer-resources.js";
import type { LayerReport } from "./result.js";
import { Spill } from "./spill.js";

export interface ComponentRun {
  readonly session: Session;
  readonly component: Component;
  readonly plan: ComponentPlan;
  /** What calibration found; null: there was none. */
  readonly statistics: Statistics | null;
  readonly quality: QualityRule;
  readonly onNonFinite: "error" | "keep";
  /** File to write; the caller renames it into place. */
  readonly outputPath: string;
  readonly metadata: ReadonlyMap<string, string>;
  readonly spillPath: () => string;
  /** What a stopped run had done and this one adds to; null where the run is not to be resumed. */
  readonly journal: Journal | null;
  readonly signal: AbortSignal;
  readonly abort: (reason: unknown) => void;
  readonly meter: ProgressMeter;
  /** Called with each layer's report once it is written. */
  readonly onLayer: ((layer: LayerReport) => void) | undefined;
}

export interface ComponentOutcome {
  readonly layers: LayerReport[];
  readonly byteLength: number;
  readonly warnings: readonly string[];
}

/** What all layers of a run share. */
type LayerContext = Omit<LayerSource, "layer" | "reservedBytes" | "heldAttempts" | "slabRows" | "sourceScales">;

interface StartedLayer {
  readonly layer: LayerPlan;
  readonly outcome: Promise<LayerOutcome>;
  readonly reservedBytes: number;
}

/**
 * Quantizes a component into a native file and syncs it.
 * @returns one report per tensor, in file order, and the length of the file
 * @throws any error of reading, quality or writing; the file is then incomplete and to be discarded
 */
export async function quantizeComponent(run: ComponentRun): Promise<ComponentOutcome> {
  const { session, plan, signal } = run;
  const memory = plan.layers.map((layer) => fitLayer(session, layer));
  const files = run.component.files.map(({ path }) => ({ path, fd: openSync(path, "r") }));
  const spills = new Set<Spill>();
  const context: LayerContext = {
    session,
    signal,
    component: plan.component,
    files,
    onNonFinite: run.onNonFinite,
    openSpill: async () => {
      const spill = await Spill.create(run.spillPath());
      spills.add(spill);
      return spill;
    },
    onBytes: (layer, byteCount) => run.meter.add(plan.component, layer, byteCount, 0),
  };
  const factors = openFactors(run, run.spillPath);
  const started = new Queue<StartedLayer>();
  // Only those still at work: a settled one would hold on to its chunks.
  const begun = new Set<Promise<unknown>>();
  const produce = startLayers(run, context, factors, memory, started, begun);
  // Its failure is the writer's to report, which may still be opening the file when it comes.
  produce.catch(() => undefined);
  let output: OutputFile | null = null;
  try {
    output = await OutputFile.create(run.outputPath);
    const { reports, warnings } = await writeLayers(run, factors, started, output, produce);
    return { layers: reports, byteLength: output.byteLength, warnings };
  } catch (thrown) {
    run.abort(thrown);
    throw thrown;
  } finally {
    await Promise.allSettled([produce]);
    await Promise.allSettled(begun);
    // Of layers that were begun and not written, threads may still read.
    await session.settle(signal);
    for await (const { reservedBytes } of started) session.budget.release(reservedBytes);
    for (const spill of spills) await spill.remove();
    await factors?.removeAll();
    // After an abort nobody waits for the disk: the file is closed when what is being written has been.
    const closed = output?.close();
    if (signal.aborted) closed?.catch(() => undefined);
    else await closed;
    for (const { fd } of files) closeSync(fd);
  }
}

/** Starts layers in order, each as soon as its buffers can be reserved. */
async function startLayers(
  run: ComponentRun,
  context: LayerContext,
  factors: Factors | null,
  memory: readonly LayerMemory[],
  started: Queue<StartedLayer>,
  begun: Set<Promise<unknown>>,
): Promise<void> {
  const { session, plan, signal, journal } = run;
  const planned: PlannedActivations = new Map();
  try {
    for (const [index, layer] of plan.layers.entries()) {
      const { slabRows } = memory[index] as LayerMemory;
      const { heldAttempts, reservedBytes } = shareOfBudget(session, layer, memory[index] as LayerMemory);
      await session.budget.acquire(reservedBytes, signal);
      const { sourceScale } = layer.tensor;
      const outcome = (async () => {
        const journaled = journal?.layers[index];
        if (journal !== null && journaled !== undefined) return replayLayer(journal, journaled, session);
        const sourceScales = sourceScale === null ? null : await readSourceScales(run.component.files, sourceScale);
        const source: LayerSource = { ...context, layer, reservedBytes, heldAttempts, slabRows, sourceScales };
        const knowledge = await readKnowledge(run.statistics, layer, factors, planned);
        return settleLayer(source, run.quality, knowledge);
      })();
      // Failures are reported in the order of layers, by whoever writes them.
      const settled = outcome.then(
        () => undefined,
        () => undefined,
      );
      begun.add(settled);
      void settled.then(() => begun.delete(settled));
      started.push({ layer, outcome, reservedBytes });
    }
  } finally {
    started.close();
  }
}

async function writeLayers(
  run: ComponentRun,
  factors: Factors | null,
  started: Queue<StartedLayer>,
  output: OutputFile,
  produce: Promise<void>,
): Promise<{ reports: LayerReport[]; warnings: string[] }> {
  const { session, plan, journal, signal } = run;
  const write = async (bytes: Uint8Array) => void (await raceSignal(output.write(bytes), signal));
  const writer = await NativeWriter.open({ write }, run.metadata);
  const reports: LayerReport[] = [];
  const warnings: string[] = [];
  try {
    for await (const { layer, outcome, reservedBytes } of started) {
      try {
        const { settled, chunks } = await outcome;
        const isNew = reports.length >= (journal?.layers.length ?? 0);
        const sums = zeroSums();
        for await (const chunk of chunks) {
          if (isNew) await journal?.appendChunk(chunk);
          if (chunk.sums !== null) addSums(sums, chunk.sums);
          await writer.write(nativeRow(plan, layer, settled, chunk), () => session.buffers.give(chunk.buffer));
        }
        if (isNew) await journal?.appendLayer(settled);
        const report = reportLayer(plan.component, layer, settled, sums);
        reports.push(report);
        warnings.push(...settled.warnings);
        run.onLayer?.(report);
        run.meter.add(plan.component, layer.tensor.name, isNew ? 0 : layer.tensor.location.byteLength, 1);
      } finally {
        session.budget.release(reservedBytes);
        // Its chunks may have been made as they were written.
        await factors?.leave(run.statistics?.info.layers[layer.tensor.name]);
      }
    }
    await produce;
    await writer.finish();
  } catch (thrown) {
    await writer.abort(thrown);
    throw thrown;
  }
  await raceSignal(output.sync(), signal);
  return { reports, warnings };
}

/** A stored chunk as the row of the file that holds it. */
export function nativeRow(
  plan: ComponentPlan,
  { tensor, storedDtype }: LayerPlan,
  {
    spec,
    timeAware,
    spatial,
    activationStats,
  }: Pick<SettledLayer, "spec" | "timeAware" | "spatial" | "activationStats">,
  chunk: StoredChunkOutput,
): NativeRow {
  const { buffer, parts, sums } = chunk;
  const hasZeroPoints = spec !== null && !spec.symmetric && spec.method !== "r2q";
  return {
    layerName: tensor.name,
    shape: tensor.shape,
    dtype: tensor.dtype,
    data: bytesOf(buffer, parts, "data") ?? new Uint8Array(0),
    paramCount: countElements(tensor.shape),
    quantType: spec === null ? "none" : `int${spec.bits}`,
    scales: floatsOf(buffer, parts, "scales"),
    zeroPoints: floatsOf(buffer, parts, "zeroPoints"),
    quantAxis: spec === null ? null : 1,
    groupSize: spec?.groupSize ?? null,
    isDiffusionModel: true,
    modality: plan.modality,
    timeAware,
    spatial:
      spatial === null ? null : { ...spatial, equalizationScales: Float32Array.from(spatial.equalizationScales) },
    activationStats,
    component: plan.component,
    method: spec?.method ?? null,
    storedDtype: spec === null ? storedDtype : null,
    metrics: sums === null ? null : deriveMetrics(sums),
    crc32: chunk.crc32,
    chunkIndex: chunk.chunkIndex,
    chunkCount: chunk.chunkCount,
    scaleBits: spec?.scaleBits ?? null,
    superGroupSize: spec?.superGroupSize ?? null,
    scaleCodes: bytesOf(buffer, parts, "scaleCodes"),
    zeroPointBits: hasZeroPoints ? spec.zeroPointBits : null,
    zeroPointCodes: bytesOf(buffer, parts, "zeroPointCodes"),
    residualScaleCodes: bytesOf(buffer, parts, "residualScaleCodes"),
  };
}
