/** Runs of a tensor's rows, in whatever rows it is seen, as workers read them. */
import { DTYPES } from "../../tensor/dtype.js";
import type { TensorInfo } from "../../tensor/info.js";
import type { SourceRows } from "../../worker/messages.js";
import { placeRows } from "../source-place.js";
import type { RowView } from "./job.js";

export interface OpenSource {
  readonly fd: number;
  readonly path: string;
}

/** Some rows of a view. */
export interface RowSpan {
  readonly firstRow: number;
  readonly rows: number;
}

/**
 * @param view of a tensor that is stored transposed, or has a scale for each row, its own 2-D view
 * @param scales of the whole tensor; null: none
 */
export function tensorRows(
  { fd, path }: OpenSource,
  tensor: TensorInfo,
  { cols }: RowView,
  { firstRow, rows }: RowSpan,
  scales: Float32Array | null,
): SourceRows {
  const { name: tensorName, dtype, location, sourceScale } = tensor;
  const byteOffset = location.byteOffset + (firstRow * cols * DTYPES[dtype].bits) / 8;
  return {
    fd,
    path,
    tensorName,
    ...(tensor.transposed ? placeRows(tensor, firstRow) : { byteOffset }),
    dtype,
    rows,
    cols,
    firstRow,
    scales: scales === null || sourceScale?.per === "tensor" ? scales : scales.slice(firstRow, firstRow + rows),
  };
}
