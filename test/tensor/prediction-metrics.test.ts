/** Error of predictions: formulas by hand, conventions at zero, and what they must not depend on. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { addOutputSums, deriveOutputMetrics } from "../../dist/tensor/metrics.js";
import { cosine, psnr, relativeError, sumPrediction } from "../../dist/tensor/prediction-metrics.js";

const floats = (...values: number[]) => Float32Array.from(values);

it("by hand", () => {
  // ‖(1, 2, 2) − (1, 2, −2)‖ = 4, ‖(1, 2, −2)‖ = 3, their product 1.
  const prediction = floats(1, 2, 2);
  const reference = floats(1, 2, -2);
  expect(relativeError(prediction, reference)).toBeCloseTo(4 / 3, 15);
  expect(cosine(prediction, reference)).toBeCloseTo(1 / 9, 15);
  // Mean squared error 16/3 on a range of 2: 10·log10(4·3/16).
  expect(psnr(prediction, reference, 2)).toBeCloseTo(-1.2493873660829995, 12);
});

it.each([
  { name: "two zero vectors", prediction: floats(0, 0), reference: floats(0, 0), error: 0, similarity: 1 },
  { name: "a zero prediction", prediction: floats(0, 0), reference: floats(3, 4), error: 1, similarity: 0 },
  { name: "a zero reference", prediction: floats(3, 4), reference: floats(0, 0), error: Infinity, similarity: 0 },
])("$name", ({ prediction, reference, error, similarity }) => {
  expect(relativeError(prediction, reference)).toBe(error);
  expect(cosine(prediction, reference)).toBe(similarity);
});

it("no error has no end of decibels", () => {
  expect(psnr(floats(0.5, -1), floats(0.5, -1), 2)).toBe(Infinity);
});

it("a NaN is not lost", () => {
  expect(relativeError(floats(1, NaN), floats(1, 1))).toBeNaN();
  expect(cosine(floats(1, NaN), floats(1, 1))).toBeNaN();
  expect(psnr(floats(1, NaN), floats(1, 1), 2)).toBeNaN();
});

it("lengths must agree", () => {
  expect(() => relativeError(floats(1), floats(1, 2))).toThrow(expect.objectContaining({ code: "E_SHAPE" }));
});

describe("for any vectors", () => {
  const pair = fc
    .integer({ min: 1, max: 20 })
    .chain((length) =>
      fc.tuple(
        ...[0, 1].map(() =>
          fc.array(fc.float({ min: -100, max: 100, noNaN: true }), { minLength: length, maxLength: length }),
        ),
      ),
    )
    .map(([a, b]) => [Float32Array.from(a as number[]), Float32Array.from(b as number[])] as const)
    .filter(([a, b]) => a.some((x) => Math.abs(x) > 1e-3) && b.some((x) => Math.abs(x) > 1e-3));

  it("parts add up to the whole", () => {
    fc.assert(
      fc.property(pair, fc.nat({ max: 20 }), ([a, b], cut) => {
        const total = sumPrediction(a.subarray(0, cut), b.subarray(0, cut));
        addOutputSums(total, sumPrediction(a.subarray(cut), b.subarray(cut)));
        const { relativeError: error, cosineSimilarity } = deriveOutputMetrics(total);
        expect(error).toBeCloseTo(relativeError(a, b), 10);
        expect(cosineSimilarity).toBeCloseTo(cosine(a, b), 10);
      }),
    );
  });

  it("the unit does not matter", () => {
    fc.assert(
      fc.property(pair, ([a, b]) => {
        const [twiceA, twiceB] = [a.map((x) => 2 * x), b.map((x) => 2 * x)];
        expect(relativeError(twiceA, twiceB)).toBeCloseTo(relativeError(a, b), 10);
        expect(cosine(twiceA, twiceB)).toBeCloseTo(cosine(a, b), 10);
        expect(psnr(twiceA, twiceB, 4)).toBeCloseTo(psnr(a, b, 2), 10);
      }),
    );
  });
});
