import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { classifyEntropy, normalizedEntropy } from "../../../dist/quantize/sensitivity/entropy.js";
import { errorOf } from "../../../dist/quantize/sensitivity/error.js";
import type { CandidateErrors, LayerSensitivity } from "../../../dist/quantize/sensitivity/table.js";

const histograms = fc
  .array(fc.nat({ max: 1000 }), { minLength: 256, maxLength: 256 })
  .filter((counts) => counts.some((count) => count > 0))
  .map((counts) => Float64Array.from(counts));

describe("normalised entropy", () => {
  it("is one of equal bins, zero of a single one, and between of all others", () => {
    expect(normalizedEntropy(new Float64Array(256).fill(7))).toBeCloseTo(1, 14);
    expect(normalizedEntropy(Float64Array.from({ length: 256 }, (_, bin) => (bin === 3 ? 9 : 0)))).toBe(0);
    fc.assert(
      fc.property(histograms, (counts) => {
        const entropy = normalizedEntropy(counts);
        expect(entropy).toBeGreaterThanOrEqual(0);
        expect(entropy).toBeLessThanOrEqual(1 + 1e-12);
      }),
    );
  });

  it("takes one eighth for each halving of the bins that are used", () => {
    for (let bits = 0; bits <= 8; bits++) {
      const counts = Float64Array.from({ length: 256 }, (_, bin) => (bin < 2 ** bits ? 5 : 0));
      expect(normalizedEntropy(counts)).toBeCloseTo(bits / 8, 14);
    }
  });

  it("has the classes of the old heuristic", () => {
    expect([0, 0.499, 0.5, 0.699, 0.7, 1].map(classifyEntropy)).toEqual([
      "low",
      "low",
      "medium",
      "medium",
      "high",
      "high",
    ]);
  });

  it("makes a class worth a bit", () => {
    const layer = { name: "a", parameterCount: 10, entropy: 0.6, outputShare: null, candidates: [] } as const;
    const at = (bits: 2 | 3 | 4, entropyClass: LayerSensitivity["entropyClass"]) =>
      errorOf({ ...layer, entropyClass }, { spec: { bits } } as CandidateErrors, "entropy") as number;
    expect(at(3, "medium")).toBeCloseTo(at(2, "low"), 12);
    expect(at(4, "high")).toBeCloseTo(at(3, "medium"), 12);
  });
});
