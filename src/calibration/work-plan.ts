/** What is taken of each value, before anything is run: rows, their places, and what of it the file will say. */
import type { SampleBatch } from "./batches.js";
import { chooseBatchRows, type ProbedLayout, type RowBudget, type ValueExtent } from "./extents.js";
import type { ValueWork } from "./passes.js";
import { MAX_HELD_BACK_ROWS, type RowsInfo, type ValueInfo } from "./statistics-info.js";
import type { SampleOrder } from "./time-bins.js";
import { viewValue } from "./value-shape.js";
import type { CalibrationValue } from "./values.js";

/**
 * Most rows of a linear layer's Hessian, spread evenly over samples and tokens. GPTQ (arXiv 2210.17323) takes 128
 * sequences of 2,048 tokens; tokens of an image resemble each other more, and the cost grows with every one of them.
 */
export const LINEAR_ROWS = 16384;

/** Positions of a convolution's: about 8,000 gave the reference figures of gptq through im2col. */
export const CONV_ROWS = 8192;

/** Extents of the values for a batch. */
export type ExtentsOf = (batch: SampleBatch) => ProbedLayout["extents"];

export function hessianBudget({ conv }: CalibrationValue, { used }: SampleOrder): RowBudget {
  return { sampleCount: used.length, limit: conv === null ? LINEAR_ROWS : CONV_ROWS };
}

export function heldBackBudget({ heldBack }: SampleOrder): RowBudget {
  return { sampleCount: heldBack.length, limit: MAX_HELD_BACK_ROWS };
}

export interface PlannedValue extends ValueWork {
  /** Time of the sample that each held-back row is of. */
  readonly heldBackTimes: Float32Array;
  /** Rows held back before those of each batch, by input of the value. */
  readonly heldBackStarts: ReadonlyMap<SampleBatch, readonly number[]>;
  /** Why there are no rows; null: there are. */
  readonly hessianReason: string | null;
  readonly heldBackReason: string | null;
}

export interface ValuePlanJob {
  readonly values: readonly CalibrationValue[];
  readonly batches: readonly SampleBatch[];
  readonly extentsOf: ExtentsOf;
  readonly order: SampleOrder;
  readonly wantsHessians: boolean;
  readonly timeOf: (sample: number) => number;
}

export function planValues(job: ValuePlanJob): PlannedValue[] {
  const { batches, extentsOf, order, wantsHessians } = job;
  return job.values.map((value) => {
    const noRows = whyNoRows(value);
    const hessianReason = wantsHessians ? noRows : "no Hessians were asked for";
    const heldBackReason = noRows ?? (order.heldBack.length > 0 ? null : "no samples were held back");
    const times: number[] = [];
    const heldBackStarts = new Map<SampleBatch, number[]>();
    let hessianRows = 0;
    for (const batch of batches) {
      const wanted = batch.isHeldBack ? heldBackReason === null : hessianReason === null;
      if (!wanted) continue;
      const budget = batch.isHeldBack ? heldBackBudget(order) : hessianBudget(value, order);
      const starts: number[] = [];
      for (const extent of inputExtents(value, extentsOf(batch))) {
        starts.push(times.length);
        const { samples } = chooseBatchRows(value, extent, batch, budget);
        if (batch.isHeldBack) for (const sample of samples) times.push(job.timeOf(sample));
        else hessianRows += samples.length;
      }
      if (batch.isHeldBack) heldBackStarts.set(batch, starts);
    }
    const largest = (measure: (batch: SampleBatch) => number) =>
      batches.reduce((most, batch) => Math.max(most, measure(batch)), 0);
    return {
      value,
      hessianRows,
      heldBackRows: times.length,
      batchBytes: 4 * largest((batch) => batchElements(value, batch, extentsOf)),
      channelElements: largest((batch) => largestChannel(value, inputExtents(value, extentsOf(batch)))),
      heldBackTimes: Float32Array.from(times),
      heldBackStarts,
      hessianReason,
      heldBackReason,
    };
  });
}

/** What the file says of a value. @param refused why its Hessian is not taken after all */
export function describeValue(planned: PlannedValue, refused: string | undefined): ValueInfo {
  const { value, hessianRows, heldBackRows, hessianReason, heldBackReason } = planned;
  const rows = (count: number, reason: string | null): RowsInfo =>
    reason === null && count > 0 ? { rows: count } : { reason: reason ?? "no rows were left to it" };
  return {
    inputs: [...value.inputs],
    channels: value.channels,
    conv: value.conv,
    cols: value.cols,
    hessian: rows(hessianRows, refused ?? hessianReason),
    heldBack: rows(heldBackRows, heldBackReason),
  };
}

export function inputExtents(value: CalibrationValue, extents: ProbedLayout["extents"]): ValueExtent[] {
  return value.inputs.map((input) => extents.get(input) as ValueExtent);
}

function batchElements(value: CalibrationValue, batch: SampleBatch, extentsOf: ExtentsOf): number {
  return inputExtents(value, extentsOf(batch)).reduce(
    (sum, { isPerSample, elementCount }) => sum + elementCount * (isPerSample ? batch.samples.length : 1),
    0,
  );
}

/** Why rows of X cannot be had; null where they can. */
function whyNoRows({ conv }: CalibrationValue): string | null {
  return conv !== null && conv.groups > 1 ? `it is a convolution of ${conv.groups} groups` : null;
}

/** Elements of a channel of the largest image among the value's inputs; 0 where channels come last. */
function largestChannel(value: CalibrationValue, extents: readonly ValueExtent[]): number {
  return extents.reduce((most, { shape }) => {
    const { inner } = viewValue(value, shape);
    return inner === 1 && value.conv === null ? most : Math.max(most, inner);
  }, 0);
}
