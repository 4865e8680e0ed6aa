import { describe, expect, it } from "vitest";
import { batchBody, metricsJson, planBody, quantizeBody, summaryJson, validateBody } from "../../dist/report/json.js";
import { batchResult, exact, metricsOf, plan, quantizeResult, validateResult } from "./results.js";

const SUMMARY_KEYS = [
  "tensors",
  "quantized",
  "kept",
  "parameters",
  "bytes_in",
  "bytes_out",
  "compression_ratio",
  "bits_per_weight",
  "cosine_similarity",
  "sqnr_db",
  "relative_rmse",
  "seconds",
];
const LAYER_KEYS = [
  "name",
  "shape",
  "dtype",
  "component",
  "quant_type",
  "group_size",
  "method",
  "reason",
  "fallback_from",
  "metrics",
];

describe.each([
  ["quantize", quantizeBody(quantizeResult)],
  ["dry run", planBody(plan)],
  ["validate", validateBody(validateResult)],
])("%s", (_, body) => {
  it("has every key of the documented summary and layers", () => {
    expect(Object.keys(body.summary ?? {}).sort()).toEqual([...SUMMARY_KEYS].sort());
    expect(body.layers.length).toBeGreaterThan(0);
    for (const layer of body.layers) expect(Object.keys(layer)).toEqual(expect.arrayContaining(LAYER_KEYS));
  });
  it("survives JSON: no infinity or NaN got in", () => {
    expect(JSON.parse(JSON.stringify(body))).toEqual(body);
  });
});

describe("metrics", () => {
  it("give null for an infinite figure, beside an error of 0", () => {
    expect(exact.sqnrDb).toBe(Infinity);
    expect(metricsJson(exact)).toMatchObject({ cosine_similarity: 1, sqnr_db: null, relative_rmse: 0 });
    expect(metricsJson(null)).toBeNull();
  });
  it("are unrounded", () => {
    expect(metricsJson(metricsOf(0.123456789))?.cosine_similarity).toBeCloseTo(0.123456789, 14);
  });
  it("are null in the summary of a model of which nothing was quantized", () => {
    const summary = summaryJson({ ...quantizeResult.summary, metrics: null, bitsPerWeight: null });
    expect(summary).toMatchObject({
      cosine_similarity: null,
      sqnr_db: null,
      relative_rmse: null,
      bits_per_weight: null,
    });
  });
});

describe("batch", () => {
  it("has the documented summary and one result per job, counted from 1", () => {
    const body = batchBody(batchResult);
    expect(Object.keys(body.summary ?? {})).toEqual(
      expect.arrayContaining([
        "total_jobs",
        "successful",
        "failed",
        "skipped",
        "success_rate",
        "total_size_mb",
        "avg_compression_ratio",
        "avg_cosine_similarity",
        "total_time_s",
      ]),
    );
    const results = body.results as { job: number; status: string; error: unknown }[];
    expect(results.map(({ job, status }) => [job, status])).toEqual([
      [1, "successful"],
      [2, "failed"],
      [3, "skipped"],
    ]);
    expect(results[1]?.error).toMatchObject({ code: "E_NOT_FOUND" });
  });
});
