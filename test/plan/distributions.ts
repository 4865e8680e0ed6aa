/** Distributions of listed values, as kernels would count them. */
import fc from "fast-check";
import { DISTRIBUTION_BINS, type Distribution } from "../../dist/plan/distribution.js";

export function distributionOf(values: readonly number[], least = -20): Distribution {
  const reach = Math.max(...values.map(Math.abs), 2 ** least);
  // Above the largest magnitude: at the very end, a value would count in the bin before it.
  const exponent = Math.floor(Math.log2(reach)) + 1;
  const counts = new Float64Array(DISTRIBUTION_BINS);
  for (const value of values) {
    const bin = Math.floor((value / 2 ** exponent + 1) * (DISTRIBUTION_BINS / 2));
    const index = Math.min(DISTRIBUTION_BINS - 1, bin);
    counts[index] = (counts[index] as number) + 1;
  }
  return { exponent, counts, min: Math.min(...values), max: Math.max(...values) };
}

/** Thousandths: no value is so small that it vanishes beside another in float64. */
const thousandths = (most: number): fc.Arbitrary<number> =>
  fc.integer({ min: -1000 * most, max: 1000 * most }).map((value) => value / 1000);

/** Values of very different sizes, one-sided or not, some of them far out. */
export const someValues: fc.Arbitrary<number[]> = fc
  .record({
    values: fc.array(thousandths(1), { minLength: 1, maxLength: 60 }),
    outliers: fc.array(thousandths(10), { maxLength: 2 }),
    scale: fc.integer({ min: -6, max: 6 }),
    side: fc.constantFrom(0, 1, -1),
  })
  .map(({ values, outliers, scale, side }) =>
    [...values, ...outliers].map((value) => (side === 0 ? value : side * Math.abs(value)) * 2 ** scale),
  );
