import type { Method } from "./method.js";

/** float32 values per group of a unit beside its weights and their importances (assembly/mse-unit.ts). */
const GROUP_ARRAYS = 5;

const padToVector = (count: number) => Math.ceil(count / 4) * 4;

/** Least weighted squared error: stored scales and zero points searched, super-group by super-group. */
export const mse: Method = {
  name: "mse",
  needs: "weights",
  norm: 2,
  check() {},
  scratchBytes(spec, cols) {
    // A unit is searched at a time: a super-group, which a row can cut short, or a group.
    const groups =
      spec.superGroupSize === null
        ? 1
        : Math.min(spec.superGroupSize / spec.groupSize, Math.ceil(cols / spec.groupSize));
    return 4 * (padToVector(cols) + groups * (2 * padToVector(spec.groupSize) + GROUP_ARRAYS));
  },
  quantizeRows: (kernels, tilePtr, rowCount) => kernels.quantizeRowsMse(tilePtr, rowCount),
};
