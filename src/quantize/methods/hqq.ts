import { ArrowQuantError } from "../../errors.js";
import type { Method } from "./method.js";

/** Steps whose zero points are kept: the start and 20 more (assembly/hqq.ts, ITERATIONS). */
const STEPS = 21;
/** Bytes of a row's error per step, padded to 16 (assembly/hqq.ts). */
const ERROR_BYTES = 8 * (STEPS + 1);
/** Bytes of a block of weights (assembly/hqq.ts, BLOCK_FLOATS). */
const BLOCK_BYTES = 4 * 2048;

/** Half-Quadratic Quantization: the range's scales, zero points moved until few weights err much. */
export const hqq: Method = {
  name: "hqq",
  needs: "weights",
  norm: 0.7,
  check(spec) {
    if (spec.symmetric) {
      throw new ArrowQuantError("E_CONFLICT", "method hqq moves zero points, symmetric has none to move", {
        hint: "use --method rtn or mse with --symmetric, or leave --symmetric out",
        details: { method: "hqq", symmetric: true },
      });
    }
  },
  scratchBytes: (spec, cols) => ERROR_BYTES + BLOCK_BYTES + 4 * STEPS * Math.ceil(cols / spec.groupSize),
  quantizeRows: (kernels, tilePtr, rowCount) => kernels.quantizeRowsHqq(tilePtr, rowCount),
};
