/** Small made-up results that hold every case a report must draw. */
import type { BatchResult } from "../../dist/batch/result.js";
import type { LayerPlan } from "../../dist/plan/plan.js";
import type { LayerReport, QuantizePlan, QuantizeResult } from "../../dist/quantize/result.js";
import type { QuantSpec } from "../../dist/tensor/layout.js";
import { deriveMetrics, type ErrorMetrics } from "../../dist/tensor/metrics.js";
import type { ValidatedLayer, ValidateResult } from "../../dist/validate/result.js";

export function metricsOf(cosine: number): ErrorMetrics {
  const norm2 = 64;
  const dot = cosine * norm2;
  return deriveMetrics({
    dot,
    sourceNorm2: norm2,
    rebuiltNorm2: norm2,
    errorNorm2: 2 * norm2 - 2 * dot,
    maxAbsError: (1 - cosine) * 2,
  });
}

export const exact = metricsOf(1);

export const spec: QuantSpec = {
  bits: 4,
  groupSize: 32,
  symmetric: false,
  method: "hqq",
  scaleBits: 6,
  zeroPointBits: 6,
  superGroupSize: 1024,
  weighting: "magnitude",
  preserveGain: true,
};

function layerPlan(name: string, shape: number[], dtype: "F32" | "F16", planned: QuantSpec | null): LayerPlan {
  const bytes = shape.reduce((a, b) => a * b, 1) * (dtype === "F32" ? 4 : 2);
  return {
    tensor: { name, shape, dtype, location: { file: 0, byteOffset: 0, byteLength: bytes }, sourceScale: null },
    spec: planned,
    candidates: [],
    options: [],
    calibrated: false,
    spatial: null,
    activations: null,
    storedDtype: dtype,
    reason: planned === null ? "fewer than two dimensions" : "strategy image",
    pinned: false,
  };
}

export const plan: QuantizePlan = {
  input: "models/dit",
  format: "diffusers-pipeline",
  components: [
    {
      component: "transformer",
      architecture: "dit",
      modality: "image",
      modalityEvidence: ["class DiTTransformer2DModel"],
      decisions: [{ what: "method", value: "hqq", rule: "strategy image: hqq without calibration" }],
      notApplied: [{ setting: "num_time_groups", reason: "needs calibration" }],
      warnings: ["a warning of the plan"],
      baseSpec: spec,
      calibration: null,
      spatial: null,
      activations: null,
      mixed: null,
      layers: [
        layerPlan("blocks.0.attn.to_q.weight", [64, 100], "F32", spec),
        layerPlan("blocks.0.attn.to_q.bias", [64], "F32", null),
        layerPlan("blocks.0.ff.weight", [8, 2, 3, 3], "F16", {
          ...spec,
          symmetric: true,
          scaleBits: null,
          superGroupSize: null,
        }),
      ],
    },
  ],
  warnings: [],
  sizes: { bytesIn: 25_600 + 256 + 288, bytesOut: 4_000, compressionRatio: 6.5, bitsPerWeight: 4.48 },
};

export function layer(name: string, metrics: ErrorMetrics | null, extra: Partial<LayerReport> = {}): LayerReport {
  return {
    name,
    shape: [64, 100],
    dtype: "F32",
    component: "transformer",
    quantType: metrics === null ? "none" : "int4",
    groupSize: metrics === null ? null : 32,
    method: metrics === null ? null : "hqq",
    reason: "strategy image",
    fallbackFrom: [],
    parameterCount: 6400,
    bytesIn: 25_600,
    bytesOut: 3_584,
    metrics,
    output: null,
    smoothing: null,
    timeGroups: null,
    trials: [],
    ...extra,
  };
}

