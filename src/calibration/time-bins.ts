/** Samples along time: which are held back, and the bins that statistics are kept in. Pure. */
import type { TimeBin } from "./statistics-info.js";

/** Every 8th sample is held back: an eighth is enough to compare by, and is missed little. */
export const HELD_BACK_EVERY = 8;

/** With fewer samples than this none is held back: a single one would say little of the others. */
const MIN_SAMPLES_TO_HOLD_BACK = 16;

export interface SampleOrder {
  /** Indices of the samples that statistics are taken of, by rising time. */
  readonly used: Uint32Array;
  /** Indices of those held back, by rising time. */
  readonly heldBack: Uint32Array;
}

/**
 * Sorts samples by time (equal times in their own order) and holds back every `heldBackEvery`-th, from the middle of
 * the first run on, so that what is held back is spread over time as the samples are. 0: none is held back.
 */
export function orderSamples(times: Float64Array, heldBackEvery: number): SampleOrder {
  const sorted = Uint32Array.from(times.keys()).sort((a, b) => (times[a] as number) - (times[b] as number) || a - b);
  const every = times.length < MIN_SAMPLES_TO_HOLD_BACK ? 0 : heldBackEvery;
  const isHeldBack = (rank: number) => every > 0 && rank % every === every >> 1;
  return {
    used: sorted.filter((_, rank) => !isHeldBack(rank)),
    heldBack: sorted.filter((_, rank) => isHeldBack(rank)),
  };
}

/** The times that a model can be given, `start` inclusive, `end` exclusive. */
export interface TimeRange {
  readonly start: number;
  readonly end: number;
}

/**
 * The range that a scheduler gives, widened where samples lie outside of it; without one that of the samples, the end
 * as far behind the last as its neighbour is before it.
 */
export function findTimeRange(ascending: Float64Array, known: TimeRange | null): TimeRange {
  const first = ascending[0] as number;
  const last = ascending.at(-1) as number;
  if (known !== null && known.start <= first && last < known.end) return known;
  const before = ascending.findLast((time) => time < last);
  const behind = last + (before === undefined ? 1 : last - before);
  return known === null
    ? { start: first, end: behind }
    : { start: Math.min(known.start, first), end: Math.max(known.end, last < known.end ? last : behind) };
}

/**
 * Bins over a range: one per distinct time where there are at most `maxBins`, else `maxBins` runs of about as many
 * samples each; equal times are never parted. Bins meet halfway between the times on either side.
 */
export function binTimes(ascending: Float64Array, range: TimeRange, maxBins: number): TimeBin[] {
  const runs = distinctRuns(ascending);
  const joined = runs.length <= maxBins ? runs : joinRuns(runs, ascending.length, maxBins);
  const borders = joined.slice(1).map((run, index) => {
    const before = joined[index] as Run;
    return halfway(ascending[before.end - 1] as number, ascending[run.begin] as number);
  });
  return joined.map(({ begin, end }, index) => ({
    start: borders[index - 1] ?? range.start,
    end: borders[index] ?? range.end,
    value: ascending.subarray(begin, end).reduce((sum, time) => sum + time, 0) / (end - begin),
    count: end - begin,
  }));
}

/** Samples `begin` … `end` − 1. */
interface Run {
  readonly begin: number;
  readonly end: number;
}

function distinctRuns(ascending: Float64Array): Run[] {
  const runs: Run[] = [];
  for (let begin = 0; begin < ascending.length; ) {
    let end = begin + 1;
    while (ascending[end] === ascending[begin]) end++;
    runs.push({ begin, end });
    begin = end;
  }
  return runs;
}

/** Run r goes to the bin that the middle of its samples falls into when all samples are cut into equal parts. */
function joinRuns(runs: readonly Run[], sampleCount: number, binCount: number): Run[] {
  const joined: Run[] = [];
  let lastBin = -1;
  for (const { begin, end } of runs) {
    const bin = Math.floor(((begin + end) * binCount) / (2 * sampleCount));
    const last = joined.at(-1);
    if (bin === lastBin && last !== undefined) joined[joined.length - 1] = { begin: last.begin, end };
    else joined.push({ begin, end });
    lastBin = bin;
  }
  return joined;
}

/** Above `a`, at most `b`: a time of `b` belongs to the bin that starts there. */
function halfway(a: number, b: number): number {
  const middle = a + (b - a) / 2;
  return middle > a ? middle : b;
}
