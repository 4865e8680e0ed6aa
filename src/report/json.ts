/**
 * Results as the plain objects of `--json` and `--report FILE.json`. Pure.
 *
 * Keys are snake_case and stable. JSON has no infinity, so a figure that is infinite is null: the SQNR of a
 * layer that is rebuilt without any error is null beside a `relative_rmse` of 0. `metrics` as a whole is null
 * where nothing was measured (kept layers, plans).
 */
import type { BatchResult, BatchSummary, JobResult } from "../batch/result.js";
import type { SerializedError } from "../errors.js";
import type { ComponentPlan, LayerPlan, MixedAllocation, MixedPrecision } from "../plan/plan.js";
import { estimateLayerBytes } from "../plan/size.js";
import type { LayerReport, QuantizePlan, QuantizeResult, Summary } from "../quantize/result.js";
import { countElements } from "../tensor/layout.js";
import type { ErrorMetrics } from "../tensor/metrics.js";
import type { ValidatedLayer, ValidateResult } from "../validate/result.js";
import type { RunResult } from "../validate/run-result.js";
import type { InspectedTensor, Inspection } from "./inspect.js";

export type JsonObject = Readonly<Record<string, unknown>>;

/** What every command's document holds; commands add keys of their own after these. */
export interface JsonDocument {
  readonly ok: boolean;
  readonly command: string;
  readonly version: string;
  readonly output: string | null;
  readonly summary: JsonObject | null;
  readonly layers: readonly JsonObject[];
  readonly warnings: readonly string[];
  readonly error: SerializedError | null;
  readonly [key: string]: unknown;
}

/** The part of a document that a command fills; the edge adds command, version and error. */
export interface DocumentBody {
  readonly output: string | null;
  readonly summary: JsonObject | null;
  readonly layers: readonly JsonObject[];
  readonly warnings: readonly string[];
  readonly [key: string]: unknown;
}

export const EMPTY_BODY: DocumentBody = { output: null, summary: null, layers: [], warnings: [] };

function finite(value: number | null): number | null {
  return value !== null && Number.isFinite(value) ? value : null;
}

export function metricsJson(metrics: ErrorMetrics | null): JsonObject | null {
  if (metrics === null) return null;
  return {
    cosine_similarity: finite(metrics.cosineSimilarity),
    sqnr_db: finite(metrics.sqnrDb),
    relative_rmse: finite(metrics.relativeRmse),
    gain: finite(metrics.gain),
    max_abs_error: finite(metrics.maxAbsError),
  };
}

export function summaryJson(summary: Summary): JsonObject {
  return {
    tensors: summary.tensors,
    quantized: summary.quantized,
    kept: summary.kept,
    parameters: summary.parameters,
    bytes_in: summary.bytesIn,
    bytes_out: summary.bytesOut,
    compression_ratio: finite(summary.compressionRatio),
    bits_per_weight: summary.bitsPerWeight,
    cosine_similarity: summary.metrics === null ? null : finite(summary.metrics.cosineSimilarity),
    sqnr_db: summary.metrics === null ? null : finite(summary.metrics.sqnrDb),
    relative_rmse: summary.metrics === null ? null : finite(summary.metrics.relativeRmse),
    seconds: summary.seconds,
  };
}

function layerJson(layer: LayerReport): JsonObject {
  return {
    name: layer.name,
    shape: layer.shape,
    dtype: layer.dtype,
    component: layer.component,
    quant_type: layer.quantType,
    group_size: layer.groupSize,
    method: layer.method,
    reason: layer.reason,
    fallback_from: layer.fallbackFrom.map((step) => ({
      quant_type: step.quantType,
      cosine_similarity: finite(step.cosineSimilarity),
    })),
    metrics: metricsJson(layer.metrics),
    output_error: layer.output === null ? null : finite(layer.output.relativeError),
    output_cosine: layer.output === null ? null : layer.output.cosineSimilarity,
    smoothing: layer.smoothing,
    time_groups: layer.timeGroups,
    trials: layer.trials.map(({ method, alpha, outputError }) => ({
      method,
      smoothing: alpha,
      output_error: finite(outputError),
    })),
    parameters: layer.parameterCount,
    bytes_in: layer.bytesIn,
    bytes_out: layer.bytesOut,
  };
}