export const quantizeResult: QuantizeResult = {
  output: "/out/dit.parquet",
  plan,
  layers: [
    layer("good", metricsOf(0.999)),
    layer("raised | pipe\u001b[31m", metricsOf(0.95), {
      quantType: "int8",
      fallbackFrom: [{ quantType: "int4", cosineSimilarity: 0.7 }],
    }),
    layer("exact", exact),
    layer("kept", null),
  ],
  summary: {
    tensors: 4,
    quantized: 3,
    kept: 1,
    parameters: 25_600,
    bytesIn: 102_400,
    bytesOut: 20_480,
    compressionRatio: 5,
    bitsPerWeight: 4.48,
    metrics: metricsOf(0.997),
    seconds: 1.25,
  },
  warnings: ["something to know"],
  fingerprints: { transformer: "ab".repeat(32) },
};

/** The same under calibration: outputs were measured, one layer had a choice. */
export const calibratedResult: QuantizeResult = {
  ...quantizeResult,
  plan: {
    ...plan,
    components: plan.components.map((component) => ({
      ...component,
      calibration: {
        label: "synthetic (random inputs), 64 samples",
        fingerprint: "cd".repeat(32),
        gptq: { damp: 0.01, order: "activation" },
      },
    })),
  },
  layers: [
    layer("good", metricsOf(0.999), { output: { relativeError: 0.31, cosineSimilarity: 0.95 }, timeGroups: 10 }),
    layer("chosen", metricsOf(0.8), {
      output: { relativeError: 0.012, cosineSimilarity: 0.9999 },
      smoothing: 0.5,
      timeGroups: 10,
      trials: [
        { method: "gptq", alpha: null, outputError: 0.02 },
        { method: "hqq", alpha: null, outputError: 0.045 },
        { method: "gptq", alpha: 0.5, outputError: 0.012 },
      ],
    }),
    layer("kept", null),
  ],
};

export function validated(name: string, passed: boolean, metrics: ErrorMetrics | null): ValidatedLayer {
  return {
    name,
    component: "transformer",
    shape: [64, 100],
    dtype: "F32",
    quantType: metrics === null ? "none" : "int4",
    groupSize: metrics === null ? null : 32,
    method: metrics === null ? null : "hqq",
    parameterCount: 6400,
    bytesIn: 25_600,
    bytesOut: 3_584,
    identical: metrics === null ? passed : null,
    metrics,
    threshold: metrics === null ? null : 0.9,
    passed,
  };
}

export const validateResult: ValidateResult = {
  original: "models/dit",
  quantized: "/out/dit.parquet",
  passed: false,
  summary: quantizeResult.summary,
  components: { transformer: metricsOf(0.997), vae: null },
  layers: [
    validated("fine", true, metricsOf(0.99)),
    validated("poor", false, metricsOf(0.5)),
    validated("kept", true, null),
  ],
  run: null,
  missing: ["lost.weight"],
  extra: [],
  misshapen: ["bent.weight"],
  warnings: [],
};

export const batchResult: BatchResult = {
  summary: {
    totalJobs: 3,
    successful: 1,
    failed: 1,
    skipped: 1,
    notRun: 0,
    successRate: 2 / 3,
    totalSizeMb: 12.5,
    avgCompressionRatio: 5,
    avgCosineSimilarity: 0.997,
    totalSeconds: 61,
  },
  results: [
    {
      index: 0,
      modelPath: "a",
      outputPath: "a.parquet",
      status: "successful",
      reason: null,
      summary: quantizeResult.summary,
      outputBytes: 20_480,
      warnings: [],
      error: null,
      seconds: 1.25,
    },
    {
      index: 1,
      modelPath: "b",
      outputPath: "b.parquet",
      status: "failed",
      reason: null,
      summary: null,
      outputBytes: null,
      warnings: [],
      error: { code: "E_NOT_FOUND", message: 'there is no "b"', hint: null, details: {} },
      seconds: 0.01,
    },
    {
      index: 2,
      modelPath: "c",
      outputPath: "c.parquet",
      status: "skipped",
      reason: "stands complete for the same source and settings",
      summary: null,
      outputBytes: 20_480,
      warnings: [],
      error: null,
      seconds: 0,
    },
  ],
  warnings: [],
  interruption: null,
};
