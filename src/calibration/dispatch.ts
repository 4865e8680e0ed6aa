/** The values of a batch that was run, on their way to the threads that keep statistics of them. */
import { ArrowQuantError } from "../errors.js";
import type { RunTensor } from "../runtime/runtime.js";
import { type SampleBatch, segmentBatch } from "./batches.js";
import type { Collector } from "./collect/collector.js";
import type { ElementSegment, UnitShape, ValueUse } from "./collect/message.js";
import type { ExposedValue } from "./expose.js";
import { chooseBatchRows, type ValueExtent } from "./extents.js";
import type { Pass } from "./passes.js";
import type { SampleSpool } from "./spool.js";
import type { TimeBin } from "./statistics-info.js";
import type { SampleOrder } from "./time-bins.js";
import { viewImages, viewValue } from "./value-shape.js";
import { type ExtentsOf, heldBackBudget, hessianBudget, type PlannedValue } from "./work-plan.js";

export interface Dispatch {
  readonly pass: Pass;
  readonly collector: Collector;
  readonly exposed: readonly ExposedValue[];
  readonly planned: readonly PlannedValue[];
  readonly extentsOf: ExtentsOf;
  readonly order: SampleOrder;
  readonly bins: readonly TimeBin[];
  readonly spool: SampleSpool;
}

export interface BatchResults {
  readonly batch: SampleBatch;
  /** Size of the batch as it was run: where the graph fixes it, `batch` may be smaller. */
  readonly rows: number;
  readonly results: Readonly<Record<string, RunTensor>>;
}

/** Hands each value to the threads that keep units of it: moved to the last of them, copied for the others. */
export function sendBatch(dispatch: Dispatch, { batch, rows, results }: BatchResults): void {
  const { pass, collector, exposed, bins, spool } = dispatch;
  const extents = dispatch.extentsOf(batch);
  const binEnds = endsOf(bins);
  const times = batch.samples.map((sample) => spool.time(sample));
  const samples = `calibration samples at times ${times[0]} to ${times.at(-1)}`;
  for (const { input, output } of exposed) {
    const { data, shape } = results[output] as RunTensor;
    const extent = extents.get(input) as ValueExtent;
    if (!(data instanceof Float32Array)) {
      throw new ArrowQuantError("E_GRAPH", `value "${input}" is no float32 tensor when it is run`, {
        details: { value: input },
      });
    }
    const segments = batch.isHeldBack ? [] : cutElements(batch, binEnds, extent, data.length, rows);
    const takers = pass.threads.flatMap((units, thread) => {
      const uses = units.flatMap(({ work, shape: unit }, index) => {
        const planned = dispatch.planned[work] as PlannedValue;
        const use = planUse(planned, unit, input, shape, extent, batch, dispatch.order);
        return use === null ? [] : [{ unit: index, ...use }];
      });
      return uses.length === 0 ? [] : [{ thread, uses }];
    });
    for (const [index, { thread, uses }] of takers.entries()) {
      // Memory that is not this value's alone cannot be moved.
      const canMove = index === takers.length - 1 && data.byteLength === data.buffer.byteLength;
      collector.add(thread, { kind: "add", data: canMove ? data : data.slice(), segments, uses, samples });
    }
  }
}

/** What a unit makes of the value `input`; null: nothing. */
function planUse(
  { value, heldBackStarts }: PlannedValue,
  unit: UnitShape,
  input: string,
  shape: readonly number[],
  extent: ValueExtent,
  batch: SampleBatch,
  order: SampleOrder,
): Omit<ValueUse, "unit"> | null {
  const place = value.inputs.indexOf(input);
  if (place < 0 || (batch.isHeldBack && !unit.takesHeldBack)) return null;
  const { inner } = viewValue(value, shape);
  const { height, width } = value.conv === null ? { height: 1, width: inner } : viewImages(value.conv, shape);
  const view = { inner, height, width };
  if (batch.isHeldBack) {
    const { rows } = chooseBatchRows(value, extent, batch, heldBackBudget(order));
    return { ...view, rows, firstHeldBackRow: heldBackStarts.get(batch)?.[place] ?? 0 };
  }
  const wanted = unit.hessian !== "none";
  const { rows } = wanted ? chooseBatchRows(value, extent, batch, hessianBudget(value, order)) : NO_ROWS;
  return { ...view, rows, firstHeldBackRow: null };
}

const NO_ROWS = { rows: new Int32Array(0) };

/** Rank at which each bin ends. */
function endsOf(bins: readonly TimeBin[]): number[] {
  let end = 0;
  return bins.map(({ count }) => {
    end += count;
    return end;
  });
}

/** The elements of each bin; those of repeated samples at the end belong to none. */
function cutElements(
  batch: SampleBatch,
  binEnds: readonly number[],
  { isPerSample }: ValueExtent,
  length: number,
  rows: number,
): ElementSegment[] {
  return segmentBatch(batch, binEnds).map(({ bin, first, count }) => {
    if (!isPerSample) return { bin, begin: 0, end: length };
    return { bin, begin: (first * length) / rows, end: ((first + count) * length) / rows };
  });
}
