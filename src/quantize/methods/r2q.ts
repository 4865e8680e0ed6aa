import { ArrowQuantError } from "../../errors.js";
import type { Method } from "./method.js";

/** Residual refinement: two bits as two one-bit passes (after arXiv 2511.21736). */
export const r2q: Method = {
  name: "r2q",
  needs: "weights",
  norm: 2,
  check(spec) {
    if (spec.bits !== 2) {
      throw new ArrowQuantError("E_CONFLICT", `method r2q has two bits, bit width is ${spec.bits}`, {
        hint: "use --bit-width 2, or another method",
        details: { method: "r2q", bits: spec.bits },
      });
    }
    if (spec.scaleBits === null) {
      throw new ArrowQuantError("E_CONFLICT", "method r2q codes its two scales per group, scale bits is none", {
        hint: "use --scale-bits 6, or another method",
        details: { method: "r2q", scaleBits: null },
      });
    }
  },
  scratchBytes: () => 0,
  quantizeRows: (kernels, tilePtr, rowCount) => kernels.quantizeRowsR2q(tilePtr, rowCount),
};
