/**
 * Range of a group of activations: the scale and zero point of
 * `x̂ = (clamp(round(x / s) + z, 0, 2^bits − 1) − z) · s` (FORMAT.md), z an integer, so that zero is itself. Pure.
 */
import { DISTRIBUTION_BINS, type Distribution, integrate, type Moments, quantile } from "./distribution.js";
import type { ActivationSettings } from "./plan.js";

export interface QuantRange {
  /** A float32 number above zero, as it is stored. */
  readonly scale: number;
  /** A whole number, 0 … 2^bits − 1. */
  readonly zeroPoint: number;
}

export interface ChosenRange extends QuantRange {
  /** Total squared error of the distribution's values under it. */
  readonly error: number;
}

/** How a range is found. */
export type RangeMethod = Pick<ActivationSettings, "bits" | "range" | "percentile">;

/** The smallest scale that has a normal float32 reciprocal and stays clear of float32's denormals. */
const MIN_SCALE = 2 ** -120;

/** The range that holds [low, high] and zero. */
export function rangeOf(low: number, high: number, bits: number): QuantRange {
  const levels = 2 ** bits - 1;
  const least = Math.min(low, 0);
  const most = Math.max(high, 0);
  const width = most - least;
  // Of nothing but zeros: any scale gives them back.
  if (!(width > 0)) return { scale: 1, zeroPoint: 0 };
  const scale = Math.fround(Math.max(width / levels, MIN_SCALE));
  return { scale, zeroPoint: clamp(roundToEven(-least / scale), 0, levels) };
}

/**
 * The range of scale `scale` whose middle is that of [low, high]: where a scale has been moved, what falls outside
 * falls outside on both sides.
 */
export function centreRange(low: number, high: number, scale: number, bits: number): QuantRange {
  const levels = 2 ** bits - 1;
  const stored = Math.fround(Math.max(scale, MIN_SCALE));
  const middle = (Math.min(low, 0) + Math.max(high, 0)) / 2;
  return { scale: stored, zeroPoint: clamp(roundToEven(levels / 2 - middle / stored), 0, levels) };
}

/** The values that a range reaches without clipping. */
export function boundsOf({ scale, zeroPoint }: QuantRange, bits: number): { low: number; high: number } {
  return { low: -zeroPoint * scale, high: (2 ** bits - 1 - zeroPoint) * scale };
}

/**
 * The range of `distribution` by the method of `settings`.
 * @param moments of the distribution, where somebody has them
 */
export function chooseRange(
  distribution: Distribution,
  settings: RangeMethod,
  moments: Moments = integrate(distribution),
): ChosenRange {
  const { min, max } = distribution;
  const { bits } = settings;
  if (min > max) return { scale: 1, zeroPoint: 0, error: 0 };
  const whole = measure(moments, rangeOf(min, max, bits), bits);
  if (settings.range === "minmax") return whole;
  if (settings.range === "mse") return searchRange(moments, whole, { min, max }, bits);
  const tail = (1 - settings.percentile / 100) / 2;
  // Values of the outermost bins are spread to the bin's end, past the largest there is.
  const low = Math.max(min, quantile(moments, tail));
  const high = Math.min(max, quantile(moments, 1 - tail));
  return measure(moments, rangeOf(low, high, bits), bits);
}

function measure(moments: Moments, range: QuantRange, bits: number): ChosenRange {
  return { ...range, error: squaredError(moments, range, bits) };
}

/**
 * ∫ (x − x̂)² over a distribution. Level by level from integrals of 1, x and x², so that it takes as long as there are
 * levels, however fine the histogram.
 * @param limit what the caller cares for: an error above it may come back as any number above it
 */
