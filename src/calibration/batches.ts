/** Samples as the runtime gets them: in order of time, several at once where the graph allows it. Pure. */
import type { GraphInputs } from "./graph-inputs.js";
import type { SampleOrder } from "./time-bins.js";

/** Samples run at once. More does not make small models faster, and large ones take memory by the sample. */
export const BATCH_SAMPLES = 16;

export interface SampleBatch {
  /** Indices of the samples. */
  readonly samples: readonly number[];
  /** Place of the first among all used, or among all held back. */
  readonly firstRank: number;
  readonly isHeldBack: boolean;
}

export interface BatchRules {
  readonly maxSamples: number;
  /** Samples of unequal keys cannot share a batch. */
  readonly keyOf: (sample: number) => string;
}

/** Most samples that a graph can be run on at once, whatever memory there is. */
export function mostAtOnce({ inputs, fixedBatch }: GraphInputs): number {
  if (fixedBatch !== null) return fixedBatch;
  // One value would have to serve the whole batch.
  return inputs.some(({ isBatched, role }) => !isBatched && role !== "time") ? 1 : BATCH_SAMPLES;
}

/** Whether the graph takes one time for all samples of a batch. */
export function sharesTime({ inputs }: GraphInputs): boolean {
  return inputs.some(({ isBatched, role }) => !isBatched && role === "time");
}

/** First the used samples by rising time, then those held back. */
export function planBatches(order: SampleOrder, rules: BatchRules): SampleBatch[] {
  return [...cutBatches(order.used, false, rules), ...cutBatches(order.heldBack, true, rules)];
}

function cutBatches(sorted: Uint32Array, isHeldBack: boolean, { maxSamples, keyOf }: BatchRules): SampleBatch[] {
  const batches: SampleBatch[] = [];
  for (let first = 0; first < sorted.length; ) {
    const key = keyOf(sorted[first] as number);
    let end = first + 1;
    while (end < sorted.length && end - first < maxSamples && keyOf(sorted[end] as number) === key) end++;
    batches.push({ samples: [...sorted.subarray(first, end)], firstRank: first, isHeldBack });
    first = end;
  }
  return batches;
}

/** Samples `first` … `first + count − 1` of a batch lie in one time bin. */
export interface BinSegment {
  readonly bin: number;
  readonly first: number;
  readonly count: number;
}

/** The bins that a batch of used samples goes through. @param binEnds rank at which each bin ends, ascending */
export function segmentBatch({ firstRank, samples }: SampleBatch, binEnds: readonly number[]): BinSegment[] {
  const segments: BinSegment[] = [];
  for (let first = 0; first < samples.length; ) {
    const bin = binEnds.findIndex((end) => firstRank + first < end);
    const count = Math.min(samples.length, (binEnds[bin] as number) - firstRank) - first;
    segments.push({ bin, first, count });
    first += count;
  }
  return segments;
}
