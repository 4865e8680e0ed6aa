/**
 * Candidates of layers, quantized on demand by the very code that quantizes a model, measured, and kept as they would
 * be stored, in a file, to be rebuilt as often as they are asked for.
 */
import { closeSync, openSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Statistics } from "../../calibration/statistics.js";
import type { Session } from "../../engine/session.js";
import { ArrowQuantError } from "../../errors.js";
import { readSourceScales } from "../../formats/scale.js";
import type { ComponentPlan, LayerPlan } from "../../plan/plan.js";
import type { Component } from "../../tensor/info.js";
import { type QuantSpec, viewAs2d } from "../../tensor/layout.js";
import { addOutputSums, type OutputSums, zeroOutputSums } from "../../tensor/metrics.js";
import type { StoredSpec } from "../../tensor/stored.js";
import type { NonFiniteWeight, PartRanges } from "../../worker/messages.js";
import { partsEnd } from "../../worker/parts.js";
import type { Factors } from "../factors.js";
import { settleWidth, type WidthOutcome } from "../layer.js";
import { type LayerSource, type StoredChunkOutput, sourceRun } from "../layer-chunks.js";
import { type ChunkGrid, quantizedGrid, rowsOfChunk } from "../layer-layout.js";
import { fitLayer, openFactors, readKnowledge, shareOfBudget } from "../layer-resources.js";
import type { LayerKnowledge } from "../layer-search.js";
import { Spill } from "../spill.js";
import { measuredLayer, specText } from "./candidate.js";
import { countHistogram, type WeightEntropy } from "./entropy.js";
import { type KeptLayer, rebuildLayer } from "./rebuild-layer.js";

/** What quantizing a layer in one way costs; squared errors and what they are relative to. */
export interface CandidateSums {
  /** Of the weights, weighted by importance where it is known. */
  readonly weight: OutputSums;
  /** Of the layer's output on held-back rows; null where there are none. */
  readonly output: OutputSums | null;
  /** Mean square of an element of that output, times the positions that a sample has there; null where `output` is. */
  readonly outputEnergy: number | null;
}

export interface CandidateStore {
  /**
   * Quantizes the layer and measures it; null where a weight that is not finite makes that impossible and the
   * configuration keeps such layers.
   * @param keeps whether `weights` will be asked for
   */
  measure(layerName: string, spec: QuantSpec, keeps: boolean): Promise<CandidateSums | null>;
  /**
   * The layer's weights as a reader of the file would have them, float32 in the order of the tensor's shape; quantized
   * first where that has not been done.
   */
  weights(layerName: string, spec: QuantSpec): Promise<Float32Array>;
  /** Of the layer's own weights; null where one of them is not finite and the configuration keeps such layers. */
  entropy(layerName: string): Promise<WeightEntropy | null>;
  /** Waits for what is under way and removes the file. */
  close(): Promise<void>;
}

export interface CandidateStoreInput {
  readonly session: Session;
  readonly component: Component;
  /** Its layers, and what calibration settings they have; specs come with each question. */
  readonly plan: ComponentPlan;
  readonly statistics: Statistics | null;
  readonly onNonFinite: "error" | "keep";
  readonly signal: AbortSignal;
}

/** @throws errors of reading the component's files or of making a temporary folder */
export async function openCandidateStore(input: CandidateStoreInput): Promise<CandidateStore> {
  const folder = await mkdtemp(join(tmpdir(), "arrowquant-sensitivity-"));
  const files: { readonly fd: number; readonly path: string }[] = [];
  try {
    for (const { path } of input.component.files) files.push({ path, fd: openSync(path, "r") });
    return new LayerCandidates(input, folder, files);
  } catch (thrown) {
    for (const { fd } of files) closeSync(fd);
    await rm(folder, { recursive: true, force: true });
    throw thrown;
  }
}

class LayerCandidates implements CandidateStore {
  readonly #input: CandidateStoreInput;
  readonly #folder: string;
  readonly #files: LayerSource["files"];
  readonly #factors: Factors | null;
  readonly #layers: ReadonlyMap<string, LayerPlan>;
  readonly #planned = new Map();
  readonly #kept = new Map<string, KeptLayer>();
  readonly #underWay = new Set<Promise<unknown>>();
  #spillCount = 0;
  #spill: Promise<Spill> | null = null;
  /** Chunks are appended one after another. */
  #appended: Promise<unknown> = Promise.resolve();

