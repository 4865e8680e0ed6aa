import { describe, expect, it } from "vitest";
import { configThatChangesTensors } from "../../dist/config/record.js";
import { resolveConfig } from "../../dist/config/resolve.js";
import type { Calibration } from "../../dist/plan/calibration.js";
import { planComponent } from "../../dist/plan/component.js";
import { component } from "../plan/components.js";

const NAMES = ["b.weight", "a.weight"];
const CALIBRATION: Calibration = {
  label: "sampling",
  fingerprint: "0a".repeat(32),
  component: "model",
  layerNames: new Set(NAMES),
  hessianNames: new Set(NAMES),
  heldBackNames: new Set(NAMES),
  timeBinCount: 10,
};

async function record(flags: Record<string, unknown>, calibration: Calibration | null = null): Promise<string> {
  const config = await resolveConfig({ flags });
  const plan = planComponent({
    component: component(NAMES, { className: "FluxTransformer2DModel" }),
    pipelineClassName: null,
    config,
    calibration,
  });
  return configThatChangesTensors(config, plan);
}

describe("the recorded settings", () => {
  it("are sorted JSON without spaces", async () => {
    const text = await record({ layer_bit_widths: { b: 8, a: "none" } });
    const value = JSON.parse(text) as Record<string, unknown>;
    expect(Object.keys(value)).toEqual(Object.keys(value).sort());
    expect(text).toBe(JSON.stringify(value));
    expect(value).toMatchObject({ bit_width: 4, method: "hqq", modality: "image" });
  });

  it("do not know what changes no tensor", async () => {
    const plain = await record({});
    for (const flags of [
      { num_threads: 7 },
      { memory: "1GB" },
      { enable_streaming: false },
      { fail_fast: true },
      { variant: "fp16" },
      { components: ["transformer"] },
      { calibration_samples: 4 },
      { num_time_groups: 2 },
      { enable_spatial: false },
      { profile: "local" },
      { method: "hqq" },
      { modality: "image" },
      { bit_width: 4 },
      { weighting: "none" },
    ]) {
      expect(await record(flags), JSON.stringify(flags)).toBe(plain);
    }
  });

  it("know what does", async () => {
    const texts = await Promise.all(
      [
        {},
        { bit_width: 2 },
        { group_size: 64 },
        { group_size: 48 },
        { method: "rtn" },
        { method: "mse" },
        { method: "mse", weighting: "none" },
        { method: "mse", preserve_gain: false },
        { symmetric: true },
        { scale_bits: 5 },
        { scale_bits: "none" },
        { zero_point_bits: 5 },
        { super_group_size: 512 },
        { min_accuracy: 0 },
        { on_nonfinite: "keep" },
        { include: ["a"] },
        { exclude: ["a"] },
        { skip_sensitive_layers: false },
        { sensitive_layer_names: ["a"] },
        { sensitive_layer_patterns: ["a"] },
        { layer_bit_widths: { a: 8, b: 2 } },
        { layer_bit_widths: { b: 2, a: 8 } },
        { modality: "video" },
      ].map(record),
    );
    expect(new Set(texts).size).toBe(texts.length);
  });

  it("under calibration know what was measured and what is made of it", async () => {
    const calibrated = (flags: Record<string, unknown>): Promise<string> => record(flags, CALIBRATION);
    const texts = await Promise.all([
      record({}),
      record({}, { ...CALIBRATION, fingerprint: "0b".repeat(32) }),
      ...[
        {},
        { method: "hqq" },
        { method: "auto" },
        { method: "auto", weighting: "none" },
        { gptq_damp: 0.02 },
        { gptq_order: "natural" },
        { enable_spatial: false },
        { spatial_alpha: 0.5 },
        { activation_bits: 8 },
        { activation_bits: 4 },
        { activation_bits: 8, activation_mode: "static" },
        { activation_bits: 8, activation_mode: "dynamic" },
        { activation_bits: 8, activation_range: "mse" },
        { activation_bits: 8, activation_range: "percentile" },
        { activation_bits: 8, activation_range: "percentile", activation_percentile: 99 },
        { activation_bits: 8, num_time_groups: 4 },
        { activation_bits: 8, time_groups: "uniform" },
        { activation_bits: 8, "thermodynamic.boundary_smoothing.window": 1 },
        { activation_bits: 8, "thermodynamic.transition_optimization.enabled": true },
      ].map(calibrated),
    ]);
    expect(new Set(texts).size).toBe(texts.length);
    const same: Record<string, unknown>[][] = [
      [{}, { graph: "x.onnx" }, { calibration: "sampling" }, { seed: 3 }, { method: "gptq" }, { activation_bits: 16 }],
      [
        { activation_bits: 8 },
        { activation_bits: 8, "thermodynamic.validation.smoothness_threshold": 1 },
        { activation_mode: "time" },
        { enable_time_aware: true },
      ],
      [{ activation_mode: "static" }, { activation_mode: "static", "thermodynamic.boundary_smoothing.window": 1 }],
    ];
    for (const alike of same) expect(new Set(await Promise.all(alike.map(calibrated))).size).toBe(1);
    for (const text of texts) expect(text).not.toContain("sampling");
  });
});
