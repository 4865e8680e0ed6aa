/** A worker thread: takes tasks, answers with values. Which task is which function stands in one table. */
import { move, transferableSymbol, valueSymbol } from "piscina";
import { toArrowQuantError } from "../errors.js";
import { type CancelFlag, followCancel } from "./cancel.js";
import { findColumnMaxima } from "./column-maxima.js";
import { compareChunk, compareKeptChunk } from "./compare-chunk.js";
import { factorHessian } from "./factor-hessian.js";
import { quantizeGgmlChunk } from "./ggml-chunk.js";
import { countWeights } from "./histogram.js";
import { keepChunk } from "./keep-chunk.js";
import type { Replies, Reply, Task } from "./messages.js";
import { quantizeChunk } from "./quantize-chunk.js";
import { convertChunk, rebuildChunk } from "./rebuild-chunk.js";
import { castRows, compareRows } from "./row-errors.js";
import { groupTimes } from "./time-groups.js";

type TaskOf<K extends Task["kind"]> = Extract<Task, { kind: K }>;

const TASKS: { [K in Task["kind"]]: (task: TaskOf<K>) => Replies[K] } = {
  "time-groups": groupTimes,
  "column-maxima": findColumnMaxima,
  histogram: countWeights,
  ggml: quantizeGgmlChunk,
  cast: castRows,
  "compare-rows": compareRows,
  factor: factorHessian,
  quantize: quantizeChunk,
  keep: keepChunk,
  compare: compareChunk,
  "compare-kept": compareKeptChunk,
  rebuild: rebuildChunk,
  convert: convertChunk,
};

/** Buffers of a reply are moved back to the main thread, not copied. */
function moved<K extends Task["kind"]>(reply: Reply<K>): unknown {
  const buffers = "ok" in reply ? Object.values(reply.ok).filter((value) => value instanceof ArrayBuffer) : [];
  return move({ [transferableSymbol]: buffers, [valueSymbol]: reply } as unknown as Parameters<typeof move>[0]);
}

export default function runTask(task: Task & { readonly cancelled: CancelFlag }): unknown {
  followCancel(task.cancelled);
  try {
    const run = TASKS[task.kind] as (task: Task) => Replies[Task["kind"]];
    return moved({ ok: run(task) });
  } catch (thrown) {
    return moved({ error: toArrowQuantError(thrown).toJSON() });
  }
}