function componentPlanJson(plan: ComponentPlan): JsonObject {
  return {
    component: plan.component,
    architecture: plan.architecture,
    modality: plan.modality,
    modality_evidence: plan.modalityEvidence,
    decisions: plan.decisions.map(({ what, value, rule }) => ({ what, value, rule })),
    not_applied: plan.notApplied.map(({ setting, reason }) => ({ setting, reason })),
    mixed_precision: plan.mixed === null ? null : mixedJson(plan.mixed),
  };
}

/** Errors are squared, those of a search and its front are not. */
function mixedJson({ origin, allocation, layers }: MixedPrecision): JsonObject {
  return {
    origin,
    ...(allocation === null ? {} : allocationJson(allocation)),
    layers: layers.map(({ name, bits, groupSize, bytes, error }) => ({
      name,
      bits,
      group_size: groupSize,
      bytes,
      error,
    })),
  };
}

function allocationJson({ search, ...allocation }: MixedAllocation): JsonObject {
  return {
    sensitivity: allocation.sensitivity,
    bits_per_weight: allocation.bitsPerWeight,
    mean_group_size: allocation.meanGroupSize,
    bytes: allocation.bytes,
    file_bytes: allocation.fileBytes,
    error: allocation.error,
    lower_bound: allocation.lowerBound,
    gap: allocation.gap,
    search:
      search === null
        ? null
        : {
            fitness: search.fitness,
            generations: search.generations,
            evaluations: search.evaluations,
            seed_error: finite(search.seedError),
            error: finite(search.error),
            history: search.history.map(finite),
          },
    front: allocation.front.map(({ bitsPerWeight, error }) => ({
      bits_per_weight: bitsPerWeight,
      error: finite(error),
    })),
  };
}

export function quantizeBody(result: QuantizeResult): DocumentBody {
  return {
    output: result.output,
    summary: summaryJson(result.summary),
    layers: result.layers.map(layerJson),
    warnings: result.warnings,
    dry_run: false,
    format: result.plan.format,
    components: result.plan.components.map(componentPlanJson),
    fingerprints: result.fingerprints,
  };
}

function planLayerJson(component: string, layer: LayerPlan): JsonObject {
  const { tensor, spec } = layer;
  return {
    name: tensor.name,
    shape: tensor.shape,
    dtype: tensor.dtype,
    component,
    quant_type: spec === null ? "none" : `int${spec.bits}`,
    group_size: spec?.groupSize ?? null,
    method: spec?.method ?? null,
    reason: layer.reason,
    fallback_from: [],
    metrics: null,
    parameters: countElements(tensor.shape),
    bytes_in: tensor.location.byteLength,
    bytes_out: estimateLayerBytes(layer),
    symmetric: spec?.symmetric ?? null,
    scale_bits: spec?.scaleBits ?? null,
    zero_point_bits: spec?.zeroPointBits ?? null,
    super_group_size: spec?.superGroupSize ?? null,
  };
}

/** The document of `--dry-run`: what was not measured is null. */
export function planBody(plan: QuantizePlan): DocumentBody {
  const layers = plan.components.flatMap(({ component, layers }) =>
    layers.map((layer) => planLayerJson(component, layer)),
  );
  const kept = layers.filter((layer) => layer.quant_type === "none").length;
  return {
    output: null,
    summary: {
      tensors: layers.length,
      quantized: layers.length - kept,
      kept,
      parameters: layers.reduce((sum, layer) => sum + (layer.parameters as number), 0),
      bytes_in: plan.sizes.bytesIn,
      bytes_out: plan.sizes.bytesOut,
      compression_ratio: finite(plan.sizes.compressionRatio),
      bits_per_weight: plan.sizes.bitsPerWeight,
      cosine_similarity: null,
      sqnr_db: null,
      relative_rmse: null,
      seconds: null,
    },
    layers,
    warnings: plan.warnings,
    dry_run: true,
    format: plan.format,
    components: plan.components.map(componentPlanJson),
  };
}

