/**
 * How a task hears that nobody wants it any more: through shared memory, since the thread works without a break and
 * must not be stopped while it does (engine/pool.ts).
 */
import { ArrowQuantError } from "../errors.js";

/** Shared by the tasks of one job, one element: not 0 once the job is aborted. */
export type CancelFlag = Int32Array;

/** Of the task at work: a thread has one at a time, from beginning to end. */
let cancelled: CancelFlag | null = null;

/** Names the flag of the task that is about to begin. */
export function followCancel(flag: CancelFlag): void {
  cancelled = flag;
}

/** To be called several times a second. What it throws reaches nobody: whoever gave the task has given it up. */
export function throwIfCancelled(): void {
  if (cancelled !== null && Atomics.load(cancelled, 0) !== 0) {
    throw new ArrowQuantError("E_INTERRUPTED", "the job of this task was aborted");
  }
}
