/** How far predictions lie from the original's, time by time: noise is predicted at some times far better than at others. */
import { addOutputSums, deriveOutputMetrics, type OutputMetrics, type OutputSums, zeroOutputSums } from "./metrics.js";
import { sumPrediction } from "./prediction-metrics.js";

/** The prediction at one time, over all samples. */
export interface TimeError extends OutputMetrics {
  readonly time: number;
}

/** Sums of prediction errors at each time. */
export class TimeErrors {
  readonly #sums = new Map<number, OutputSums>();

  add(time: number, prediction: Float32Array, reference: Float32Array): void {
    const known = this.#sums.get(time);
    const sums = known ?? zeroOutputSums();
    if (known === undefined) this.#sums.set(time, sums);
    addOutputSums(sums, sumPrediction(prediction, reference));
  }

  /** Largest time first, as samplers go. */
  list(): TimeError[] {
    return [...this.#sums].sort(([a], [b]) => b - a).map(([time, sums]) => ({ time, ...deriveOutputMetrics(sums) }));
  }

  /** Of all times together. */
  total(): OutputSums {
    const total = zeroOutputSums();
    for (const sums of this.#sums.values()) addOutputSums(total, sums);
    return total;
  }
}

/** The mean of one figure over times: each counts the same, however many samples it has. */
export function meanOverTimes(times: readonly TimeError[], figure: keyof OutputMetrics): number {
  return times.reduce((sum, error) => sum + error[figure], 0) / times.length;
}
