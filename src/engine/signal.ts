/** Signals of jobs: each job has one of its own, which the caller, the job itself and the session can abort. */
import { setMaxListeners } from "node:events";

export interface JobSignal extends Disposable {
  readonly signal: AbortSignal;
  abort(reason: unknown): void;
}

interface Following {
  readonly controllers: Set<AbortController>;
  readonly listener: () => void;
}

/** One listener on each caller's signal, however many jobs follow it: Node reports more than ten as a leak. */
const followings = new WeakMap<AbortSignal, Following>();

/**
 * A signal for one job that follows the caller's and can be aborted by the job itself. Disposed of when the job
 * ends: AbortSignal.any would be held by a long-lived parent for good (nodejs/node#54614).
 */
export function deriveSignal(parent: AbortSignal | undefined): JobSignal {
  const controller = new AbortController();
  // Every chunk under way listens to its job's signal.
  setMaxListeners(0, controller.signal);
  if (parent?.aborted) controller.abort(parent.reason);
  else if (parent !== undefined) follow(parent, controller);
  return {
    signal: controller.signal,
    abort: (reason) => controller.abort(reason),
    [Symbol.dispose]: () => unfollow(parent, controller),
  };
}

function follow(parent: AbortSignal, controller: AbortController): void {
  let following = followings.get(parent);
  if (following === undefined) {
    const controllers = new Set<AbortController>();
    following = { controllers, listener: () => abortAll(controllers, parent.reason) };
    followings.set(parent, following);
    parent.addEventListener("abort", following.listener, { once: true });
  }
  following.controllers.add(controller);
}

function abortAll(controllers: ReadonlySet<AbortController>, reason: unknown): void {
  for (const controller of controllers) controller.abort(reason);
}

function unfollow(parent: AbortSignal | undefined, controller: AbortController): void {
  const following = parent === undefined ? undefined : followings.get(parent);
  if (parent === undefined || following === undefined) return;
  following.controllers.delete(controller);
  if (following.controllers.size > 0) return;
  parent.removeEventListener("abort", following.listener);
  followings.delete(parent);
}

/**
 * The outcome of `work`, or the signal's reason as soon as it is aborted. `work` then goes on unseen, so this is only
 * for what ends by itself and harms nothing by going on: reading headers, hashing a sample, writing to a doomed file.
 */
export function raceSignal<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}
