import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { chooseRange, rangeOf, squaredError } from "../../dist/plan/activation-range.js";
import {
  type Distribution,
  emptyDistribution,
  integrate,
  joinDistributions,
  quantile,
} from "../../dist/plan/distribution.js";
import { type InputStatistics, inputDistributions } from "../../dist/plan/input-distributions.js";
import type { ActivationSettings } from "../../dist/plan/plan.js";
import { findTimeGroup, optimalStarts, planTimeGroups, uniformStarts } from "../../dist/plan/time-groups.js";
import { distributionOf, someValues } from "./distributions.js";

const SETTINGS: ActivationSettings = {
  bits: 4,
  mode: "time",
  groups: "optimal",
  groupCount: 3,
  range: "minmax",
  percentile: 99,
  boundarySmoothing: null,
  transitionWeight: null,
  smoothnessThreshold: 0.3,
};

const binsOf = (count: number): { start: number; end: number }[] =>
  Array.from({ length: count }, (_, index) => ({ start: index * 10 - 5, end: index * 10 + 5 }));

const someBins = fc.array(
  someValues.map((values) => distributionOf(values)),
  { minLength: 1, maxLength: 8 },
);
const someMethod = fc.record({
  bits: fc.constantFrom(4, 8),
  range: fc.constantFrom("minmax", "percentile", "mse"),
  percentile: fc.constantFrom(90, 99),
});

/** Error of a partition, run by run. */
function errorOf(bins: readonly Distribution[], starts: readonly number[], method: Parameters<typeof chooseRange>[1]) {
  return starts.reduce((sum, start, index) => {
    const run = bins.slice(start, starts[index + 1] ?? bins.length);
    return sum + chooseRange(joinDistributions(run), method).error;
  }, 0);
}

/** Every way to cut `count` bins into `groups` runs. */
function partitions(count: number, groups: number): number[][] {
  if (groups === 1) return [[0]];
  const found: number[][] = [];
  for (let last = groups - 1; last < count; last++) {
    for (const starts of partitions(last, groups - 1)) found.push([...starts, last]);
  }
  return found;
}

describe("optimal groups", () => {
  it("are the best of all partitions, and never worse than uniform ones", () => {
    fc.assert(
      fc.property(someBins, fc.integer({ min: 1, max: 8 }), someMethod, (bins, wanted, method) => {
        const groups = Math.min(wanted, bins.length);
        const starts = optimalStarts(bins, groups, method);
        expect(starts).toHaveLength(groups);
        expect(starts[0]).toBe(0);
        const error = errorOf(bins, starts, method);
        const all = partitions(bins.length, groups).map((partition) => errorOf(bins, partition, method));
        const least = Math.min(...all);
        expect(error).toBeLessThanOrEqual(least * (1 + 1e-9) + 1e-15);
        expect(error).toBeLessThanOrEqual(
          errorOf(bins, uniformStarts(bins.length, groups), method) * (1 + 1e-9) + 1e-15,
        );
      }),
      { numRuns: 40 },
    );
  });

  it("find the steps of a signal that has steps", () => {
    const level = (size: number): Distribution => distributionOf([-size, size / 3, size]);
    const bins = [...Array(5).fill(level(1)), ...Array(2).fill(level(9)), ...Array(4).fill(level(3))] as Distribution[];
    expect(optimalStarts(bins, 3, SETTINGS)).toEqual([0, 5, 7]);
    expect(uniformStarts(bins.length, 3)).toEqual([0, 3, 7]);
  });
});

