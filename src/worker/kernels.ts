/** The kernels of this thread: one instance, its memory reused by every task and capped by the session. */
import { workerData } from "node:worker_threads";
import { type Kernels, loadKernels } from "../kernels/load.js";

/** What a session tells its workers when they start. */
export interface WorkerSettings {
  readonly arenaBytes: number;
}

let kernels: Kernels | null = null;

export function threadKernels(): Kernels {
  const settings = workerData as WorkerSettings | null;
  kernels ??= loadKernels({ maxBytes: settings?.arenaBytes ?? Infinity });
  return kernels;
}
