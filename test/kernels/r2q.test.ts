import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { tensors } from "./arbitraries.js";
import { floatSource, gaussians, KERNEL_BUILDS, quantize, rebuildFloats, specOf, storedOf } from "./harness.js";
import { unpackBits } from "./reference.js";

const f32 = Math.fround;

function squaredError(values: Float32Array, rebuilt: ArrayLike<number>): number {
  return values.reduce((sum, w, i) => sum + (w - (rebuilt[i] as number)) ** 2, 0);
}

/** Least squared error of any four levels ±a ± b: the best split of the sorted magnitudes in two. */
function bestError(values: Float32Array): number {
  const sorted = Float64Array.from(values, Math.abs).sort();
  const spread = (part: Float64Array) => {
    const mean = part.reduce((sum, x) => sum + x, 0) / Math.max(1, part.length);
    return part.reduce((sum, x) => sum + (x - mean) ** 2, 0);
  };
  let best = Infinity;
  for (let split = 0; split <= sorted.length; split++) {
    best = Math.min(best, spread(sorted.subarray(0, split)) + spread(sorted.subarray(split)));
  }
  return best;
}

describe.each(KERNEL_BUILDS)("r2q, %s", (build) => {
  it("codes each weight to the nearest of its group's four stored levels", () => {
    fc.assert(
      fc.property(tensors(["r2q"]), ({ spec, rows, cols, values }) => {
        const found = quantize(build, floatSource(values, cols), spec);
        const rebuilt = rebuildFloats(build, storedOf(found, spec, rows, cols));
        const scaleBits = spec.scaleBits as number;
        const groups = Math.ceil(cols / spec.groupSize);
        const perSuper = (spec.superGroupSize as number) / spec.groupSize;
        const supers = Math.ceil(groups / perSuper);
        const codeBytes = Math.ceil((groups * scaleBits) / 8);
        for (let row = 0; row < rows; row++) {
          const codesOf = (packed: Uint8Array) =>
            unpackBits(packed.subarray(row * codeBytes, (row + 1) * codeBytes), groups, scaleBits);
          const first = codesOf(found.scaleCodes as Uint8Array);
          const second = codesOf(found.residualScaleCodes as Uint8Array);
          for (let col = 0; col < cols; col++) {
            const g = Math.floor(col / spec.groupSize);
            const S = found.scales[row * supers + Math.floor(g / perSuper)] as number;
            const [a, b] = [f32(S * (first[g] as number)), f32(S * (second[g] as number))];
            expect(a).toBeGreaterThanOrEqual(b);
            const w = values[row * cols + col] as number;
            const errors = [a + b, a - b, b - a, -a - b].map((level) => Math.abs(w - f32(level)));
            const error = Math.abs(w - (rebuilt[row * cols + col] as number));
            // Levels are float32, so at a midpoint the other neighbour may be nearer by a rounding.
            expect(error).toBeLessThanOrEqual(Math.min(...errors) * (1 + 1e-6) + Math.abs(w) * 1e-6);
          }
        }
      }),
      { numRuns: 60 },
    );
  });

  it("comes within a twentieth of the best four levels ±a ± b of normal weights, over 50 groups", () => {
    fc.assert(
      fc.property(fc.integer(), (seed) => {
        const values = gaussians(50 * 128, seed);
        const spec = specOf({
          method: "r2q",
          bits: 2,
          scaleBits: 8,
          groupSize: 128,
          superGroupSize: 128,
        });
        const { errorNorm2 } = quantize(build, floatSource(values, 6400), spec).sums;
        let best = 0;
        for (let at = 0; at < 6400; at += 128) best += bestError(values.subarray(at, at + 128));
        expect(errorNorm2).toBeGreaterThanOrEqual(best * (1 - 1e-6));
        expect(errorNorm2).toBeLessThanOrEqual(best * 1.05);
      }),
      { numRuns: 20 },
    );
  });

  it("is never worse than one bit with the mean magnitude, coded scales aside", () => {
    fc.assert(
      fc.property(tensors(["r2q"]), ({ spec, rows, cols, values }) => {
        const found = quantize(build, floatSource(values, cols), { ...spec, superGroupSize: spec.groupSize });
        const rebuilt = rebuildFloats(build, storedOf(found, { ...spec, superGroupSize: spec.groupSize }, rows, cols));
        const groups = Math.ceil(cols / spec.groupSize);
        for (let g = 0; g < rows * groups; g++) {
          const start = Math.floor(g / groups) * cols + (g % groups) * spec.groupSize;
          const end = Math.min(start + spec.groupSize, (Math.floor(g / groups) + 1) * cols);
          const group = values.subarray(start, end);
          const mean = group.reduce((sum, w) => sum + Math.abs(w), 0) / group.length;
          const oneBit = squaredError(
            group,
            Array.from(group, (w) => (w < 0 ? -mean : mean)),
          );
          // Each of the two scales is off by half of S at most.
          const coding = (found.scales[g] as number) * Math.sqrt(group.length);
          const error = squaredError(group, rebuilt.subarray(start, end));
          expect(Math.sqrt(error)).toBeLessThanOrEqual(
            Math.sqrt(oneBit) * (1 + 1e-5) + coding * (1 + 1e-5) + 2 ** -140 * group.length,
          );
        }
      }),
      { numRuns: 60 },
    );
  });

  it("finds levels that are there, exactly", () => {
    const levels = [340, 170, -170, -340];
    const values = Float32Array.from({ length: 64 }, (_, i) => levels[(i * 7 + (i >> 3)) % 4] as number);
    const spec = specOf({ method: "r2q", bits: 2, scaleBits: 8 });
    const found = quantize(build, floatSource(values, 64), spec);
    expect(found.sums.errorNorm2).toBe(0);
    expect(found.scales).toEqual(Float32Array.of(1));
    expect([...(found.scaleCodes as Uint8Array)]).toEqual([255, 255]);
    expect([...(found.residualScaleCodes as Uint8Array)]).toEqual([85, 85]);
  });

  it("rebuilds zero groups to zeros, also beside others in a super-group", () => {
    const values = gaussians(128, 4);
    values.fill(0, 32, 64);
    const spec = specOf({ method: "r2q", bits: 2, scaleBits: 6 });
    const found = quantize(build, floatSource(values, 128), spec);
    expect(
      rebuildFloats(build, storedOf(found, spec, 1, 128))
        .subarray(32, 64)
        .every((v) => v === 0),
    ).toBe(true);
  });

  it("does not ask for columns without importance", () => {
    const spec = specOf({ method: "r2q", bits: 2, scaleBits: 8, groupSize: 32 });
    const values = gaussians(2 * 64, 6);
    const important = Float32Array.from({ length: 64 }, (_, i) => (i % 32 < 16 ? 1 : 0));
    const outliers = values.map((w, i) => (i % 32 < 16 ? w : 50 * w));
    const a = quantize(build, { ...floatSource(values, 64), importance: important }, spec);
    const b = quantize(build, { ...floatSource(outliers, 64), importance: important }, spec);
    expect(b.scales).toEqual(a.scales);
    expect(b.scaleCodes).toEqual(a.scaleCodes);
    expect(b.residualScaleCodes).toEqual(a.residualScaleCodes);
    const ones = quantize(build, { ...floatSource(values, 64), importance: new Float32Array(64).fill(1) }, spec);
    const plain = quantize(build, floatSource(values, 64), spec);
    expect(ones.data).toEqual(plain.data);
    expect(ones.scaleCodes).toEqual(plain.scaleCodes);
    expect(a.scales).not.toEqual(plain.scales);
  });
});