  constructor(input: CandidateStoreInput, folder: string, files: LayerSource["files"]) {
    this.#input = input;
    this.#folder = folder;
    this.#files = files;
    this.#factors = openFactors(input, () => this.#newPath());
    this.#layers = new Map(input.plan.layers.map((layer) => [layer.tensor.name, layer]));
  }

  measure(layerName: string, spec: QuantSpec, keeps: boolean): Promise<CandidateSums | null> {
    return this.#track(this.#quantize(this.#layerOf(layerName), spec, keeps));
  }

  weights(layerName: string, spec: QuantSpec): Promise<Float32Array> {
    return this.#track(this.#weights(this.#layerOf(layerName), spec));
  }

  entropy(layerName: string): Promise<WeightEntropy | null> {
    return this.#track(this.#entropy(this.#layerOf(layerName)));
  }

  async close(): Promise<void> {
    await Promise.allSettled(this.#underWay);
    // After an abort threads may still read.
    await this.#input.session.settle(this.#input.signal);
    await (await this.#spill)?.remove();
    await this.#factors?.removeAll();
    for (const { fd } of this.#files) closeSync(fd);
    await rm(this.#folder, { recursive: true, force: true });
  }

  #track<T>(work: Promise<T>): Promise<T> {
    const settled = work.then(
      () => undefined,
      () => undefined,
    );
    this.#underWay.add(settled);
    void settled.then(() => this.#underWay.delete(settled));
    return work;
  }

  #layerOf(name: string): LayerPlan {
    const layer = this.#layers.get(name);
    if (layer === undefined) throw new ArrowQuantError("E_INTERNAL", `"${name}" is no layer of the plan`);
    return layer;
  }

  #newPath(): string {
    this.#spillCount += 1;
    return join(this.#folder, String(this.#spillCount));
  }

  async #weights(layer: LayerPlan, spec: QuantSpec): Promise<Float32Array> {
    const { session, signal } = this.#input;
    const key = keyOf(layer, spec);
    if (!this.#kept.has(key)) await this.#quantize(layer, spec, true);
    const kept = this.#kept.get(key);
    const { name } = layer.tensor;
    if (kept === undefined) throw new ArrowQuantError("E_NONFINITE", `"${name}" has weights that are not finite`);
    return rebuildLayer(name, kept, (await this.#spill) as Spill, session, signal);
  }

  /** Quantizes within a share of the session's budget. */
  async #quantize(original: LayerPlan, spec: QuantSpec, keeps: boolean): Promise<CandidateSums | null> {
    const { session, signal, component, statistics, onNonFinite } = this.#input;
    const layer = measuredLayer(original, spec);
    const memory = fitLayer(session, layer);
    const { heldAttempts, reservedBytes } = shareOfBudget(session, layer, memory);
    await session.budget.acquire(reservedBytes, signal);
    try {
      const { sourceScale } = layer.tensor;
      const source: LayerSource = {
        session,
        signal,
        component: component.name,
        files: this.#files,
        onNonFinite,
        openSpill: () => Spill.create(this.#newPath()),
        onBytes: () => undefined,
        layer,
        reservedBytes,
        heldAttempts,
        slabRows: memory.slabRows,
        sourceScales: sourceScale === null ? null : await readSourceScales(component.files, sourceScale),
      };
      const knowledge = await readKnowledge(statistics, layer, this.#factors, this.#planned);
      const outcome = await settleWidth(source, knowledge, [spec], false);
      if (outcome.attempt.nonFinite !== null) {
        await outcome.attempt.discard();
        return null;
      }
      const { outputSums } = outcome.attempt;
      const importance = knowledge?.calibration.importance ?? null;
      const weight = await this.#consume(source, outcome, importance, keeps ? keyOf(original, spec) : null);
      const outputEnergy =
        outputSums === null || knowledge === null ? null : this.#energyOf(outputSums, knowledge, layer);
      return { weight, output: outputSums, outputEnergy };
    } finally {
      session.budget.release(reservedBytes);
    }
  }

  /** Weighs the chunks by importance, and keeps them under `key`; null: they are not kept. */
  async #consume(
    source: LayerSource,
    { variant, attempt }: WidthOutcome,
    importance: Float32Array | null,
    key: string | null,
  ): Promise<OutputSums> {
    const { session } = this.#input;
    const grid = quantizedGrid(source.layer.tensor.shape, variant.spec);
    const stored = storedSpec(variant.spec);
    const equalizationScales = variant.equalization?.scales ?? null;
    const weighted = zeroOutputSums();
    const chunks: KeptLayer["chunks"][number][] = [];
    for await (const chunk of attempt.chunks) {
      const { chunkIndex, parts } = chunk;
      const rows = rowsOfChunk(grid, chunkIndex);
      let { buffer } = chunk;
      if (importance !== null) {
        const reply = await this.#compare(source, grid, chunk, stored, equalizationScales, importance);
        addOutputSums(weighted, reply.sums);
        buffer = reply.buffer;
      }
      if (key !== null) chunks.push({ rows, parts, byteOffset: await this.#append(buffer, parts) });
      session.buffers.give(buffer);
    }
    if (key !== null) this.#kept.set(key, { cols: grid.cols, rows: grid.rows, stored, equalizationScales, chunks });
    return importance === null ? attempt.sums : weighted;
  }

  #energyOf({ sourceNorm2 }: OutputSums, { calibration }: LayerKnowledge, { tensor }: LayerPlan): number {
    const { sampleCount, heldBackCount } = (this.#input.statistics as Statistics).info;
    const { heldBack, statistics } = calibration;
    const elements = (heldBack?.rowCount ?? 0) * viewAs2d(tensor.shape).rows;
    const passed = statistics.count.reduce((sum, count) => sum + count, 0);
    return (sourceNorm2 / elements) * (passed / (sampleCount - heldBackCount));
  }

  async #compare(
    source: LayerSource,
    grid: ChunkGrid,
    { chunkIndex, buffer, parts }: StoredChunkOutput,
    stored: StoredSpec,
    equalizationScales: Float32Array | null,
    importance: Float32Array,
  ): Promise<{ sums: OutputSums; buffer: ArrayBuffer }> {
    const { session, signal } = this.#input;
    const rows = rowsOfChunk(grid, chunkIndex);
    const { input, importanceSums } = await session.run(
      {
        kind: "compare",
        source: sourceRun(source, grid.cols, chunkIndex * grid.rowsPerChunk, rows),
        stored,
        parts,
        equalizationScales,
        importance,
        slabRows: Math.min(source.slabRows, rows),
        input: buffer,
      },
      [buffer],
      signal,
    );
    return { sums: importanceSums as OutputSums, buffer: input };
  }

  async #append(buffer: ArrayBuffer, parts: PartRanges): Promise<number> {
    this.#spill ??= Spill.create(this.#newPath());
    const spill = await this.#spill;
    const before = this.#appended;
    const appended = before.then(() => spill.append(new Uint8Array(buffer, 0, partsEnd(parts))));
    this.#appended = appended.catch(() => undefined);
    return appended;
  }

  async #entropy(layer: LayerPlan): Promise<WeightEntropy | null> {
    const { session, signal, component, onNonFinite } = this.#input;
    const { sourceScale, shape, name } = layer.tensor;
    const sourceScales = sourceScale === null ? null : await readSourceScales(component.files, sourceScale);
    const { rows, cols } = viewAs2d(shape);
    const source = sourceRun({ files: this.#files, layer, sourceScales }, cols, 0, rows);
    const { entropy, nonFinite } = await countHistogram(source, session, signal);
    if (nonFinite !== null && onNonFinite === "error") throw nonFiniteError(name, nonFinite);
    return entropy;
  }
}

function keyOf(layer: LayerPlan, spec: QuantSpec): string {
  return `${layer.tensor.name}\n${specText(spec)}`;
}

/** What a reader must know of a spec. */
function storedSpec(spec: QuantSpec): StoredSpec {
  const { bits, groupSize, superGroupSize, scaleBits, symmetric, method } = spec;
  const isR2q = method === "r2q";
  const zeroPointBits = symmetric || isR2q ? null : spec.zeroPointBits;
  return { bits, storageBits: bits, groupSize, superGroupSize, scaleBits, zeroPointBits, isR2q };
}

function nonFiniteError(tensor: string, { row, col, value }: NonFiniteWeight): ArrowQuantError {
  return new ArrowQuantError("E_NONFINITE", `"${tensor}" is ${value} at row ${row}, column ${col}`, {
    hint: "keep such layers unquantized with --on-nonfinite keep",
    details: { tensor, row, col, value: String(value) },
  });
}
