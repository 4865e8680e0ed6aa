/** Tensors as rows of whole blocks: what workers read, quantize and compare at a time. */
import { blockElements } from "../../formats/gguf/output-type.js";
import type { Dtype } from "../../tensor/dtype.js";
import { countElements, viewAs2d } from "../../tensor/layout.js";
import type { RowView } from "./job.js";

/** Longer rows are cut where rows have no meaning of their own, so that a few fit a worker's smallest memory. */
const MAX_COLUMNS = 65_536;

/** Rows of one tensor are not joined beyond this to make whole blocks of them. */
const MAX_JOINED_COLUMNS = 1024 * 1024;

/**
 * The tensor's own 2-D view, as far as its rows are whole blocks.
 * @param shape of the source's tensor, with at least one element
 * @returns null where they are not
 */
export function wholeRows(shape: readonly number[], dtype: Dtype): RowView | null {
  const view = viewAs2d(shape);
  return view.cols % blockElements(dtype) === 0 ? view : null;
}

/**
 * As many rows of the tensor's 2-D view side by side as it takes to fill blocks: what importances of columns are
 * repeated over. null where that leaves a part of a row over, or rows become too long.
 */
export function joinedRows(shape: readonly number[], dtype: Dtype): (RowView & { readonly joined: number }) | null {
  const { rows, cols } = viewAs2d(shape);
  const joined = blockElements(dtype) / commonDivisor(cols, blockElements(dtype));
  if (rows % joined !== 0 || cols * joined > MAX_JOINED_COLUMNS) return null;
  return { rows: rows / joined, cols: cols * joined, joined };
}

/** Rows of whole blocks over all elements, of moderate length, whatever the shape. */
export function plainRows(elementCount: number, dtype: Dtype): RowView {
  const block = blockElements(dtype);
  const blocks = elementCount / block;
  let perRow = Math.min(blocks, Math.floor(MAX_COLUMNS / block));
  while (blocks % perRow !== 0) perRow -= 1;
  return { rows: blocks / perRow, cols: perRow * block };
}

/** Rows as `wholeRows` has them where they are not too long to handle, else `plainRows`. */
export function usualRows(shape: readonly number[], dtype: Dtype): RowView {
  const view = shape.length < 2 ? null : wholeRows(shape, dtype);
  return view !== null && view.cols <= MAX_COLUMNS ? view : plainRows(countElements(shape), dtype);
}

function commonDivisor(a: number, b: number): number {
  return b === 0 ? a : commonDivisor(b, a % b);
}