function validatedLayerJson(layer: ValidatedLayer): JsonObject {
  return {
    name: layer.name,
    shape: layer.shape,
    dtype: layer.dtype,
    component: layer.component,
    quant_type: layer.quantType,
    group_size: layer.groupSize,
    method: layer.method,
    reason: null,
    fallback_from: [],
    metrics: metricsJson(layer.metrics),
    parameters: layer.parameterCount,
    bytes_in: layer.bytesIn,
    bytes_out: layer.bytesOut,
    identical: layer.identical,
    threshold: layer.threshold,
    passed: layer.passed,
  };
}

export function validateBody(result: ValidateResult): DocumentBody {
  return {
    output: result.quantized,
    summary: summaryJson(result.summary),
    layers: result.layers.map(validatedLayerJson),
    warnings: result.warnings,
    passed: result.passed,
    original: result.original,
    quantized: result.quantized,
    components: Object.fromEntries(
      Object.entries(result.components).map(([name, metrics]) => [name, metricsJson(metrics)]),
    ),
    missing: result.missing,
    extra: result.extra,
    misshapen: result.misshapen,
    run: result.run === null ? null : runJson(result.run),
  };
}

function runJson(run: RunResult): JsonObject {
  return {
    component: run.component,
    graph: run.graph,
    runtime: run.runtime,
    inputs: run.inputs,
    layers_run: run.layerCount,
    layers_not_run: run.notRun,
    activations_quantized: run.activationCount,
    images: run.images,
    passed: run.passed,
    variants: run.variants.map(({ quantized, predictionError, predictionCosine, psnrDb, times }) => ({
      quantized,
      prediction_error: predictionError,
      prediction_cosine: predictionCosine,
      psnr_db: finite(psnrDb),
      times: times.map(({ time, relativeError, cosineSimilarity }) => ({
        time,
        prediction_error: relativeError,
        prediction_cosine: cosineSimilarity,
      })),
    })),
  };
}

function inspectedTensorJson(component: string, tensor: InspectedTensor): JsonObject {
  return {
    name: tensor.name,
    shape: tensor.shape,
    dtype: tensor.dtype,
    component,
    quant_type: tensor.quantType,
    group_size: tensor.groupSize,
    method: tensor.method,
    reason: null,
    fallback_from: [],
    metrics: metricsJson(tensor.metrics),
    parameters: tensor.parameterCount,
    bytes: tensor.byteLength,
    bits: tensor.bits,
  };
}

export function inspectBody(inspection: Inspection): DocumentBody {
  const layers = inspection.components.flatMap(({ name, tensors }) =>
    tensors.map((tensor) => inspectedTensorJson(name, tensor)),
  );
  const kept = layers.filter((layer) => layer.quant_type === "none").length;
  return {
    output: null,
    summary: {
      tensors: layers.length,
      quantized: layers.length - kept,
      kept,
      parameters: layers.reduce((sum, layer) => sum + (layer.parameters as number), 0),
      bytes: layers.reduce((sum, layer) => sum + (layer.bytes as number), 0),
    },
    layers,
    warnings: inspection.warnings,
    path: inspection.path,
    format: inspection.format,
    components: inspection.components.map(({ name, className, metadata }) => ({
      component: name,
      class_name: className,
      metadata: metadata ?? null,
    })),
  };
}

function batchSummaryJson(summary: BatchSummary): JsonObject {
  return {
    total_jobs: summary.totalJobs,
    successful: summary.successful,
    failed: summary.failed,
    skipped: summary.skipped,
    not_run: summary.notRun,
    success_rate: summary.successRate,
    total_size_mb: summary.totalSizeMb,
    avg_compression_ratio: summary.avgCompressionRatio,
    avg_cosine_similarity: summary.avgCosineSimilarity,
    total_time_s: summary.totalSeconds,
  };
}

function jobResultJson(job: JobResult): JsonObject {
  return {
    job: job.index + 1,
    model_path: job.modelPath,
    output_path: job.outputPath,
    status: job.status,
    reason: job.reason,
    summary: job.summary === null ? null : summaryJson(job.summary),
    warnings: job.warnings,
    error: job.error,
    seconds: job.seconds,
  };
}

export function batchBody(result: BatchResult): DocumentBody {
  return {
    output: null,
    summary: batchSummaryJson(result.summary),
    layers: [],
    warnings: result.warnings,
    results: result.results.map(jobResultJson),
  };
}
