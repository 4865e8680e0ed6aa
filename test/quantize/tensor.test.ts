import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { ArrowQuantError } from "../../dist/errors.js";
import { quantizeTensor, rebuildTensor } from "../../dist/quantize/tensor.js";
import { gaussians } from "../kernels/harness.js";

describe("quantizeTensor", () => {
  it("does what profile local does where nothing is said", () => {
    const found = quantizeTensor(gaussians(8 * 2048, 1), { shape: [8, 2048] });
    expect(found.spec).toMatchObject({
      bits: 4,
      groupSize: 128,
      method: "hqq",
      scaleBits: 6,
      zeroPointBits: 6,
      superGroupSize: 1024,
    });
    expect(found.data.length).toBe(8 * 1024);
    expect(found.scales.length).toBe(8 * 2);
    expect(found.scaleCodes?.length).toBe(8 * 12);
    expect(found.zeroPointCodes?.length).toBe(8 * 12);
    expect(found.zeroPoints).toBeNull();
    expect(found.metrics.cosineSimilarity).toBeGreaterThan(0.99);
  });

  it("measures what rebuildTensor gives back, at any size", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 3 }),
        fc.integer({ min: 1, max: 20 }),
        fc.integer({ min: 1, max: 9 }),
        fc.constantFrom("rtn" as const, "r2q" as const),
        (rows, channels, kernel, method) => {
          const shape = [rows, channels, kernel];
          const weights = gaussians(rows * channels * kernel, 7);
          const found = quantizeTensor(weights, { shape, method, bits: 2, groupSize: 32 });
          const rebuilt = rebuildTensor(found);
          const error = weights.reduce((sum, w, i) => sum + (w - (rebuilt[i] as number)) ** 2, 0);
          expect(found.metrics.errorNorm2).toBeCloseTo(error, 12);
        },
      ),
    );
  });

  it("goes slab by slab through tensors larger than a slab", () => {
    const weights = gaussians(300 * 2000, 2);
    const float = { scaleBits: null, zeroPointBits: null };
    const found = quantizeTensor(weights, {
      shape: [300, 2000],
      method: "rtn",
      bits: 8,
      groupSize: 64,
      ...float,
    });
    const rebuilt = rebuildTensor(found);
    const worst = weights.reduce((most, w, i) => Math.max(most, Math.abs(w - (rebuilt[i] as number))), 0);
    expect(worst).toBe(found.metrics.maxAbsError);
    expect(worst).toBeLessThan(0.0015);
  });

  it.each<[string, () => unknown, string, RegExp]>([
    ["a shape of one dimension", () => quantizeTensor(new Float32Array(4), { shape: [4] }), "E_SHAPE", /\[4\]/],
    [
      "a shape of another size",
      () => quantizeTensor(new Float32Array(5), { shape: [2, 3] }),
      "E_SHAPE",
      /6 elements, 5/,
    ],
    ["no elements", () => quantizeTensor(new Float32Array(0), { shape: [0, 3] }), "E_SHAPE", /0 elements/],
    ["a group size", () => quantizeTensor(new Float32Array(4), { shape: [2, 2], groupSize: 7 }), "E_CONFIG", /7/],
    [
      "NaN",
      () => quantizeTensor(Float32Array.of(1, 2, 3, NaN), { shape: [2, 2] }),
      "E_NONFINITE",
      /row 1, column 1 is NaN/,
    ],
  ])("refuses %s", (_, work, code, message) => {
    expect(work).toThrow(message);
    try {
      work();
    } catch (error) {
      expect((error as ArrowQuantError).code).toBe(code);
    }
  });
});
