/**
 * Streaming statistics of one value of a graph, per time bin: range, mean and mean square of every channel, and a
 * histogram over all channels.
 */
import type { Dtype } from "../tensor/dtype.js";
import { allocatedBytes } from "./arena.js";
import type { Kernels } from "./load.js";
import { SPARE_BYTES } from "./regions.js";
import type { ActivationArray, Staging } from "./staging.js";

export interface ActivationStatsShape {
  readonly channels: number;
  /** Time bins. */
  readonly bins: number;
  /** A power of two. */
  readonly histogramBins?: number;
}

/** How the elements of an array lie. */
export interface ActivationLayout {
  /** Channels of a position side by side, or positions of a channel. */
  readonly layout: "channels-last" | "channels-first";
  /** Positions side by side: of the whole array with channels last, of each image with channels first. */
  readonly positions: number;
  /** F32 where it is left out. */
  readonly dtype?: Dtype;
}

/** Arrays of [bins, channels] and [bins]; all zeros in a bin that nothing was added to. */
export interface ActivationStatsResult {
  readonly absmax: Float32Array;
  readonly min: Float32Array;
  readonly max: Float32Array;
  readonly mean: Float32Array;
  /** Mean of squares. */
  readonly meansq: Float32Array;
  /** Positions seen, so elements of each channel. */
  readonly count: Float64Array;
  /** [bins, histogramBins] over [−2^e, 2^e), bins of equal width, lower ends inclusive. */
  readonly histogram: Uint32Array;
  /** e of each bin's histogram: the least with every |x| < 2^e, at least LEAST_EXPONENT. */
  readonly histogramExponent: Int32Array;
}

const HISTOGRAM_BINS = 2048;

/** Activations below 2^−100 are zero to any quantizer, and 1/width of the bins stays a float32. */
const LEAST_EXPONENT = -100;

/** Bits of 2^60, the largest activation: squares of larger ones, and sums of a block of them, could overflow. */
const LARGEST_BITS = 0x5d800000;

function regionSizes({ channels, bins, histogramBins = HISTOGRAM_BINS }: ActivationStatsShape) {
  return {
    least: 4 * channels * bins + SPARE_BYTES,
    most: 4 * channels * bins + SPARE_BYTES,
    sums: 8 * channels * bins,
    squares: 8 * channels * bins,
    histogram: 4 * histogramBins * bins,
  };
}

export class ActivationStats {
  readonly #kernels: Kernels;
  readonly #staging: Staging;
  readonly #channels: number;
  readonly #bins: number;
  readonly #histogramBins: number;
  readonly #ptr: Record<keyof ReturnType<typeof regionSizes>, number>;
  readonly #counts: Float64Array;
  readonly #exponents: Int32Array;

  /** Arena bytes for that shape, exactly. */
  static bytesNeeded(shape: ActivationStatsShape): number {
    return Object.values(regionSizes(shape)).reduce((sum, size) => sum + allocatedBytes(size), 0);
  }

