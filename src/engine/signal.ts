/** Signals of jobs: each job has one of its own, which the caller, the job itself and the session can abort. */
import { setMaxListeners } from "node:events";

export interface JobSignal extends Disposable {
  readonly signal: AbortSignal;
  abort(reason: unknown): void;
}

/**
 * A signal for one job that follows the caller's and can be aborted by the job itself. Disposed of when the job
 * ends: AbortSignal.any would be held by a long-lived parent for good (nodejs/node#54614).
 */
export function deriveSignal(parent: AbortSignal | undefined): JobSignal {
  const controller = new AbortController();
  // Every chunk under way listens to its job's signal.
  setMaxListeners(0, controller.signal);
  const follow = () => controller.abort(parent?.reason);
  if (parent?.aborted) follow();
  else parent?.addEventListener("abort", follow, { once: true });
  return {
    signal: controller.signal,
    abort: (reason) => controller.abort(reason),
    [Symbol.dispose]: () => parent?.removeEventListener("abort", follow),
  };
}

/**
 * The outcome of `work`, or the signal's reason as soon as it is aborted. `work` then goes on unseen, so this is only
 * for what ends by itself and holds nothing that somebody must close: reading headers, hashing a sample.
 */
export function raceSignal<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}