describe("time groups", () => {
  it("cover all times in order, are never more than asked or than bins, and give zero back as zero", () => {
    const bins = fc.array(fc.oneof({ weight: 4, arbitrary: someValues }, fc.constant<number[]>([])), {
      minLength: 1,
      maxLength: 12,
    });
    const settings = fc.record({
      ...Object.fromEntries(Object.entries(SETTINGS).map(([key, value]) => [key, fc.constant(value)])),
      groups: fc.constantFrom("uniform", "optimal"),
      groupCount: fc.integer({ min: 1, max: 20 }),
      range: fc.constantFrom("minmax", "percentile", "mse"),
      boundarySmoothing: fc.constantFrom(null, { window: 2, interpolation: "cubic" }),
      transitionWeight: fc.constantFrom(null, 1),
    }) as fc.Arbitrary<ActivationSettings>;
    fc.assert(
      fc.property(bins, settings, (valuesOfBins, chosen) => {
        const distributions = valuesOfBins.map((values) =>
          values.length === 0 ? emptyDistribution() : distributionOf(values),
        );
        const { groups, smoothness, error, energy } = planTimeGroups(
          distributions,
          binsOf(distributions.length),
          chosen,
        );
        const filled = valuesOfBins.filter((values) => values.length > 0).length;
        expect(groups).toHaveLength(Math.max(1, Math.min(chosen.groupCount, filled)));
        expect(smoothness).toHaveLength(groups.length - 1);
        expect(groups[0]?.timeRange.start).toBe(-5);
        expect(groups.at(-1)?.timeRange.end).toBe(distributions.length * 10 - 5);
        for (const [index, { timeRange, scale, zeroPoint }] of groups.entries()) {
          expect(timeRange.start).toBeLessThan(timeRange.end);
          if (index > 0) expect(timeRange.start).toBe(groups[index - 1]?.timeRange.end);
          expect(scale).toBe(Math.fround(scale));
          expect(scale).toBeGreaterThan(0);
          expect(Number.isInteger(zeroPoint) && zeroPoint >= 0 && zeroPoint < 16).toBe(true);
        }
        expect(error).toBeGreaterThanOrEqual(0);
        expect(Number.isFinite(energy)).toBe(true);
      }),
    );
  });

  it("of one range for all times is a single group of the joint minimum and maximum", () => {
    fc.assert(
      fc.property(someBins, (bins) => {
        const { groups } = planTimeGroups(bins, binsOf(bins.length), { ...SETTINGS, mode: "static", groupCount: 5 });
        const { min, max } = joinDistributions(bins);
        expect(groups).toEqual([
          { timeRange: { start: -5, end: bins.length * 10 - 5 }, ...rangeOf(min, max, 4), groupSize: null },
        ]);
      }),
    );
  });

  it("are looked up by time, times outside by the nearest", () => {
    const { groups } = planTimeGroups(
      [1, 2, 4].map((size) => distributionOf([-size, size])),
      binsOf(3),
      SETTINGS,
    );
    expect([-1e9, -5, 4.99, 5, 14, 15, 24.9, 25, 1e9].map((time) => findTimeGroup(groups, time))).toEqual([
      0, 0, 0, 1, 1, 2, 2, 2, 2,
    ]);
  });

  it("smoothing leaves equal groups alone, flattens steps, and rough steps are named", () => {
    const steps = [1, 1, 8, 8].map((size) => distributionOf([-size, size / 2, size]));
    const rough = planTimeGroups(steps, binsOf(4), { ...SETTINGS, groupCount: 4 });
    expect(rough.roughSteps).toEqual([1]);
    expect(rough.smoothness[1]).toBeCloseTo(Math.log(8), 6);
    const smoothed = [
      { ...SETTINGS, groupCount: 4, boundarySmoothing: { window: 1, interpolation: "linear" as const } },
      { ...SETTINGS, groupCount: 4, transitionWeight: 2 },
    ].map((settings) => planTimeGroups(steps, binsOf(4), settings));
    for (const { smoothness, error } of smoothed) {
      expect(Math.max(...smoothness)).toBeLessThan(0.6 * Math.log(8));
      expect(error).toBeGreaterThan(rough.error);
    }
    const level = [3, 3, 3].map((size) => distributionOf([-size, size]));
    const plain = planTimeGroups(level, binsOf(3), SETTINGS);
    expect(planTimeGroups(level, binsOf(3), { ...SETTINGS, transitionWeight: 50 }).groups).toEqual(plain.groups);
  });
});

