/** Rows of either kind of native file in the one form that the rebuilding kernels take. */
import { ArrowQuantError } from "../../errors.js";
import { packedBytes, viewAs2d } from "../../tensor/layout.js";
import type { StoredChunk } from "../../tensor/stored.js";
import { type NativeRow, QUANT_TYPES, rowLabel } from "./row.js";
import { holdsBytes } from "./rules.js";

/** Which rows of the chunk's 2-D view to take. */
export interface RowRange {
  readonly firstRow: number;
  readonly rowCount: number;
}

function rowSlice<T extends Uint8Array | Float32Array>(values: T | null, perRow: number, range: RowRange): T | null {
  if (values === null) return null;
  const from = range.firstRow * perRow;
  return values.subarray(from, from + range.rowCount * perRow) as T;
}

/** Each row's own copy of values that hold for all rows. */
function repeatPerRow(values: Float32Array, rowCount: number): Float32Array {
  const repeated = new Float32Array(values.length * rowCount);
  for (let row = 0; row < rowCount; row++) repeated.set(values, row * values.length);
  return repeated;
}

function toExtendedChunk(row: NativeRow, range: RowRange): StoredChunk {
  const { cols } = viewAs2d(row.shape);
  const bits = QUANT_TYPES[row.quantType];
  const groupSize = row.groupSize as number;
  const groups = Math.ceil(cols / groupSize);
  const { superGroupSize, scaleBits, zeroPointBits } = row;
  const scalesPerRow = superGroupSize === null ? groups : Math.ceil(cols / superGroupSize);
  const equalizationScales = row.spatial?.equalizationScales ?? null;
  return {
    bits,
    storageBits: bits,
    groupSize,
    superGroupSize,
    scaleBits,
    zeroPointBits,
    isR2q: row.method === "r2q",
    rows: range.rowCount,
    cols,
    data: rowSlice(row.data, packedBytes(cols, bits), range) as Uint8Array,
    scales: rowSlice(row.scales, scalesPerRow, range) as Float32Array,
    zeroPoints: rowSlice(row.zeroPoints, groups, range),
    scaleCodes: rowSlice(row.scaleCodes, packedBytes(groups, scaleBits ?? 0), range),
    zeroPointCodes: rowSlice(row.zeroPointCodes, packedBytes(groups, zeroPointBits ?? 0), range),
    residualScaleCodes: rowSlice(row.residualScaleCodes, packedBytes(groups, scaleBits ?? 0), range),
    equalizationScales: equalizationScales?.length === 0 ? null : equalizationScales,
  };
}

/** Scales or zero points of a plain row as groups along its rows. */
function spreadPlain(row: NativeRow, values: Float32Array, range: RowRange): Float32Array {
  const { cols } = viewAs2d(row.shape);
  if (row.groupSize !== null) {
    return rowSlice(values, Math.ceil(cols / row.groupSize), range) as Float32Array;
  }
  if (values.length === 1) return new Float32Array(range.rowCount).fill(values[0] as number);
  return row.quantAxis === 0 ? (rowSlice(values, 1, range) as Float32Array) : repeatPerRow(values, range.rowCount);
}

function toPlainChunk(row: NativeRow, range: RowRange): StoredChunk {
  const { cols } = viewAs2d(row.shape);
  const bits = QUANT_TYPES[row.quantType];
  const storageBits = holdsBytes(row) ? 8 : bits;
  const scales = row.scales as Float32Array;
  const isPerColumn = row.groupSize === null && row.quantAxis === 1 && scales.length > 1;
  return {
    bits,
    storageBits,
    groupSize: row.groupSize ?? (isPerColumn ? 1 : cols),
    superGroupSize: null,
    scaleBits: null,
    zeroPointBits: null,
    isR2q: false,
    rows: range.rowCount,
    cols,
    data: rowSlice(row.data, packedBytes(cols, storageBits), range) as Uint8Array,
    scales: spreadPlain(row, scales, range),
    zeroPoints: row.zeroPoints === null ? null : spreadPlain(row, row.zeroPoints, range),
    scaleCodes: null,
    zeroPointCodes: null,
    residualScaleCodes: null,
    equalizationScales: null,
  };
}

/** Rows of the 2-D view that a checked quantized row holds. */
export function countStoredRows(row: NativeRow): number {
  const { rows, cols } = viewAs2d(row.shape);
  return row.crc32 === null ? rows : row.data.length / packedBytes(cols, QUANT_TYPES[row.quantType]);
}

/**
 * A quantized row, as the reader gave it, for the rebuilding kernels: views of the row's own buffers, except
 * that scales which hold for a whole plain tensor or column are repeated.
 *
 * @param range rows of the chunk to take; all of them where it is left out. Plain files hold a tensor in one
 *   row of any size, so that it must be taken in parts.
 * @throws E_NATIVE where the row is kept
 */
export function toStoredChunk(row: NativeRow, range?: RowRange): StoredChunk {
  if (QUANT_TYPES[row.quantType] === 0) {
    throw new ArrowQuantError(
      "E_NATIVE",
      `${rowLabel(row)} is kept as ${row.storedDtype}, there is nothing to rebuild`,
    );
  }
  const taken = range ?? { firstRow: 0, rowCount: countStoredRows(row) };
  // Plain rows are those without a checksum, and need not say by which method they were made.
  return row.crc32 === null ? toPlainChunk(row, taken) : toExtendedChunk(row, taken);
}