export function squaredError(
  moments: Moments,
  { scale, zeroPoint }: QuantRange,
  bits: number,
  limit = Infinity,
): number {
  const { zeroth, first, second, binWidth } = moments;
  const levels = 2 ** bits - 1;
  const last = DISTRIBUTION_BINS;
  let error = 0;
  let below0 = 0;
  let below1 = 0;
  let below2 = 0;
  for (let level = 0; level <= levels; level++) {
    const value = (level - zeroPoint) * scale;
    let upTo0 = zeroth[last] as number;
    let upTo1 = first[last] as number;
    let upTo2 = second[last] as number;
    if (level < levels) {
      // The edge towards the next level, in bins from the left end.
      const edge = value + scale / 2;
      const position = edge / binWidth + DISTRIBUTION_BINS / 2;
      if (position <= 0) continue;
      if (position < last) {
        const bin = Math.floor(position);
        const part = position - bin;
        const low = (bin - DISTRIBUTION_BINS / 2) * binWidth;
        const count = ((zeroth[bin + 1] as number) - (zeroth[bin] as number)) * part;
        const width = part * binWidth;
        upTo0 = (zeroth[bin] as number) + count;
        upTo1 = (first[bin] as number) + count * (low + width / 2);
        upTo2 = (second[bin] as number) + count * (low * low + low * width + (width * width) / 3);
      }
    }
    error += upTo2 - below2 - 2 * value * (upTo1 - below1) + value * value * (upTo0 - below0);
    below0 = upTo0;
    below1 = upTo1;
    below2 = upTo2;
    // Every level adds to it.
    if (below0 === zeroth[last] || error > 2 * limit) break;
  }
  // Differences of large sums: what is below zero is rounding.
  return Math.max(0, error);
}

/** Ends of the range in octaves: shrunk together first, in quarters, then scale and zero point one by one. */
const SHRINK_STEP = 1 / 4;
const MAX_SHRINKS = 32;
/** As the error has one valley but for the grid's own ripple, so many steps without a gain end the search. */
const PATIENCE = 3;
const FINEST_STEP = 1 / 32;

/** The scale and zero point of least squared error, never worse than `start`. */
function searchRange(
  moments: Moments,
  start: ChosenRange,
  { min, max }: { readonly min: number; readonly max: number },
  bits: number,
): ChosenRange {
  const levels = 2 ** bits - 1;
  let best = start;
  const consider = (range: QuantRange): boolean => {
    const error = squaredError(moments, range, bits, best.error);
    if (!(error < best.error)) return false;
    best = { ...range, error };
    return true;
  };
  for (let shrink = 1, since = 0; shrink <= MAX_SHRINKS && since < PATIENCE; shrink++) {
    const factor = 2 ** (-shrink * SHRINK_STEP);
    since = consider(rangeOf(min * factor, max * factor, bits)) ? 0 : since + 1;
  }
  const move = (scale: number, zeroPoint: number): boolean =>
    zeroPoint >= 0 && zeroPoint <= levels && scale >= MIN_SCALE && consider({ scale: Math.fround(scale), zeroPoint });
  for (let step = SHRINK_STEP / 2; step >= FINEST_STEP; step /= 2) {
    // As far as the step moves an end of the range.
    const turn = Math.max(1, Math.round((levels * step) / 2));
    for (let isMoving = true; isMoving; ) {
      const { scale, zeroPoint } = best;
      isMoving = move(scale * 2 ** step, zeroPoint) || move(scale * 2 ** -step, zeroPoint);
      for (const moved of [zeroPoint + turn, zeroPoint - turn]) {
        isMoving =
          move(scale, moved) ||
          // One end stays where it is, the other moves.
          (moved > 0 && move((scale * zeroPoint) / moved, moved)) ||
          (moved < levels && move((scale * (levels - zeroPoint)) / (levels - moved), moved)) ||
          isMoving;
      }
    }
  }
  return best;
}

function clamp(value: number, low: number, high: number): number {
  return Math.min(high, Math.max(low, value));
}

/** To the nearest whole number, halves to the even one. */
function roundToEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest < 0.5 || (rest === 0.5 && floor % 2 === 0) ? floor : floor + 1;
}