describe("distributions of a layer's input", () => {
  /** Statistics of explicit values [T][C][n]. */
  function statisticsOf(bins: readonly (readonly (readonly number[])[])[]): InputStatistics {
    const joined = bins.map((channels) => distributionOf(channels.flat()));
    const each = (reduce: (values: readonly number[]) => number): Float32Array =>
      Float32Array.from(bins.flatMap((channels) => channels.map(reduce)));
    const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
    return {
      channels: bins[0]?.length ?? 0,
      min: each((values) => Math.min(...values)),
      max: each((values) => Math.max(...values)),
      mean: each(mean),
      meansq: each((values) => mean(values.map((value) => value * value))),
      count: Float64Array.from(bins, (channels) => channels[0]?.length ?? 0),
      histogram: Uint32Array.from(joined.flatMap(({ counts }) => [...counts])),
      histogramExponent: Int32Array.from(joined, ({ exponent }) => exponent),
    };
  }

  /** Bell-shaped, or rectified, of a size per channel. */
  const channel = (size: number, offset: number, isRectified: boolean, count: number): number[] =>
    Array.from({ length: count }, (_, index) => {
      const part = (index + 0.5) / count;
      // Logistic: nearly normal, in closed form.
      const value = Math.fround(offset + size * 0.55 * Math.log(part / (1 - part)));
      return isRectified ? Math.max(value, Math.fround(offset - 0.17 * size)) : value;
    });

  it("are the measured ones where nothing divides them", () => {
    const statistics = statisticsOf([[channel(1, 0, false, 50)], [channel(7, 1, true, 50)]]);
    const [first, second] = inputDistributions(statistics, null) as [Distribution, Distribution];
    expect(first).toEqual(distributionOf(channel(1, 0, false, 50)));
    expect(second.max).toBe(Math.max(...channel(7, 1, true, 50)));
  });

  it("divided, have the exact ends of the divided values, and their shape to a twelfth", () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            size: fc.constantFrom(0.1, 0.5, 1, 4, 20),
            offset: fc.constantFrom(-1, 0, 0.3),
            isRectified: fc.boolean(),
            divisor: fc.constantFrom(0.25, 0.5, 1, 2, 8),
          }),
          { minLength: 1, maxLength: 12 },
        ),
        (channels) => {
          const values = channels.map(({ size, offset, isRectified }) => channel(size, offset, isRectified, 400));
          const smoothing = Float32Array.from(channels, ({ divisor }) => divisor);
          const [modelled] = inputDistributions(statisticsOf([values]), smoothing) as [Distribution];
          const divided = values.flatMap((ofChannel, index) =>
            ofChannel.map((value) => value / (smoothing[index] as number)),
          );
          const truth = distributionOf(divided);
          expect([modelled.min, modelled.max]).toEqual([truth.min, truth.max]);
          expect(modelled.counts.reduce((sum, count) => sum + count, 0)).toBeCloseTo(divided.length, 6);
          // As far apart as Lévy's distance says: so much of the weight, so much of the range.
          const slack = 0.08 * (truth.max - truth.min) + 1e-9;
          for (const part of [0.1, 0.3, 0.5, 0.7, 0.9]) {
            const low = quantile(integrate(truth), part - 0.08) - slack;
            const high = quantile(integrate(truth), part + 0.08) + slack;
            const found = quantile(integrate(modelled), part);
            expect(found).toBeGreaterThanOrEqual(low);
            expect(found).toBeLessThanOrEqual(high);
          }
          // What ranges are chosen by: of 3000 such cases, the model's least-squares range had 1.56 times the least
          // error of the truth at most.
          const method = { bits: 4, range: "mse", percentile: 99 } as const;
          const { error } = chooseRange(truth, method);
          const chosen = squaredError(integrate(truth), chooseRange(modelled, method), 4);
          expect(chosen).toBeLessThanOrEqual(2 * error);
        },
      ),
      { numRuns: 40 },
    );
  });

  it("bins that nothing passed stay empty", () => {
    const statistics = statisticsOf([[channel(1, 0, false, 50)], [channel(1, 0, false, 50)]]);
    const holed = { ...statistics, count: Float64Array.of(50, 0) };
    for (const smoothing of [null, Float32Array.of(2)]) {
      expect(inputDistributions(holed, smoothing)[1]).toEqual(emptyDistribution());
    }
  });
});
