import { describe, expect, it } from "vitest";
import { configThatChangesTensors } from "../../dist/config/record.js";
import { resolveConfig } from "../../dist/config/resolve.js";
import { planComponent } from "../../dist/plan/component.js";
import { component } from "../plan/components.js";

async function record(flags: Record<string, unknown>): Promise<string> {
  const config = await resolveConfig({ flags });
  const plan = planComponent({
    component: component(["b.weight", "a.weight"], { className: "FluxTransformer2DModel" }),
    pipelineClassName: null,
    config,
    calibration: null,
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
});
