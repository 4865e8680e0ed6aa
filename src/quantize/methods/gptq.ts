import { PANEL } from "../../kernels/regions.js";
import type { Method } from "./method.js";

/** Columns quantized before what they did is worked into the rest (assembly/gptq.ts, BLOCK_COLS). */
const BLOCK_COLS = 128;

/** GPTQ: column by column, each error made good by the columns still to come, as the layer's inputs weigh them. */
export const gptq: Method = {
  name: "gptq",
  needs: "hessian",
  norm: 2,
  check() {},
  scratchBytes(spec, cols, slabRows) {
    const panelCount = Math.ceil(slabRows / PANEL);
    const paddedCols = Math.ceil(cols / PANEL) * PANEL;
    // Per eight rows: weights, codes, scales and zero points of the whole slab, and what done columns add to a
    // block's.
    const groups = Math.ceil(cols / spec.groupSize);
    return panelCount * PANEL * (5 * paddedCols + 8 * groups + 4 * BLOCK_COLS);
  },
  quantizeRows: (kernels, tilePtr, rowCount) => kernels.quantizeRowsGptq(tilePtr, rowCount),
};
