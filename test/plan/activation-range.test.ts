import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  boundsOf,
  centreRange,
  chooseRange,
  type QuantRange,
  rangeOf,
  squaredError,
} from "../../dist/plan/activation-range.js";
import {
  DISTRIBUTION_BINS,
  type Distribution,
  emptyDistribution,
  integrate,
  joinDistributions,
  quantile,
} from "../../dist/plan/distribution.js";
import { distributionOf, someValues } from "./distributions.js";

/** FORMAT.md's formula. */
function rebuild(x: number, { scale, zeroPoint }: QuantRange, bits: number): number {
  const ratio = x / scale;
  const floor = Math.floor(ratio);
  const rounded = ratio - floor < 0.5 || (ratio - floor === 0.5 && floor % 2 === 0) ? floor : floor + 1;
  return (Math.min(2 ** bits - 1, Math.max(0, rounded + zeroPoint)) - zeroPoint) * scale;
}

/** Σ (x − x̂)² by brute force, each bin cut into slices. */
function slicedError({ counts, exponent }: Distribution, range: QuantRange, bits: number, slices: number): number {
  const width = (2 * 2 ** exponent) / DISTRIBUTION_BINS;
  let error = 0;
  for (const [bin, count] of counts.entries()) {
    if (count === 0) continue;
    for (let slice = 0; slice < slices; slice++) {
      const x = (bin - DISTRIBUTION_BINS / 2 + (slice + 0.5) / slices) * width;
      error += (count / slices) * (x - rebuild(x, range, bits)) ** 2;
    }
  }
  return error;
}

const someBits = fc.constantFrom(4, 5, 6, 8);
const distribution = someValues.map((values) => distributionOf(values));

describe("distributions", () => {
  it("add up to what their values together make, to the bin", () => {
    fc.assert(
      fc.property(someValues, someValues, (one, other) => {
        const together = joinDistributions([distributionOf(one), distributionOf(other)]);
        expect(together).toEqual(distributionOf([...one, ...other]));
        expect(joinDistributions([emptyDistribution(), distributionOf(one), emptyDistribution()])).toEqual(
          distributionOf(one),
        );
      }),
    );
  });

  it("of exponents far apart keep every value on its side of zero", () => {
    const sum = joinDistributions([distributionOf([-1e-30, 1e-30], -200), distributionOf([1e30])]);
    expect([sum.counts[1023], sum.counts[1024], sum.counts[2047]]).toEqual([1, 1, 0]);
    expect(sum.counts.reduce((total, count) => total + count, 0)).toBe(3);
    expect([sum.min, sum.max]).toEqual([-1e-30, 1e30]);
  });

  it("have the quantiles of their values, to a bin", () => {
    fc.assert(
      fc.property(someValues, fc.double({ min: 0, max: 1, noNaN: true }), (values, part) => {
        const given = distributionOf(values);
        const moments = integrate(given);
        const found = quantile(moments, part);
        const below = values.filter((value) => value < found - moments.binWidth).length;
        const upTo = values.filter((value) => value <= found + moments.binWidth).length;
        expect(below).toBeLessThanOrEqual(part * values.length + 1e-9);
        expect(upTo).toBeGreaterThanOrEqual(part * values.length - 1e-9);
      }),
    );
  });
});

describe("a range", () => {
  it("gives zero back as zero, and holds what it was made for up to half a step", () => {
    fc.assert(
      fc.property(fc.double({ min: -1e6, max: 1e6, noNaN: true }), fc.nat(1e6), someBits, (low, width, bits) => {
        const range = rangeOf(low, low + width, bits);
        expect(range.scale).toBe(Math.fround(range.scale));
        expect(range.scale).toBeGreaterThan(0);
        expect(Number.isInteger(range.zeroPoint) && range.zeroPoint >= 0 && range.zeroPoint < 2 ** bits).toBe(true);
        expect(rebuild(0, range, bits)).toBe(0);
        const reached = boundsOf(range, bits);
        const slack = (range.scale / 2) * (1 + 1e-4);
        expect(reached.low).toBeLessThanOrEqual(Math.min(low, 0) + slack);
        expect(reached.high).toBeGreaterThanOrEqual(Math.max(low + width, 0) - slack);
      }),
    );
  });

  it("of zeros alone, of denormals and of nothing is harmless", () => {
    expect(rangeOf(0, 0, 8)).toEqual({ scale: 1, zeroPoint: 0 });
    expect(chooseRange(emptyDistribution(), { bits: 4, range: "mse", percentile: 99 })).toMatchObject({ error: 0 });
    const tiny = rangeOf(-1e-42, 1e-42, 8);
    expect(Number.isFinite(1 / Math.fround(tiny.scale))).toBe(true);
  });

  it("keeps its zero point when its scale stays, and its middle when it moves", () => {
    fc.assert(
      fc.property(distribution, someBits, fc.double({ min: 0.3, max: 3, noNaN: true }), (given, bits, factor) => {
        const range = rangeOf(given.min, given.max, bits);
        const { low, high } = boundsOf(range, bits);
        expect(centreRange(low, high, range.scale, bits)).toEqual(range);
        const moved = boundsOf(centreRange(low, high, range.scale * factor, bits), bits);
        const isCornered = moved.low === 0 || moved.high === 0;
        if (!isCornered) {
          expect(Math.abs(moved.low + moved.high - low - high)).toBeLessThanOrEqual(range.scale * factor * 1.001);
        }
      }),
    );
  });
});

