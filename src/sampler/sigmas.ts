/** Noise levels σ between the tabled ones, and where on the table a level lies. */
import { ArrowQuantError } from "../errors.js";

/** The table at fractional timesteps, linearly; outside of it its ends. */
export function interpolateSigmas(table: Float32Array, timesteps: Float64Array): Float64Array {
  const last = table.length - 1;
  return timesteps.map((timestep) => {
    const below = Math.min(Math.max(Math.floor(timestep), 0), last);
    const above = Math.min(below + 1, last);
    const low = table[below] as number;
    return low + ((table[above] as number) - low) * (timestep - below);
  });
}

/** The timestep, with fraction, whose level is `sigma`: linear in log σ, within the (rising) table. */
export function locateSigma(table: Float32Array, sigma: number): number {
  const last = table.length - 1;
  if (sigma <= (table[0] as number)) return 0;
  if (sigma >= (table[last] as number)) return last;
  let below = 0;
  let above = last;
  while (above - below > 1) {
    const middle = (below + above) >> 1;
    if ((table[middle] as number) <= sigma) below = middle;
    else above = middle;
  }
  const low = Math.log(table[below] as number);
  const high = Math.log(table[above] as number);
  return below + (Math.log(sigma) - low) / (high - low);
}

/** ρ of Karras et al., arXiv 2206.00364, table 1. */
const KARRAS_RHO = 7;

export interface SigmaSpacing {
  readonly use_karras_sigmas: boolean;
  readonly use_exponential_sigmas: boolean;
}

/**
 * `sigmas` (falling), or as many spaced as the config says between `ends`, the levels given where they are null.
 * `E_SCHEDULER` for ends the wrong way round.
 */
export function spaceSigmas(
  spacing: SigmaSpacing,
  sigmas: Float64Array,
  ends: { readonly smallest: number | null; readonly largest: number | null },
): Float64Array {
  const largest = ends.largest ?? (sigmas[0] as number);
  const smallest = ends.smallest ?? (sigmas[sigmas.length - 1] as number);
  if (smallest > largest) {
    throw new ArrowQuantError("E_SCHEDULER", `sigma_min ${smallest} is above sigma_max ${largest}`, {
      details: { sigmaMin: smallest, sigmaMax: largest },
    });
  }
  const ramp = (i: number) => (sigmas.length === 1 ? 0 : i / (sigmas.length - 1));
  if (spacing.use_karras_sigmas) return sigmas.map((_, i) => karrasSigma(ramp(i), smallest, largest, KARRAS_RHO));
  if (spacing.use_exponential_sigmas) {
    const first = Math.log(largest);
    const last = Math.log(smallest);
    return sigmas.map((_, i) => Math.exp(first + (last - first) * ramp(i)));
  }
  return sigmas;
}

/** Equation 5 of arXiv 2206.00364: `ramp` 0 gives the largest, 1 the smallest. */
export function karrasSigma(ramp: number, smallest: number, largest: number, rho: number): number {
  const first = largest ** (1 / rho);
  return (first + ramp * (smallest ** (1 / rho) - first)) ** rho;
}
