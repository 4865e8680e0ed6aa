import { describe, expect, it } from "vitest";
import { planComponent } from "../../dist/plan/component.js";
import type { LayerPlan } from "../../dist/plan/plan.js";
import { distinctGroupSizes } from "../../dist/plan/targets.js";
import { component, configOf, tensor } from "./components.js";

const parts = component([
  tensor("blocks.0.attn1.to_q.weight", { shape: [64, 128] }),
  tensor("blocks.0.attn1.to_q.bias", { shape: [64] }),
  tensor("blocks.0.ff.weight", { shape: [32, 40] }),
  tensor("proj_out.weight", { shape: [32, 128] }),
]);

async function layersOf(flags: Record<string, unknown>): Promise<Record<string, LayerPlan>> {
  const config = await configOf({ modality: "image", ...flags });
  const { layers } = planComponent({ component: parts, pipelineClassName: null, config, calibration: null });
  return Object.fromEntries(layers.map((layer) => [layer.tensor.name, layer]));
}

const choices = (layer: LayerPlan | undefined): string[] =>
  (layer?.options ?? []).map(({ bits, groupSize }) => `${bits}/${groupSize}`);

const Q = "blocks.0.attn1.to_q.weight";
const FF = "blocks.0.ff.weight";
const OUT = "proj_out.weight";

describe("options of a target", () => {
  it("are every width by every group size that differs, none without a target and of kept tensors", async () => {
    const plan = await layersOf({ target_bpw: 3, candidate_bits: [4, 2], candidate_group_sizes: [128, 32, 64, 256] });
    expect(choices(plan[Q])).toEqual(["2/32", "2/64", "2/128", "4/32", "4/64", "4/128"]);
    expect(choices(plan[FF])).toEqual(["2/32", "2/64", "4/32", "4/64"]);
    expect(choices(plan["blocks.0.attn1.to_q.bias"])).toEqual([]);
    expect(choices(plan[OUT])).toEqual([]);
    expect(choices((await layersOf({}))[Q])).toEqual([]);
    expect(plan[Q]?.options.every(({ groupSize, superGroupSize }) => superGroupSize! % groupSize === 0)).toBe(true);
  });

  it("keep to floors, ceilings and pinned widths, the first match of each", async () => {
    const plan = await layersOf({
      target_model_size_mb: 3,
      layer_min_bits: { attn1: 4, to_q: 8 },
      layer_max_bits: { to_q: 6 },
      layer_bit_widths: { ff: 5 },
    });
    expect(choices(plan[Q])).toEqual(["4/128", "5/128", "6/128"]);
    expect(choices(plan[FF])).toEqual(["5/128"]);
  });

  it("of sensitive layers begin at sensitive_min_bits, and keep to the higher of two floors", async () => {
    const plan = await layersOf({ target_bpw: 3, sensitive_min_bits: 6, layer_min_bits: { proj: 8, ff: 3 } });
    expect(choices(plan[OUT])).toEqual(["8/128"]);
    expect(plan[OUT]?.reason).toMatch(/^keep .*: at least 6 bits \(sensitive_min_bits\)/);
    expect(choices(plan[FF])[0]).toBe("3/128");
    expect((await layersOf({ sensitive_min_bits: 6 }))[OUT]?.spec).toBeNull();
  });

  it("of a mean group size have one width unless more are named", async () => {
    expect(choices((await layersOf({ mean_group_size: 64, bit_width: 3 }))[Q])).toEqual([
      "3/16",
      "3/32",
      "3/64",
      "3/128",
    ]);
    const both = await layersOf({ mean_group_size: 64, candidate_bits: [3, 4], candidate_group_sizes: [32] });
    expect(choices(both[Q])).toEqual(["3/32", "4/32"]);
  });

  it.each([
    [{ target_bpw: 3, layer_min_bits: { ff: 8 }, candidate_bits: [2, 4] }, "E_CONFLICT", /at least 8 \(layer_min_bits/],
    [{ target_bpw: 3, layer_min_bits: { ff: 6 }, layer_max_bits: { ff: 4 } }, "E_CONFLICT", /and at most 4/],
    [{ enable_mixed_precision: true }, "E_CONFLICT", /needs a target/],
    [{ target_bpw: 3, layer_max_bits: { nowhere: 4 } }, "E_PATTERN", /layer_max_bits .* matches none/],
  ])("refuse %j", async (flags, code, message) => {
    await expect(layersOf(flags)).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
  });

  it("are named as not applied where there is no target", async () => {
    const config = await configOf({ modality: "image", sensitivity: "weight", search: "evolutionary" });
    const { notApplied } = planComponent({ component: parts, pipelineClassName: null, config, calibration: null });
    expect(notApplied.map(({ setting }) => setting)).toEqual(expect.arrayContaining(["sensitivity", "search"]));
  });
});

describe("distinctGroupSizes", () => {
  it("keeps one size that takes a whole row", () => {
    expect(distinctGroupSizes([32, 64, 128], 64)).toEqual([32, 64]);
    expect(distinctGroupSizes([32, 64, 128], 20)).toEqual([32]);
    expect(distinctGroupSizes([32, 64], 1000)).toEqual([32, 64]);
  });
});
