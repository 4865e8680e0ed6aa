import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { tensors } from "./arbitraries.js";
import {
  compare,
  floatSource,
  gaussians,
  KERNEL_BUILDS,
  quantize,
  rebuildFloats,
  specOf,
  storedOf,
} from "./harness.js";
import { referenceSums } from "./reference.js";

describe.each(KERNEL_BUILDS)("error sums, %s", (build) => {
  it("are those of the rebuilt weights, in float64", () => {
    fc.assert(
      fc.property(tensors(["rtn", "r2q"]), ({ spec, rows, cols, values }) => {
        const found = quantize(build, floatSource(values, cols), spec);
        const expected = referenceSums(values, rebuildFloats(build, storedOf(found, spec, rows, cols)));
        const { sums } = found;
        const near = (a: number, b: number, size: number) => expect(Math.abs(a - b)).toBeLessThanOrEqual(1e-12 * size);
        near(sums.sourceNorm2, expected.sourceNorm2, expected.sourceNorm2);
        near(sums.rebuiltNorm2, expected.rebuiltNorm2, expected.rebuiltNorm2);
        near(sums.errorNorm2, expected.errorNorm2, expected.errorNorm2);
        near(sums.dot, expected.dot, expected.sourceNorm2 + expected.rebuiltNorm2);
        expect(sums.maxAbsError).toBe(expected.maxAbsError);
      }),
      { numRuns: 200 },
    );
  });

  it("add up over chunks", () => {
    const values = gaussians(6 * 77, 5);
    const spec = specOf();
    const whole = quantize(build, floatSource(values, 77), spec).sums;
    const parts = [values.subarray(0, 154), values.subarray(154)].map(
      (part) => quantize(build, floatSource(part, 77), spec).sums,
    );
    const [first, second] = parts as [typeof whole, typeof whole];
    expect(first.errorNorm2 + second.errorNorm2).toBeCloseTo(whole.errorNorm2, 14);
    expect(Math.max(first.maxAbsError, second.maxAbsError)).toBe(whole.maxAbsError);
  });

  it("tell a changed source from the one that was quantized", () => {
    const values = gaussians(2 * 50, 8);
    const spec = specOf();
    const found = quantize(build, floatSource(values, 50), spec);
    const stored = storedOf(found, spec, 2, 50);
    values[99] = (values[99] as number) + 1;
    expect(compare(build, stored, floatSource(values, 50)).maxAbsError).toBeGreaterThan(0.9);
  });

  it("are zero errors and equal norms where the weights lie on the levels", () => {
    const values = Float32Array.from({ length: 64 }, (_, i) => (i % 16) / 8 - 1);
    const { sums } = quantize(build, floatSource(values, 64), specOf({ groupSize: 16 }));
    expect(sums.errorNorm2).toBe(0);
    expect(sums.maxAbsError).toBe(0);
    expect(sums.dot).toBe(sums.sourceNorm2);
    expect(sums.rebuiltNorm2).toBe(sums.sourceNorm2);
  });
});