describe("the squared error of a range", () => {
  it("is what quantizing slice by slice gives", () => {
    fc.assert(
      fc.property(distribution, someBits, fc.double({ min: 0.2, max: 1.2, noNaN: true }), (given, bits, shrink) => {
        const range = rangeOf(given.min * shrink, given.max * shrink, bits);
        const exact = squaredError(integrate(given), range, bits);
        // A slice is as far off as its width, at worst on every value.
        const width = integrate(given).binWidth / 100;
        const total = given.counts.reduce((sum, count) => sum + count, 0);
        const slack = 4 * Math.sqrt(exact * total) * width + 4 * total * width * width;
        expect(Math.abs(exact - slicedError(given, range, bits, 100))).toBeLessThanOrEqual(slack);
      }),
      { numRuns: 20 },
    );
  });

  it("agrees with numpy on a normal sample (8 and 4 bits)", () => {
    // numpy 2.4: x = sqrt(2)·erfinv(2(i + ½)/10⁵ − 1), Σ (x − x̂)² for s = 8/(2^b − 1), z = 2^(b−1).
    const values = Array.from({ length: 100_000 }, (_, index) => normalQuantile((index + 0.5) / 100_000));
    const moments = integrate(distributionOf(values));
    expect(squaredError(moments, { scale: 8 / 255, zeroPoint: 128 }, 8)).toBeCloseTo(8.617, 1);
    expect(squaredError(moments, { scale: 8 / 15, zeroPoint: 8 }, 4)).toBeCloseTo(2371.06, 0);
  });
});

describe("a chosen range", () => {
  it("by minimum and maximum is that of the ends, exactly", () => {
    fc.assert(
      fc.property(distribution, someBits, (given, bits) => {
        const { error, ...range } = chooseRange(given, { bits, range: "minmax", percentile: 99 });
        expect(range).toEqual(rangeOf(given.min, given.max, bits));
        expect(error).toBe(squaredError(integrate(given), range, bits));
      }),
    );
  });

  it("by percentile lies within the ends and leaves out no more than it may", () => {
    fc.assert(
      fc.property(someValues, someBits, fc.double({ min: 50, max: 100, noNaN: true }), (values, bits, percentile) => {
        const given = distributionOf(values);
        const chosen = chooseRange(given, { bits, range: "percentile", percentile });
        expect(chosen.scale).toBeLessThanOrEqual(rangeOf(given.min, given.max, bits).scale);
        const { low, high } = boundsOf(chosen, bits);
        const slack = chosen.scale / 2 + integrate(given).binWidth * 1.001;
        const outside = values.filter((value) => value < low - slack || value > high + slack).length;
        expect(outside).toBeLessThanOrEqual((1 - percentile / 100) * values.length + 1e-6);
        if (percentile === 100) expect(chosen.scale).toBe(rangeOf(given.min, given.max, bits).scale);
      }),
    );
  });

  it("by least squares is never worse than the ends", () => {
    fc.assert(
      fc.property(distribution, someBits, (given, bits) => {
        const moments = integrate(given);
        const chosen = chooseRange(given, { bits, range: "mse", percentile: 99 });
        expect(chosen.error).toBe(squaredError(moments, chosen, bits));
        expect(chosen.error).toBeLessThanOrEqual(squaredError(moments, rangeOf(given.min, given.max, bits), bits));
      }),
    );
  });

  it("by least squares is next to the best of a fine grid, for what activations look like", () => {
    const bell = fc.record({
      middle: fc.constantFrom(-1, 0, 0.3),
      size: fc.constantFrom(0.2, 1, 3),
      isRectified: fc.boolean(),
      outlier: fc.constantFrom(0, -8, 20),
    });
    fc.assert(
      fc.property(fc.array(bell, { minLength: 1, maxLength: 3 }), fc.constantFrom(4, 5), (bells, bits) => {
        const given = distributionOf(
          bells.flatMap(({ middle, size, isRectified, outlier }) => {
            const values = Array.from({ length: 300 }, (_, index) => {
              const part = (index + 0.5) / 300;
              return middle + size * 0.55 * Math.log(part / (1 - part));
            });
            return [outlier, ...(isRectified ? values.map((value) => Math.max(value, -0.17)) : values)];
          }),
        );
        const moments = integrate(given);
        const chosen = chooseRange(given, { bits, range: "mse", percentile: 99 });
        const whole = rangeOf(given.min, given.max, bits);
        let least = Infinity;
        for (let octave = 0; octave < 5; octave += 1 / 16) {
          for (let zeroPoint = 0; zeroPoint < 2 ** bits; zeroPoint++) {
            least = Math.min(least, squaredError(moments, { scale: whole.scale * 2 ** -octave, zeroPoint }, bits));
          }
        }
        // Of 362 such cases the worst is 0.6 % above; with one far value and 16 levels, valleys can lie further apart.
        expect(chosen.error).toBeLessThanOrEqual(1.1 * least);
      }),
      { numRuns: 25 },
    );
  });
});

/** Inverse of the normal distribution function, by bisection. */
function normalQuantile(part: number): number {
  let low = -8;
  let high = 8;
  for (let step = 0; step < 60; step++) {
    const middle = (low + high) / 2;
    if (normal(middle) < part) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** The normal distribution function, by its series and continued fraction (Abramowitz and Stegun 26.2.11, 26.2.14). */
function normal(x: number): number {
  const density = Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);
  if (Math.abs(x) < 4) {
    let term = x;
    let sum = x;
    for (let k = 1; Math.abs(term) > 1e-17; k++) {
      term *= (x * x) / (2 * k + 1);
      sum += term;
    }
    return 0.5 + density * sum;
  }
  let tail = 0;
  for (let k = 60; k >= 1; k--) tail = k / (Math.abs(x) + tail);
  const upper = density / (Math.abs(x) + tail);
  return x > 0 ? 1 - upper : upper;
}
