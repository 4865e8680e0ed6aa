/** What flows into a layer in each time bin, from the statistics of a calibration run. Pure. */
import { DISTRIBUTION_BINS, type Distribution, emptyDistribution } from "./distribution.js";

/** Statistics of a layer's input; T time bins, C channels. */
export interface InputStatistics {
  readonly channels: number;
  /** Each [T, C], row-major. */
  readonly min: Float32Array;
  readonly max: Float32Array;
  readonly mean: Float32Array;
  readonly meansq: Float32Array;
  /** [T]: positions that passed; each has one element of every channel. */
  readonly count: Float64Array;
  /** [T, 2048]: elements of all channels by bins of [−2^e, 2^e]. */
  readonly histogram: Uint32Array;
  /** [T]: e. */
  readonly histogramExponent: Int32Array;
}

/**
 * One distribution per time bin.
 * @param smoothing float32[C] by which the input is divided before it is quantized; null: it is not
 */
export function inputDistributions(statistics: InputStatistics, smoothing: Float32Array | null): Distribution[] {
  return Array.from(statistics.count, (count, bin) => {
    if (!(count > 0)) return emptyDistribution();
    return smoothing === null ? measured(statistics, bin) : modelled(statistics, bin, smoothing);
  });
}

function measured({ channels, min, max, histogram, histogramExponent }: InputStatistics, bin: number): Distribution {
  let least = Infinity;
  let most = -Infinity;
  for (let at = bin * channels; at < (bin + 1) * channels; at++) {
    least = Math.min(least, min[at] as number);
    most = Math.max(most, max[at] as number);
  }
  const counts = Float64Array.from(histogram.subarray(bin * DISTRIBUTION_BINS, (bin + 1) * DISTRIBUTION_BINS));
  return { exponent: histogramExponent[bin] as number, counts, min: least, max: most };
}

/** Points of a channel's bell, in standard deviations, and where it ends. */
const BELL_POINTS = 33;
const BELL_REACH = 4;
/** Points of all channels together that leave no gaps in a histogram. */
const MIN_POINTS = 2 * DISTRIBUTION_BINS;

/**
 * The distribution of the input divided by `smoothing`. The measured histogram is of all channels together and cannot
 * be divided channel by channel; of a channel its ends, mean and second moment are known. So each is taken as a normal
 * distribution of those two moments whose tails beyond its ends lie on the ends, plus the two values that did stand
 * there: the ends, and with them min/max ranges, are exact, and a rectifier's heap at its lower end comes out as one.
 */
function modelled(
  { channels, min, max, mean, meansq, count }: InputStatistics,
  bin: number,
  smoothing: Float32Array,
): Distribution {
  const first = bin * channels;
  let least = Infinity;
  let most = -Infinity;
  for (let channel = 0; channel < channels; channel++) {
    const divisor = smoothing[channel] as number;
    least = Math.min(least, (min[first + channel] as number) / divisor);
    most = Math.max(most, (max[first + channel] as number) / divisor);
  }
  const reach = Math.max(-least, most);
  // The smallest 2^e that holds everything.
  const exponent = reach > 0 ? Math.ceil(Math.log2(reach)) : 0;
  const counts = new Float64Array(DISTRIBUTION_BINS);
  const binWidth = 2 ** exponent / (DISTRIBUTION_BINS / 2);
  const deposit = (value: number, weight: number): void => {
    const index = Math.min(DISTRIBUTION_BINS - 1, Math.floor(value / binWidth) + DISTRIBUTION_BINS / 2);
    counts[index] = (counts[index] as number) + weight;
  };
  const bell = bellPoints(Math.max(BELL_POINTS, Math.ceil(MIN_POINTS / channels)));
  const rest = Math.max(0, (count[bin] as number) - 2);
  for (let channel = 0; channel < channels; channel++) {
    const at = first + channel;
    const divisor = smoothing[channel] as number;
    const low = min[at] as number;
    const high = max[at] as number;
    const average = mean[at] as number;
    const deviation = Math.sqrt(Math.max(0, (meansq[at] as number) - average * average));
    deposit(low / divisor, 1);
    deposit(high / divisor, 1);
    for (const { position, weight } of bell) {
      const value = Math.min(high, Math.max(low, average + position * deviation));
      deposit(value / divisor, rest * weight);
    }
  }
  return { exponent, counts, min: least, max: most };
}

function bellPoints(count: number): { position: number; weight: number }[] {
  const points = Array.from({ length: count }, (_, index) => {
    const position = BELL_REACH * ((2 * index) / (count - 1) - 1);
    return { position, weight: Math.exp((-position * position) / 2) };
  });
  const total = points.reduce((sum, { weight }) => sum + weight, 0);
  return points.map(({ position, weight }) => ({ position, weight: weight / total }));
}
