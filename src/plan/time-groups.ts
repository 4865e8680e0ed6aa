/** Activation parameters per time group: which time bins share a range, and what it is. Pure. */
import {
  boundsOf,
  type ChosenRange,
  centreRange,
  chooseRange,
  type RangeMethod,
  squaredError,
} from "./activation-range.js";
import {
  addDistribution,
  DISTRIBUTION_BINS,
  type Distribution,
  emptyDistribution,
  integrate,
  joinDistributions,
  type Moments,
} from "./distribution.js";
import type { ActivationSettings } from "./plan.js";
import { fitTransitions, smoothBoundaries, smoothnessScores } from "./time-smoothing.js";

/** A stretch of the model's time input, `start` inclusive, `end` exclusive. */
export interface TimeRange {
  readonly start: number;
  readonly end: number;
}

/** An entry of FORMAT.md's `time_group_params`. */
export interface TimeGroup {
  readonly timeRange: TimeRange;
  readonly scale: number;
  readonly zeroPoint: number;
  readonly groupSize: null;
}

export interface TimeGroups {
  /** By rising time, without gaps. */
  readonly groups: readonly TimeGroup[];
  /** Smoothness score of each pair of neighbours. */
  readonly smoothness: readonly number[];
  /** The pairs (index of the first) whose score passes the threshold. */
  readonly roughSteps: readonly number[];
  /** Total squared error of the inputs that the statistics have seen, and their own squares. */
  readonly error: number;
  readonly energy: number;
}

/**
 * The time groups of a layer.
 * @param distributions of the layer's input, one per time bin; at least one
 * @param bins by rising time and without gaps, one per distribution
 * @param settings of mode `time` or `static`
 */
export function planTimeGroups(
  distributions: readonly Distribution[],
  bins: readonly TimeRange[],
  settings: ActivationSettings,
): TimeGroups {
  const { bits } = settings;
  const starts = chooseStarts(distributions, settings);
  const runs = starts.map((start, index) => ({ start, end: starts[index + 1] ?? distributions.length }));
  const joined = runs.map(({ start, end }) => joinDistributions(distributions.slice(start, end)));
  const found = joined.map((distribution) => chooseRange(distribution, settings));
  const ranges = settings.mode === "time" ? smoothRanges(joined, found, settings) : found;
  const smoothness = smoothnessScores(ranges.map(({ scale }) => scale));
  let error = 0;
  let energy = 0;
  for (const [index, distribution] of joined.entries()) {
    const moments = integrate(distribution);
    error += squaredError(moments, ranges[index] as ChosenRange, bits);
    energy += moments.second[DISTRIBUTION_BINS] as number;
  }
  return {
    groups: runs.map(({ start, end }, index) => {
      const { scale, zeroPoint } = ranges[index] as ChosenRange;
      const timeRange = { start: (bins[start] as TimeRange).start, end: (bins[end - 1] as TimeRange).end };
      return { timeRange, scale, zeroPoint, groupSize: null };
    }),
    smoothness,
    roughSteps: smoothness.flatMap((score, index) => (score > settings.smoothnessThreshold ? [index] : [])),
    error,
    energy,
  };
}

/** Index of the group whose parameters hold at `time`; times outside take the nearest (FORMAT.md). */
export function findTimeGroup(groups: readonly TimeGroup[], time: number): number {
  const next = groups.findIndex(({ timeRange }, index) => index > 0 && time < timeRange.start);
  return next < 0 ? groups.length - 1 : next - 1;
}

/** First bin of each group. Empty bins (that no sample of the statistics fell into) go with a neighbour. */
function chooseStarts(distributions: readonly Distribution[], settings: ActivationSettings): number[] {
  const filled = distributions.flatMap(({ min, max }, bin) => (min <= max ? [bin] : []));
  const count = settings.mode === "time" ? Math.min(settings.groupCount, filled.length) : 1;
  if (count <= 1) return [0];
  const present = filled.map((bin) => distributions[bin] as Distribution);
  const starts =
    settings.groups === "uniform" ? uniformStarts(present.length, count) : optimalStarts(present, count, settings);
  return starts.map((start) => (start === 0 ? 0 : (filled[start] as number)));
}

