import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fitTransitions, smoothBoundaries, smoothnessScores } from "../../dist/plan/time-smoothing.js";

const someLog = fc.double({ min: -8, max: 8, noNaN: true });
const sequence = fc
  .array(fc.record({ value: someLog, weight: fc.double({ min: 0.01, max: 10, noNaN: true }) }), {
    minLength: 1,
    maxLength: 40,
  })
  .map((items) => ({ values: items.map(({ value }) => value), weights: items.map(({ weight }) => weight) }));
const penalty = fc.double({ min: 0, max: 100, noNaN: true });
const interpolation = fc.constantFrom("linear", "cubic", "sigmoid");

describe("smoothness scores", () => {
  it("are the same up and down, at any magnitude, and add up along a monotone sequence", () => {
    fc.assert(
      fc.property(fc.array(someLog, { minLength: 2, maxLength: 20 }), someLog, (logs, shift) => {
        const scores = smoothnessScores(logs.map(Math.exp));
        const mirrored = smoothnessScores(logs.map((log) => Math.exp(shift - log)));
        for (const [index, score] of scores.entries()) expect(mirrored[index]).toBeCloseTo(score, 9);
        const rising = logs.toSorted((a, b) => a - b);
        const total = smoothnessScores(rising.map(Math.exp)).reduce((sum, score) => sum + score, 0);
        expect(total).toBeCloseTo((rising.at(-1) as number) - (rising[0] as number), 9);
      }),
    );
  });
});

describe("the fit of transitions", () => {
  const cost = (x: readonly number[], y: readonly number[], n: readonly number[], lambda: number): number =>
    x.reduce((sum, value, k) => {
      const step = k === 0 ? 0 : value - (x[k - 1] as number);
      return sum + (n[k] as number) * (value - (y[k] as number)) ** 2 + lambda * step * step;
    }, 0);

  it("has a gradient of zero: nothing costs less", () => {
    fc.assert(
      fc.property(sequence, penalty, ({ values, weights }, lambda) => {
        const fitted = fitTransitions(values, weights, lambda);
        const at = (k: number): number => fitted[k] as number;
        for (const [k, x] of fitted.entries()) {
          const below = k === 0 ? 0 : x - at(k - 1);
          const above = k === fitted.length - 1 ? 0 : at(k + 1) - x;
          const gradient = (weights[k] as number) * (x - (values[k] as number)) + lambda * (below - above);
          expect(Math.abs(gradient)).toBeLessThan(1e-8 * (1 + lambda));
        }
        const least = cost(fitted, values, weights, lambda);
        expect(least).toBeLessThanOrEqual(cost(values, values, weights, lambda) + 1e-9);
        for (const k of fitted.keys()) {
          const moved = fitted.with(k, at(k) + 1e-3);
          expect(cost(moved, values, weights, lambda)).toBeGreaterThan(least);
        }
      }),
    );
  });

  it("is the values without a penalty, and their weighted mean with an endless one", () => {
    fc.assert(
      fc.property(sequence, ({ values, weights }) => {
        for (const [k, x] of fitTransitions(values, weights, 0).entries())
          expect(x).toBeCloseTo(values[k] as number, 9);
        const total = weights.reduce((sum, weight) => sum + weight, 0);
        const mean = values.reduce((sum, value, k) => sum + value * (weights[k] as number), 0) / total;
        for (const x of fitTransitions(values, weights, 1e9)) expect(x).toBeCloseTo(mean, 3);
      }),
    );
  });
});

describe("smoothed boundaries", () => {
  it("keep equal values, stay between their neighbours, and never roughen a step without being asked", () => {
    fc.assert(
      fc.property(sequence, fc.integer({ min: 1, max: 5 }), interpolation, ({ values, weights }, window, by) => {
        const smoothed = smoothBoundaries(values, weights, { window, interpolation: by });
        for (const [k, value] of smoothed.entries()) {
          const near = values.slice(Math.max(0, k - window), k + window + 1);
          expect(value).toBeGreaterThanOrEqual(Math.min(...near) - 1e-9);
          expect(value).toBeLessThanOrEqual(Math.max(...near) + 1e-9);
        }
        const level = smoothBoundaries(
          values.map(() => 3),
          weights,
          { window, interpolation: by },
        );
        for (const value of level) expect(value).toBeCloseTo(3, 12);
      }),
    );
  });

  it("turn a step into a ramp as the interpolation has it", () => {
    const step = [0, 0, 0, 0, 1, 1, 1, 1];
    const weights = step.map(() => 1);
    const ramp = (by: "linear" | "cubic" | "sigmoid"): number[] =>
      smoothBoundaries(step, weights, { window: 1, interpolation: by });
    // Half a window away the weights are a half of the middle's: (½ · 1) / (½ + 1 + ½).
    for (const by of ["linear", "cubic", "sigmoid"] as const) {
      const weight = by === "sigmoid" ? 0.5 / (1 / (1 + Math.exp(-5)) + 1) : 0.25;
      expect(ramp(by)[3]).toBeCloseTo(weight, 12);
      expect(ramp(by).map((value, k) => value + (ramp(by)[7 - k] as number))).toEqual(step.map(() => 1));
    }
    expect(ramp("linear")).toEqual([0, 0, 0, 0.25, 0.75, 1, 1, 1]);
  });
});