  /** Allocates; the arena is not reset, so that several can live in it. */
  constructor(kernels: Kernels, staging: Staging, shape: ActivationStatsShape) {
    const { arena } = kernels;
    const sizes = regionSizes(shape);
    this.#kernels = kernels;
    this.#staging = staging;
    this.#channels = shape.channels;
    this.#bins = shape.bins;
    this.#histogramBins = shape.histogramBins ?? HISTOGRAM_BINS;
    this.#ptr = {
      least: arena.allocate(sizes.least),
      most: arena.allocate(sizes.most),
      sums: arena.allocate(sizes.sums),
      squares: arena.allocate(sizes.squares),
      histogram: arena.allocate(sizes.histogram),
    };
    this.#counts = new Float64Array(shape.bins);
    this.#exponents = new Int32Array(shape.bins);
    this.clear();
  }

  /** Forgets everything that was added. */
  clear(): void {
    const { arena } = this.#kernels;
    const elements = this.#channels * this.#bins;
    arena.floats(this.#ptr.least, elements).fill(Infinity);
    arena.floats(this.#ptr.most, elements).fill(-Infinity);
    arena.doubles(this.#ptr.sums, elements).fill(0);
    arena.doubles(this.#ptr.squares, elements).fill(0);
    arena.words(this.#ptr.histogram, this.#histogramBins * this.#bins).fill(0);
    this.#counts.fill(0);
    this.#exponents.fill(LEAST_EXPONENT);
  }

  /**
   * Adds an array to one time bin: [positions, channels], or any number of [channels, positions].
   * False where it holds a NaN, an infinity or what is beyond 2^60: the statistics are then of no use.
   */
  add(x: ActivationArray, { layout, positions, dtype = "F32" }: ActivationLayout, bin: number): boolean {
    const isLast = layout === "channels-last";
    const outer = isLast ? positions : x.length / positions;
    // Both ways the array is rows of runs: whole runs are taken as long as they fit, else each in parts.
    const run = isLast ? this.#channels : positions;
    const runsPerPiece = Math.max(1, Math.floor(this.#staging.capacity / Math.max(1, run)));
    for (let row = 0; row < outer; row += runsPerPiece) {
      const rows = Math.min(runsPerPiece, outer - row);
      for (let first = 0; first < run; first += this.#staging.capacity) {
        const length = Math.min(this.#staging.capacity, run - first);
        const start = row * run + first;
        const at = this.#staging.load(x, dtype, start, start + (rows - 1) * run + length);
        if (!this.#addPiece(at, isLast, row, rows, first, length, bin)) return false;
      }
    }
    this.#counts[bin] = (this.#counts[bin] as number) + x.length / this.#channels;
    return true;
  }

  /** `rows` runs of `length` floats at `at`: positions of all channels, or channels at several positions. */
  #addPiece(
    at: number,
    isLast: boolean,
    row: number,
    rows: number,
    first: number,
    length: number,
    bin: number,
  ): boolean {
    const { exports } = this.#kernels;
    const count = rows * length;
    const bits = exports.largestMagnitudeBits(at, count);
    if (bits > LARGEST_BITS) return false;
    this.#addToHistogram(at, count, bits, bin);
    const { least, most, sums, squares } = this.#ptr;
    const channels = this.#channels;
    const addresses = (channel: number): [number, number, number, number] => {
      const index = bin * channels + channel;
      return [least + 4 * index, most + 4 * index, sums + 8 * index, squares + 8 * index];
    };
    if (isLast) {
      exports.addRowStats(at, rows, length, ...addresses(first));
      return true;
    }
    // Runs are channels of one image after the other.
    for (let done = 0; done < rows; ) {
      const channel = (row + done) % channels;
      const channelCount = Math.min(rows - done, channels - channel);
      exports.addChannelStats(at + 4 * done * length, channelCount, length, ...addresses(channel));
      done += channelCount;
    }
    return true;
  }

  #addToHistogram(at: number, count: number, largestBits: number, bin: number): void {
    const { exports } = this.#kernels;
    const half = this.#histogramBins / 2;
    const histogram = this.#ptr.histogram + 4 * this.#histogramBins * bin;
    // 2^(e − 1) ≤ x < 2^e where the biased exponent is e + 126.
    const exponent = Math.max(this.#exponents[bin] as number, (largestBits >> 23) - 126);
    exports.widenHistogram(histogram, half, exponent - (this.#exponents[bin] as number));
    this.#exponents[bin] = exponent;
    exports.addToHistogram(at, count, histogram, half, half * 2 ** -exponent);
  }

  /** Copies of everything. */
  result(): ActivationStatsResult {
    const { arena } = this.#kernels;
    const elements = this.#channels * this.#bins;
    const zeroed = (values: Float32Array) =>
      values.map((value, i) => (this.#counts[Math.floor(i / this.#channels)] === 0 ? 0 : value));
    const means = (sums: Float64Array) =>
      Float32Array.from(sums, (sum, i) => sum / Math.max(1, this.#counts[Math.floor(i / this.#channels)] as number));
    const min = zeroed(arena.floats(this.#ptr.least, elements));
    const max = zeroed(arena.floats(this.#ptr.most, elements));
    const histogramWords = arena.words(this.#ptr.histogram, this.#histogramBins * this.#bins);
    return {
      absmax: max.map((value, i) => Math.max(value, -(min[i] as number))),
      min,
      max,
      mean: means(arena.doubles(this.#ptr.sums, elements)),
      meansq: means(arena.doubles(this.#ptr.squares, elements)),
      count: this.#counts.slice(),
      histogram: Uint32Array.from(histogramWords),
      histogramExponent: this.#exponents.slice(),
    };
  }
}
