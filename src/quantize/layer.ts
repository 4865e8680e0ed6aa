/**
 * One layer from source to stored chunks: quantized, measured, and where it is not good enough quantized again
 * with more bits, until it is or stays as it was (fallback 2 → 4 → 8 → kept).
 */
import { ArrowQuantError } from "../errors.js";
import type { ActivationStats, SpatialQuant, TimeAwareQuant } from "../formats/parquet/row.js";
import { nextSpec } from "../plan/fallback.js";
import type { LayerPlan } from "../plan/plan.js";
import { countElements, type QuantSpec } from "../tensor/layout.js";
import { deriveMetrics, deriveOutputMetrics, type ErrorSums, type OutputSums } from "../tensor/metrics.js";
import type { NonFiniteWeight } from "../worker/messages.js";
import { describeActivations } from "./activations.js";
import {
  type Attempt,
  keepChunks,
  type LayerSource,
  measureLayer,
  type StoredChunkOutput,
  streamLayer,
} from "./layer-chunks.js";
import { keptGrid, quantizedGrid } from "./layer-layout.js";
import {
  hasChoice,
  type LayerKnowledge,
  type LayerTrial,
  type LayerVariant,
  prepareVariant,
  searchLayer,
} from "./layer-search.js";
import type { LayerReport } from "./result.js";

/** What is asked of a layer's quality. */
export interface QualityRule {
  readonly minAccuracy: number;
  readonly failFast: boolean;
}

/** How a layer is stored, and why. Plain data: a resumed run reads it from JSON. */
export interface SettledLayer {
  /** null: kept, as the plan's `storedDtype`. */
  readonly spec: QuantSpec | null;
  readonly reason: string;
  readonly fallbackFrom: LayerReport["fallbackFrom"];
  readonly spatial: (Omit<SpatialQuant, "equalizationScales"> & { readonly equalizationScales: number[] }) | null;
  readonly timeAware: TimeAwareQuant | null;
  readonly activationStats: ActivationStats | null;
  /** Of the layer's output on held-back rows; null where it was not measured. */
  readonly outputSums: OutputSums | null;
  readonly trials: readonly LayerTrial[];
  readonly warnings: readonly string[];
}

/** A settled layer with its chunks, which are produced as they are asked for. */
export interface LayerOutcome {
  readonly settled: SettledLayer;
  readonly chunks: AsyncIterable<StoredChunkOutput>;
}

/** One width's best attempt. */
export interface WidthOutcome {
  readonly variant: LayerVariant;
  readonly attempt: Attempt;
  readonly trials: readonly LayerTrial[];
  readonly notes: readonly string[];
}

/**
 * Settles how a layer is stored.
 * @param knowledge what calibration knows of the layer; null: nothing
 * @throws E_NONFINITE, E_QUALITY (with `failFast`), errors of reading, the signal's reason
 */
export async function settleLayer(
  source: LayerSource,
  quality: QualityRule,
  knowledge: LayerKnowledge | null,
): Promise<LayerOutcome> {
  const { layer } = source;
  if (layer.spec === null) return keptOutcome(source, layer.reason, []);
  const measures = quality.minAccuracy > 0 && !layer.pinned;
  // Nothing can change what is stored: chunks go out as they come.
  if (!measures && source.onNonFinite === "error" && !hasChoice(layer)) {
    const streamed = await streamedOutcome(source, layer.spec, knowledge);
    if (streamed !== null) return streamed;
  }
  const tried: { quantType: string; cosineSimilarity: number }[] = [];
  const first = layer.candidates.length === 0 ? [layer.spec] : layer.candidates;
  for (let specs = first; specs.length > 0; specs = widenSpecs(specs)) {
    const best = await settleWidth(source, knowledge, specs, tried.length === 0);
    const { spec } = best.variant;
    const { nonFinite } = best.attempt;
    if (nonFinite !== null) {
      await best.attempt.discard();
      return keptOutcome(source, nonFiniteReason(nonFinite), tried);
    }
    const cosineSimilarity = accuracyOf(best.attempt);
    if (!measures || cosineSimilarity >= quality.minAccuracy) return quantizedOutcome(source, knowledge, best, tried);
    await best.attempt.discard();
    if (quality.failFast) throw qualityError(source, best, cosineSimilarity, quality.minAccuracy);
    tried.push({ quantType: `int${spec.bits}`, cosineSimilarity });
  }
  return keptOutcome(source, `keep: below min_accuracy ${quality.minAccuracy} at every width`, tried);
}

/** The best of `specs`, all of one width, held back until its chunks are asked for or it is discarded. */
export async function settleWidth(
  source: LayerSource,
  knowledge: LayerKnowledge | null,
  specs: readonly QuantSpec[],
  countsBytes: boolean,
): Promise<WidthOutcome> {
  if (knowledge !== null) {
    const found = await searchLayer(source, knowledge, specs, countsBytes);
    if (found !== null) return found;
  }
  // Every candidate needed a Hessian that there is none of, or that cannot be factored.
  const spec = withoutHessian(specs[0] as QuantSpec);
  if (knowledge === null || spec === specs[0]) {
    const attempt = await measureLayer(source, spec, null, countsBytes);
    return { variant: { spec, equalization: null, activations: null }, attempt, trials: [], notes: [] };
  }
  const found = (await searchLayer(source, knowledge, [spec], countsBytes)) as WidthOutcome;
  return { ...found, notes: [...found.notes, `${spec.method} as the Hessian is not positive definite`] };
}

