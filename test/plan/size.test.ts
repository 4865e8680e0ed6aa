import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { planComponent } from "../../dist/plan/component.js";
import { estimateLayerBytes, estimateSizes } from "../../dist/plan/size.js";
import { component, configOf, tensor } from "./components.js";

const plan = async (shapes: readonly (readonly number[])[], flags: Record<string, unknown> = {}) =>
  planComponent({
    component: component(shapes.map((shape, index) => tensor(`layer${index}.weight`, { shape }))),
    pipelineClassName: null,
    config: await configOf({ modality: "image", ...flags }),
    calibration: null,
  });

describe("estimateSizes", () => {
  it.each([
    // 128 codes of 4 bits, 4 scale and 4 zero-point codes of 6 bits, one float32 super scale.
    [{ bit_width: 4, group_size: 32, method: "rtn" }, 64 + 3 + 3 + 4],
    [{ bit_width: 2, group_size: 32, method: "rtn", scale_bits: "none", zero_point_bits: "none" }, 32 + 16 + 16],
    [{ bit_width: 8, group_size: 128, method: "rtn", symmetric: true }, 128 + 1 + 4],
    // Two scale codes per group, no zero points.
    [{ bit_width: 2, group_size: 16, method: "r2q" }, 32 + 6 + 6 + 4],
    // A group larger than the row is one group.
    [{ bit_width: 4, group_size: 1024, method: "rtn" }, 64 + 1 + 1 + 4],
  ])("%j counts all a reader needs of a row", async (flags, rowBytes) => {
    const sizes = estimateSizes(await plan([[10, 128]], flags));
    expect(sizes.quantizedBytes).toBe(10 * rowBytes);
    expect(sizes.bitsPerWeight).toBeCloseTo((8 * rowBytes) / 128, 12);
  });

  it("adds up over layers and plans, kept ones in the type they are stored in", async () => {
    const shapes = fc.array(fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 4 }), {
      minLength: 1,
      maxLength: 6,
    });
    await fc.assert(
      fc.asyncProperty(shapes, async (some) => {
        const all = await plan([[4, 4], ...some]);
        const sizes = estimateSizes(all);
        const kept = all.layers.filter(({ spec }) => spec === null);
        const bytes = all.layers.reduce((sum, layer) => sum + estimateLayerBytes(layer), 0);
        expect(sizes.packedBytes).toBe(bytes);
        expect(sizes.quantizedBytes + sizes.keptBytes).toBe(bytes);
        expect(sizes.keptBytes).toBe(kept.reduce((sum, { tensor: { location } }) => sum + location.byteLength, 0));
        expect(sizes.sourceBytes).toBe(2 * sizes.parameters);
        expect(estimateSizes([all, all]).packedBytes).toBe(2 * bytes);
        expect(estimateSizes([all, all]).bitsPerWeight).toBe(sizes.bitsPerWeight);
      }),
      { numRuns: 50 },
    );
  });

  it("counts an applied scale as part of the source", async () => {
    const location = { file: 0, byteOffset: 0, byteLength: 4 };
    const scaled = tensor("a.weight", {
      dtype: "F8_E4M3",
      sourceScale: { tensorName: "a.weight_scale", dtype: "F32", per: "tensor", location },
    });
    const all = planComponent({
      component: component([scaled, tensor("b.weight")]),
      pipelineClassName: null,
      config: await configOf({ modality: "image", exclude: ["^a"] }),
      calibration: null,
    });
    const sizes = estimateSizes(all);
    expect(all.layers[0]).toMatchObject({ spec: null, storedDtype: "F32" });
    expect(sizes.keptBytes).toBe(64 * 64 * 4);
    expect(sizes.sourceBytes).toBe(64 * 64 + 4 + 64 * 64 * 2);
  });

  it("has no bits per weight without weights", () => {
    expect(estimateSizes([])).toMatchObject({
      packedBytes: 0,
      bitsPerWeight: null,
      bitsPerWeightOverall: null,
    });
  });
});
