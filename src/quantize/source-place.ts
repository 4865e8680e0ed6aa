/** Where rows of a tensor lie in its file, as workers read them. */
import { DTYPES } from "../tensor/dtype.js";
import type { TensorInfo } from "../tensor/info.js";
import { viewAs2d } from "../tensor/layout.js";
import type { SourceRows } from "../worker/messages.js";

/** @param firstRow of the tensor's 2-D view */
export function placeRows(tensor: TensorInfo, firstRow: number): Pick<SourceRows, "byteOffset" | "storedRows"> {
  const { rows, cols } = viewAs2d(tensor.shape);
  const { bits } = DTYPES[tensor.dtype];
  const { byteOffset } = tensor.location;
  if (tensor.transposed) return { byteOffset: byteOffset + (firstRow * bits) / 8, storedRows: rows };
  return { byteOffset: byteOffset + (firstRow * cols * bits) / 8 };
}
