/** How large each value is for a sample: what passes are planned by. */
import type { RunSession, Runtime } from "../runtime/runtime.js";
import { countElements } from "../tensor/layout.js";
import type { SampleBatch } from "./batches.js";
import { chooseRows, rowQuota } from "./even-rows.js";
import type { ExposableGraph } from "./expose.js";
import { feedBatch, type GraphInputs, type SampleInputs } from "./graph-inputs.js";
import { countRows } from "./value-shape.js";
import type { CalibrationValue } from "./values.js";

/** A value of the graph for one sample; or for a whole batch, where it is the same for all of it. */
export interface ValueExtent {
  readonly isPerSample: boolean;
  /** With `sampleCount` samples in the batch: one, or as many as the graph fixes. */
  readonly shape: readonly number[];
  readonly sampleCount: number;
  /** Of one sample, or of the batch. */
  readonly elementCount: number;
}

export interface ProbedLayout {
  /** By name in the graph. */
  readonly extents: ReadonlyMap<string, ValueExtent>;
  /** Whether samples can share a batch. */
  readonly canBatch: boolean;
}

/** Runs the graph on one sample, and on it twice, and looks at the shapes alone. */
export async function probeExtents(job: {
  readonly runtime: Runtime;
  readonly graph: ExposableGraph;
  readonly values: readonly CalibrationValue[];
  readonly inputs: GraphInputs;
  /** One sample of each layout, by the layout's key. */
  readonly samples: ReadonlyMap<string, SampleInputs>;
  readonly signal: AbortSignal;
}): Promise<Map<string, ProbedLayout>> {
  const { runtime, graph, values, inputs, samples, signal } = job;
  const { path, exposed } = await graph.writeShapes(values);
  const session = await runtime.open(path, { threads: 1 });
  try {
    const probed = new Map<string, ProbedLayout>();
    for (const [layoutKey, sample] of samples) {
      signal.throwIfAborted();
      const shapesOf = async (rows: number) => {
        const outputs = await runFor(
          session,
          inputs,
          sample,
          rows,
          exposed.map(({ output }) => output),
        );
        return new Map(exposed.map(({ input, output }) => [input, outputs.get(output) as number[]]));
      };
      probed.set(layoutKey, await compareShapes(shapesOf, inputs.fixedBatch));
    }
    return probed;
  } finally {
    await session.close();
  }
}

async function runFor(
  session: RunSession,
  inputs: GraphInputs,
  sample: SampleInputs,
  rows: number,
  outputs: readonly string[],
): Promise<Map<string, number[]>> {
  const results = await session.run(feedBatch(inputs, [sample], rows), outputs);
  return new Map(outputs.map((name) => [name, Array.from(results[name]?.data ?? [], Number)]));
}

type Shapes = ReadonlyMap<string, readonly number[]>;

/** A value that grows with the batch is one per sample. */
async function compareShapes(
  shapesOf: (rows: number) => Promise<Shapes>,
  fixedBatch: number | null,
): Promise<ProbedLayout> {
  if (fixedBatch !== null) {
    const extents = mapShapes(await shapesOf(fixedBatch), (shape) => ({
      isPerSample: (shape[0] ?? 1) % fixedBatch === 0,
      sampleCount: fixedBatch,
    }));
    return { extents, canBatch: true };
  }
  const single = await shapesOf(1);
  // Graphs traced for a single sample may fail on two, or fold them into something else.
  const double = await shapesOf(2).catch(() => null);
  const growth = (shape: readonly number[], name: string) =>
    countElements(double?.get(name) ?? shape) / countElements(shape);
  const canBatch = double !== null && [...single].every(([name, shape]) => [1, 2].includes(growth(shape, name)));
  const extents = mapShapes(single, (shape, name) => ({
    isPerSample: !canBatch || growth(shape, name) === 2,
    sampleCount: 1,
  }));
  return { extents, canBatch };
}

function mapShapes(
  shapes: Shapes,
  describe: (shape: readonly number[], name: string) => { isPerSample: boolean; sampleCount: number },
): Map<string, ValueExtent> {
  return new Map(
    [...shapes].map(([name, shape]) => {
      const { isPerSample, sampleCount } = describe(shape, name);
      const elementCount = countElements(shape) / (isPerSample ? sampleCount : 1);
      return [name, { isPerSample, shape, sampleCount, elementCount }];
    }),
  );
}

/** How many rows of a value are taken in all, and of how many samples. */
export interface RowBudget {
  readonly sampleCount: number;
  readonly limit: number;
}

/** Rows of one of a value's inputs that a batch gives, with the sample of each; numbered within the batch's value. */
export function chooseBatchRows(
  value: CalibrationValue,
  extent: ValueExtent,
  { samples, firstRank }: Pick<SampleBatch, "samples" | "firstRank">,
  budget: RowBudget,
): { rows: Int32Array; samples: number[] } {
  const limit = Math.floor(budget.limit / value.inputs.length);
  const quota = (place: number) => rowQuota(firstRank + place, budget.sampleCount, limit);
  const total = countRows(value, extent.shape);
  if (!extent.isPerSample) {
    const rows = chooseRows(total, quota(0), firstRank);
    return { rows, samples: Array.from(rows, () => samples[0] as number) };
  }
  const perSample = total / extent.sampleCount;
  const rows: number[] = [];
  const owners: number[] = [];
  for (const [place, sample] of samples.entries()) {
    for (const row of chooseRows(perSample, quota(place), firstRank + place)) {
      rows.push(place * perSample + row);
      owners.push(sample);
    }
  }
  return { rows: Int32Array.from(rows), samples: owners };
}
