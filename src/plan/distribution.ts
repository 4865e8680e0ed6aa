/**
 * Values that flow into a layer, as a histogram: what ranges and groups are chosen by. Pure.
 *
 * A histogram spans [−2^e, 2^e] in equal bins. Two of different exponents are added exactly, as far as bins go, by
 * halving the finer one's resolution until the exponents agree: bins of the coarser are pairs of bins of the finer.
 */

/** Bins of a histogram, as statistics hold them. */
export const DISTRIBUTION_BINS = 2048;
const HALF = DISTRIBUTION_BINS / 2;

export interface Distribution {
  /** e: the histogram spans [−2^e, 2^e]. */
  readonly exponent: number;
  /** Weight of each bin. */
  readonly counts: Float64Array;
  /** Smallest and largest value, exactly; Infinity and −Infinity where there is none. */
  readonly min: number;
  readonly max: number;
}

export function emptyDistribution(): Distribution {
  return { exponent: -Infinity, counts: new Float64Array(DISTRIBUTION_BINS), min: Infinity, max: -Infinity };
}

/** All of them together, over the largest of their ranges. */
export function joinDistributions(distributions: readonly Distribution[]): Distribution {
  const sum = { ...emptyDistribution() };
  for (const one of distributions) addDistribution(sum, one);
  return sum;
}

/** Adds `part` to `sum`, in place. */
export function addDistribution(
  sum: { -readonly [Key in keyof Distribution]: Distribution[Key] },
  part: Distribution,
): void {
  // An empty one has no range of its own.
  if (part.min > part.max) return;
  const { counts } = sum;
  if (sum.exponent < part.exponent) {
    if (sum.min <= sum.max) counts.set(coarsen(counts, part.exponent - sum.exponent));
    sum.exponent = part.exponent;
  }
  const added = sum.exponent === part.exponent ? part.counts : coarsen(part.counts, sum.exponent - part.exponent);
  for (let bin = 0; bin < DISTRIBUTION_BINS; bin++) counts[bin] = (counts[bin] as number) + (added[bin] as number);
  sum.min = Math.min(sum.min, part.min);
  sum.max = Math.max(sum.max, part.max);
}

/** The same weights over a range of 2^halvings the width. */
function coarsen(counts: Float64Array, halvings: number): Float64Array {
  const coarse = new Float64Array(DISTRIBUTION_BINS);
  // From eleven halvings on, everything lies in the two bins beside zero.
  const width = 2 ** Math.min(halvings, 11);
  for (let bin = 0; bin < DISTRIBUTION_BINS; bin++) {
    const target = HALF + Math.floor((bin - HALF) / width);
    coarse[target] = (coarse[target] as number) + (counts[bin] as number);
  }
  return coarse;
}

/** Integrals of a distribution up to any value, values of a bin being spread evenly over it. */
export interface Moments {
  readonly binWidth: number;
  /** Up to the lower edge of each bin, and at the end the whole: of 1, x and x². */
  readonly zeroth: Float64Array;
  readonly first: Float64Array;
  readonly second: Float64Array;
}

/** @param into arrays to use again, of moments that nobody needs any more */
export function integrate({ exponent, counts, min, max }: Distribution, into?: Moments): Moments {
  const { zeroth, first, second } = into ?? {
    zeroth: new Float64Array(DISTRIBUTION_BINS + 1),
    first: new Float64Array(DISTRIBUTION_BINS + 1),
    second: new Float64Array(DISTRIBUTION_BINS + 1),
  };
  const binWidth = min > max ? 1 : 2 ** exponent / HALF;
  // E[x²] of an even spread is its middle squared and a twelfth of its width squared.
  const spread = (binWidth * binWidth) / 12;
  let sum0 = 0;
  let sum1 = 0;
  let sum2 = 0;
  for (let bin = 0; bin < DISTRIBUTION_BINS; bin++) {
    zeroth[bin] = sum0;
    first[bin] = sum1;
    second[bin] = sum2;
    const count = counts[bin] as number;
    const middle = (bin - HALF + 0.5) * binWidth;
    sum0 += count;
    sum1 += count * middle;
    sum2 += count * (middle * middle + spread);
  }
  zeroth[DISTRIBUTION_BINS] = sum0;
  first[DISTRIBUTION_BINS] = sum1;
  second[DISTRIBUTION_BINS] = sum2;
  return { binWidth, zeroth, first, second };
}

/** The value below which `part` (0 … 1) of the weight lies. */
export function quantile({ zeroth, binWidth }: Moments, part: number): number {
  const target = part * (zeroth[DISTRIBUTION_BINS] as number);
  let low = 0;
  let high = DISTRIBUTION_BINS;
  // The last edge with at most `target` below it.
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((zeroth[middle] as number) <= target) low = middle;
    else high = middle - 1;
  }
  if (low === DISTRIBUTION_BINS) return HALF * binWidth;
  const below = zeroth[low] as number;
  const fraction = (target - below) / ((zeroth[low + 1] as number) - below);
  return (low - HALF + fraction) * binWidth;
}