/** Groups of as equal numbers of bins as there can be, so that each has some of the times that the sampler visits. */
export function uniformStarts(binCount: number, groupCount: number): number[] {
  return Array.from({ length: groupCount }, (_, group) => Math.floor((group * binCount) / groupCount));
}

/**
 * The partition of the bins into `groupCount` runs of least total squared error under the ranges that `method` gives
 * them, exactly: the least error of the first j bins in g runs is that of the first i in g − 1, plus the error of the
 * run i … j − 1, at its least over i (dynamic programming, O(G·T²) once the T²/2 runs are known).
 * @param distributions none of them empty
 * @param groupCount at most as many as there are bins
 */
export function optimalStarts(
  distributions: readonly Distribution[],
  groupCount: number,
  method: RangeMethod,
): number[] {
  const binCount = distributions.length;
  const errors = runErrors(distributions, method);
  /** least[j]: of the first j bins in the runs so far. */
  let least = Float64Array.from({ length: binCount + 1 }, (_, end) =>
    end === 0 ? 0 : (errors[0]?.[end - 1] as number),
  );
  /** cuts[g][j]: where the last of g + 2 runs over the first j bins starts. */
  const cuts: Int32Array[] = [];
  for (let runCount = 2; runCount <= groupCount; runCount++) {
    const next = new Float64Array(binCount + 1).fill(Infinity);
    const cut = new Int32Array(binCount + 1);
    for (let end = runCount; end <= binCount; end++) {
      for (let start = runCount - 1; start < end; start++) {
        const error = (least[start] as number) + (errors[start]?.[end - 1 - start] as number);
        if (error < (next[end] as number)) {
          next[end] = error;
          cut[end] = start;
        }
      }
    }
    least = next;
    cuts.push(cut);
  }
  const starts: number[] = [];
  let end = binCount;
  for (const cut of cuts.reverse()) {
    end = cut[end] as number;
    starts.unshift(end);
  }
  return [0, ...starts];
}

/** errors[i][n]: of the run of n + 1 bins from bin i on. */
function runErrors(distributions: readonly Distribution[], method: RangeMethod): Float64Array[] {
  let moments: Moments | undefined;
  return distributions.map((_, start) => {
    const errors = new Float64Array(distributions.length - start);
    const joined = emptyDistribution();
    for (let bin = start; bin < distributions.length; bin++) {
      addDistribution(joined, distributions[bin] as Distribution);
      moments = integrate(joined, moments);
      errors[bin - start] = chooseRange(joined, method, moments).error;
    }
    return errors;
  });
}

/** The ranges with their scales smoothed over time as the settings ask; each stays where its group's values are. */
function smoothRanges(
  joined: readonly Distribution[],
  found: readonly ChosenRange[],
  { bits, boundarySmoothing, transitionWeight }: ActivationSettings,
): readonly { readonly scale: number; readonly zeroPoint: number }[] {
  if ((boundarySmoothing === null && transitionWeight === null) || found.length < 2) return found;
  const counts = joined.map(({ counts: weights }) => weights.reduce((sum, weight) => sum + weight, 0));
  const mean = counts.reduce((sum, count) => sum + count, 0) / counts.length;
  // Of mean one, so that a penalty means the same whatever the number of samples.
  const weights = counts.map((count) => count / mean);
  let logs = found.map(({ scale }) => Math.log(scale));
  if (transitionWeight !== null) logs = fitTransitions(logs, weights, transitionWeight);
  if (boundarySmoothing !== null) logs = smoothBoundaries(logs, weights, boundarySmoothing);
  return logs.map((log, index) => {
    const { low, high } = boundsOf(found[index] as ChosenRange, bits);
    return centreRange(low, high, Math.exp(log), bits);
  });
}
