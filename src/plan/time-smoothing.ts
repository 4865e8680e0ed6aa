/**
 * The sequence of a layer's scales over time, on their logarithms: a step between groups then means the same ratio at
 * any magnitude, and up is as far as down. Pure.
 */
import type { ActivationSettings } from "./plan.js";

/** |log s_{k+1} − log s_k| of each pair of neighbours: 0.3 is a third more, or a quarter less. */
export function smoothnessScores(scales: readonly number[]): number[] {
  return scales.slice(1).map((scale, index) => Math.abs(Math.log(scale / (scales[index] as number))));
}

/**
 * The x of least Σ n_k (x_k − y_k)² + λ Σ (x_{k+1} − x_k)², exactly: its normal equations are tridiagonal and positive
 * definite, (n_k + λ·neighbours) x_k − λ (x_{k−1} + x_{k+1}) = n_k y_k, solved by elimination.
 * @param values y
 * @param weights n, each above zero
 * @param penalty λ, at least zero
 */
export function fitTransitions(values: readonly number[], weights: readonly number[], penalty: number): number[] {
  const count = values.length;
  const diagonal: number[] = [];
  const right: number[] = [];
  for (let k = 0; k < count; k++) {
    const weight = weights[k] as number;
    const neighbours = (k > 0 ? 1 : 0) + (k < count - 1 ? 1 : 0);
    // Row k less the row above, times −λ over its pivot: the entry below the diagonal vanishes.
    const factor = k === 0 ? 0 : penalty / (diagonal[k - 1] as number);
    diagonal.push(weight + penalty * neighbours - factor * penalty);
    right.push(weight * (values[k] as number) + factor * (right[k - 1] ?? 0));
  }
  const fitted = new Array<number>(count);
  for (let k = count - 1; k >= 0; k--) {
    fitted[k] = ((right[k] as number) + penalty * (fitted[k + 1] ?? 0)) / (diagonal[k] as number);
  }
  return fitted;
}

type Interpolation = NonNullable<ActivationSettings["boundarySmoothing"]>["interpolation"];

/** Weight of a group at a distance of 0 … 1 windows: 1 at none, (nearly) 0 at one, each half at a half. */
const FALLS: Readonly<Record<Interpolation, (distance: number) => number>> = {
  linear: (d) => 1 - d,
  cubic: (d) => 1 - d * d * (3 - 2 * d),
  // Steep enough that it falls from 0.993 to 0.007.
  sigmoid: (d) => 1 / (1 + Math.exp(10 * (d - 0.5))),
};

/**
 * Each value as the weighted mean of those at most `window` groups away; where the sequence ends, of those there are.
 * Equal values stay, and no value leaves the range of its neighbours.
 */
export function smoothBoundaries(
  values: readonly number[],
  weights: readonly number[],
  { window, interpolation }: NonNullable<ActivationSettings["boundarySmoothing"]>,
): number[] {
  const fall = FALLS[interpolation];
  return values.map((_value, k) => {
    let total = 0;
    let sum = 0;
    const last = Math.min(values.length - 1, k + window);
    for (let j = Math.max(0, k - window); j <= last; j++) {
      const weight = (weights[j] as number) * fall(Math.abs(j - k) / (window + 1));
      total += weight;
      sum += weight * (values[j] as number);
    }
    return sum / total;
  });
}