/** What stands in for gptq where there is no Hessian to use. */
function withoutHessian(spec: QuantSpec): QuantSpec {
  return spec.method === "gptq" ? { ...spec, method: spec.symmetric ? "rtn" : "hqq" } : spec;
}

/** Cosine similarity of the layer's output on held-back rows where it was measured, else of its weights. */
function accuracyOf({ sums, outputSums }: Attempt): number {
  return outputSums === null ? deriveMetrics(sums).cosineSimilarity : deriveOutputMetrics(outputSums).cosineSimilarity;
}

/** The specs one width up, each once. */
function widenSpecs(specs: readonly QuantSpec[]): QuantSpec[] {
  const wider = specs.map(nextSpec).filter((spec) => spec !== null);
  return wider.filter((spec, index) => wider.findIndex(({ method }) => method === spec.method) === index);
}

/** null: the layer's Hessian cannot be used. */
async function streamedOutcome(
  source: LayerSource,
  spec: QuantSpec,
  knowledge: LayerKnowledge | null,
): Promise<LayerOutcome | null> {
  if (knowledge === null) {
    return { settled: settled(source, spec, null, null, null), chunks: streamLayer(source, spec, null) };
  }
  const prepared = await prepareVariant(source, knowledge, spec, null, false);
  if (prepared === null) return null;
  const { variant, calibration } = prepared;
  return {
    settled: settled(source, spec, knowledge, variant, null),
    chunks: streamLayer(source, spec, calibration),
  };
}

function quantizedOutcome(
  source: LayerSource,
  knowledge: LayerKnowledge | null,
  best: WidthOutcome,
  fallbackFrom: LayerReport["fallbackFrom"],
): LayerOutcome {
  const { variant, attempt } = best;
  return {
    settled: settled(source, variant.spec, knowledge, variant, best, fallbackFrom),
    chunks: attempt.chunks,
  };
}

function settled(
  { layer }: LayerSource,
  spec: QuantSpec,
  knowledge: LayerKnowledge | null,
  variant: LayerVariant | null,
  best: WidthOutcome | null,
  fallbackFrom: LayerReport["fallbackFrom"] = [],
): SettledLayer {
  const fallback = fallbackFrom.length === 0 ? "" : `, fell back to ${spec.bits} bits (min_accuracy)`;
  const notes = best === null || best.notes.length === 0 ? "" : `, ${best.notes.join(", ")}`;
  const equalization = variant?.equalization ?? null;
  const activations = variant?.activations ?? null;
  return {
    spec,
    reason: layer.reason + fallback + notes,
    fallbackFrom,
    spatial:
      equalization === null
        ? null
        : {
            enabled: true,
            channelEqualization: true,
            activationSmoothing: equalization.alpha,
            equalizationScales: [...equalization.scales],
          },
    timeAware: activations?.timeAware ?? null,
    activationStats: knowledge?.calibration.activationStats ?? null,
    outputSums: best?.attempt.outputSums ?? null,
    trials: best?.trials ?? [],
    warnings: activations === null ? [] : describeActivations(layer.tensor.name, activations),
  };
}

function keptOutcome(source: LayerSource, reason: string, fallbackFrom: LayerReport["fallbackFrom"]): LayerOutcome {
  return {
    settled: {
      spec: null,
      reason,
      fallbackFrom,
      spatial: null,
      timeAware: null,
      activationStats: null,
      outputSums: null,
      trials: [],
      warnings: [],
    },
    chunks: keepChunks(source, source.layer.spec === null),
  };
}

function nonFiniteReason({ row, col, value }: NonFiniteWeight): string {
  return `keep: weight at row ${row}, column ${col} is ${value} (on_nonfinite keep)`;
}

/** @param sums over all chunks; of no meaning where the layer is kept */
export function reportLayer(
  component: string,
  { tensor, storedDtype }: LayerPlan,
  layer: SettledLayer,
  sums: ErrorSums,
): LayerReport {
  const { spec, reason, fallbackFrom, spatial, timeAware, outputSums, trials } = layer;
  const grid = spec === null ? keptGrid(tensor.shape, storedDtype) : quantizedGrid(tensor.shape, spec);
  return {
    name: tensor.name,
    shape: tensor.shape,
    dtype: tensor.dtype,
    component,
    quantType: spec === null ? "none" : `int${spec.bits}`,
    groupSize: spec?.groupSize ?? null,
    method: spec?.method ?? null,
    reason,
    fallbackFrom,
    parameterCount: countElements(tensor.shape),
    bytesIn: tensor.location.byteLength,
    bytesOut: grid.storedBytes,
    metrics: spec === null ? null : deriveMetrics(sums),
    output: outputSums === null ? null : deriveOutputMetrics(outputSums),
    smoothing: spatial === null ? null : spatial.activationSmoothing,
    timeGroups: timeAware === null ? null : timeAware.numTimeGroups,
    trials,
  };
}

function qualityError(
  source: LayerSource,
  { variant: { spec }, attempt }: WidthOutcome,
  cosineSimilarity: number,
  minAccuracy: number,
): ArrowQuantError {
  const { name } = source.layer.tensor;
  const what = attempt.outputSums === null ? "cosine similarity" : "cosine similarity of its output";
  return new ArrowQuantError(
    "E_QUALITY",
    `"${name}" has a ${what} of ${cosineSimilarity.toFixed(4)} at ${spec.bits} bits, least is ${minAccuracy}`,
    {
      hint: "drop --fail-fast to fall back to more bits for this layer alone, or lower --min-accuracy",
      details: { tensor: name, component: source.component, bits: spec.bits, cosineSimilarity, minAccuracy },
    },
  );
}
