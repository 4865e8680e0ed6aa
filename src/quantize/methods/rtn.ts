import type { Method } from "./method.js";

/** Round to nearest: scale and zero point from the range of the group. */
export const rtn: Method = {
  name: "rtn",
  needs: "weights",
  norm: 2,
  check() {},
  scratchBytes: () => 0,
  quantizeRows: (kernels, tilePtr, rowCount) => kernels.quantizeRowsRtn(tilePtr, rowCount),
};
