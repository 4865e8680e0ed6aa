/** Which of the training timesteps a sampler of few steps visits (arXiv 2305.08891, table 2). */
import { ArrowQuantError } from "../errors.js";

export const TIMESTEP_SPACINGS = ["leading", "trailing", "linspace"] as const;
export type TimestepSpacing = (typeof TIMESTEP_SPACINGS)[number];

export interface GridConfig {
  readonly num_train_timesteps: number;
  readonly timestep_spacing: TimestepSpacing;
  readonly steps_offset: number;
}

/**
 * `count` timesteps in visiting order, the noisiest first. `fractional`: those of `linspace` are not rounded (the
 * Euler schedulers interpolate). `open`: leading and linspace count one step more and leave the last one out (the
 * DPM-Solver family, which goes on to no noise from there).
 */
export function createTimestepGrid(
  config: GridConfig,
  count: number,
  { fractional = false, open = false }: { fractional?: boolean; open?: boolean } = {},
): Float64Array {
  const trainCount = config.num_train_timesteps;
  const spacing = config.timestep_spacing;
  const listed = open && spacing !== "trailing" ? count + 1 : count;
  if (listed > trainCount) {
    const most = trainCount - (listed - count);
    throw new ArrowQuantError("E_SCHEDULER", `${count} steps are more than ${trainCount} training timesteps allow`, {
      hint: `use at most ${most} steps`,
      details: { steps: count, trainTimesteps: trainCount, largest: most },
    });
  }
  if (spacing === "linspace" && listed === 1) {
    throw new ArrowQuantError("E_SCHEDULER", "one step of timestep_spacing linspace would start without noise", {
      hint: "use at least 2 steps",
      details: { steps: count, spacing },
    });
  }
  const timestepAt = GRIDS[spacing](trainCount, listed, config.steps_offset);
  const grid = Float64Array.from({ length: count }, (_, i) => {
    const timestep = timestepAt(spacing === "trailing" ? i : listed - 1 - i);
    return fractional ? Math.fround(timestep) : roundHalfEven(timestep);
  });
  const first = grid[0] as number;
  if (first >= trainCount) {
    throw new ArrowQuantError("E_SCHEDULER", `the first of ${count} timesteps is ${first} of ${trainCount}`, {
      hint: "use fewer steps: steps_offset moves them past the last training timestep",
      details: { steps: count, timestep: first, trainTimesteps: trainCount, stepsOffset: config.steps_offset },
    });
  }
  return grid;
}

/** Timestep i, in the order that numpy counts in: leading and linspace from the least, trailing from the largest. */
const GRIDS: Readonly<
  Record<TimestepSpacing, (trainCount: number, count: number, offset: number) => (i: number) => number>
> = {
  leading: (trainCount, count, offset) => {
    const ratio = Math.floor(trainCount / count);
    return (i) => i * ratio + offset;
  },
  linspace: (trainCount, count) => {
    const step = (trainCount - 1) / (count - 1);
    return (i) => (i === count - 1 ? trainCount - 1 : i * step);
  },
  trailing: (trainCount, count) => {
    const step = trainCount / count;
    return (i) => roundHalfEven(trainCount - i * step) - 1;
  },
};

/** As numpy rounds; Math.round takes halves upwards. */
export function roundHalfEven(value: number): number {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest === 0.5) return below % 2 === 0 ? below : below + 1;
  return rest < 0.5 ? below : below + 1;
}
