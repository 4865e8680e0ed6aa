/** Histograms of weights: every weight in the bin that its place in the range gives, in both builds. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { WeightHistogram } from "../../dist/kernels/weight-histogram.js";
import { bytesOf, KERNEL_BUILDS, kernelsOf } from "./harness.js";

const cases = fc
  .record({
    rows: fc.integer({ min: 1, max: 5 }),
    cols: fc.integer({ min: 1, max: 70 }),
    slabRows: fc.integer({ min: 1, max: 5 }),
    bins: fc.integer({ min: 1, max: 256 }),
  })
  .chain((shape) => {
    const size = { minLength: shape.rows * shape.cols, maxLength: shape.rows * shape.cols };
    const values = fc.oneof(
      fc.float32Array({ ...size, min: -1, max: 1, noNaN: true }),
      // Few values, often all the same.
      fc.int8Array({ ...size, min: -1, max: 1 }).map((whole) => Float32Array.from(whole, (each) => each / 3)),
      fc.float32Array({ ...size, min: -(2 ** 100), max: 2 ** 100, noNaN: true }),
    );
    return values.map((weights) => ({ ...shape, weights }));
  });

describe.each(KERNEL_BUILDS)("a histogram of weights, %s", (build) => {
  it("holds every weight once, in its place between the least and the largest", () => {
    fc.assert(
      fc.property(cases, ({ rows, cols, slabRows, bins, weights }) => {
        const shape = { cols, slabRows, dtype: "F32", sourceScale: "none", bins } as const;
        const histogram = new WeightHistogram(kernelsOf(build), shape);
        for (const step of ["widen", "count"] as const) {
          for (let row = 0; row < rows; row += slabRows) {
            const rowCount = Math.min(slabRows, rows - row);
            histogram.source(rowCount).set(bytesOf(weights.slice(row * cols, (row + rowCount) * cols)));
            expect(histogram[step](rowCount) ?? null).toBeNull();
          }
        }
        const [least, largest] = [Math.min(...weights), Math.max(...weights)];
        const expected = new Float64Array(bins);
        for (const weight of weights) {
          const place = largest > least ? (weight - least) * (bins / (largest - least)) : 0;
          const bin = Math.min(bins - 1, Math.floor(place));
          expected[bin] = (expected[bin] as number) + 1;
        }
        expect(histogram.counts()).toEqual(expected);
      }),
      { numRuns: 200 },
    );
  });

  it("says which weight has no place", () => {
    const shape = { cols: 3, slabRows: 2, dtype: "F32", sourceScale: "none", bins: 4 } as const;
    const histogram = new WeightHistogram(kernelsOf(build), shape);
    histogram.source(2).set(bytesOf(Float32Array.of(1, 2, 3, 4, Number.NaN, 6)));
    expect(histogram.widen(2)).toEqual({ row: 1, col: 1, value: Number.NaN });
  });
});
