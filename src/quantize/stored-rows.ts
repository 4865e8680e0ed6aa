/** Rows of a native file on their way to the workers: a tensor's chunks in order, each packed into one buffer. */
import type { BufferPool } from "../engine/buffers.js";
import { ArrowQuantError } from "../errors.js";
import { type NativeRow, QUANT_TYPES, rowLabel } from "../formats/parquet/row.js";
import { countStoredRows, toStoredChunk } from "../formats/parquet/stored.js";
import { DTYPES } from "../tensor/dtype.js";
import { viewAs2d } from "../tensor/layout.js";
import type { StoredSpec } from "../tensor/stored.js";
import type { PartRanges } from "../worker/messages.js";
import { type Parts, packParts, partsByteLength } from "../worker/parts.js";

/** Where a row's part of its tensor lies. */
export interface RowPlace {
  readonly firstRow: number;
  readonly rows: number;
  readonly cols: number;
}

/** Follows rows through a file and says which rows of the 2-D view each one holds. */
export class RowTracker {
  #layerName: string | null = null;
  #nextRow = 0;

  place(row: NativeRow): RowPlace {
    if (row.layerName !== this.#layerName || row.chunkIndex === 0) {
      this.#layerName = row.layerName;
      this.#nextRow = 0;
    }
    const { rows: tensorRows, cols } = viewAs2d(row.shape);
    const rows = isKept(row) ? keptRows(row, cols) : countStoredRows(row);
    const firstRow = this.#nextRow;
    this.#nextRow += rows;
    const isLast = row.chunkIndex === row.chunkCount - 1;
    if (this.#nextRow > tensorRows || (isLast && this.#nextRow !== tensorRows)) {
      throw new ArrowQuantError("E_NATIVE", `${rowLabel(row)} ends at row ${this.#nextRow} of ${tensorRows}`, {
        details: { layer: row.layerName, chunkIndex: row.chunkIndex, rows: this.#nextRow, tensorRows },
      });
    }
    return { firstRow, rows, cols };
  }
}

export function isKept(row: Pick<NativeRow, "quantType">): boolean {
  return QUANT_TYPES[row.quantType] === 0;
}

/** A row's stored parts in one buffer of the pool, and what the kernels must know to rebuild it. */
export interface PackedRow {
  readonly buffer: ArrayBuffer;
  readonly parts: PartRanges;
  readonly stored: StoredSpec;
  readonly equalizationScales: Float32Array | null;
}

/** Some rows of the 2-D view, counted from the first that a row of the file holds. */
export interface RowRun {
  readonly firstRow: number;
  readonly rows: number;
}

/** @param run what of the row to pack; all of it where left out */
export function packRow(row: NativeRow, buffers: BufferPool, run?: RowRun): PackedRow {
  const { data, scales, zeroPoints, scaleCodes, zeroPointCodes, residualScaleCodes, ...rest } = toStoredChunk(row);
  const whole: Parts = { data, scales, zeroPoints, scaleCodes, zeroPointCodes, residualScaleCodes };
  const parts = run === undefined ? whole : sliceParts(whole, rest.rows, run);
  const buffer = buffers.take(packedRowBytes(parts));
  const { bits, storageBits, groupSize, superGroupSize, scaleBits, zeroPointBits, isR2q, equalizationScales } = rest;
  return {
    buffer,
    parts: packParts(parts, buffer),
    stored: { bits, storageBits, groupSize, superGroupSize, scaleBits, zeroPointBits, isR2q },
    equalizationScales,
  };
}

/** Every part holds as much of each row, so a run of rows is a run of each part. */
export function sliceParts(parts: Parts, rows: number, run: RowRun): Parts {
  const slice = (part: Uint8Array | Float32Array | null) =>
    part?.subarray((part.length / rows) * run.firstRow, (part.length / rows) * (run.firstRow + run.rows)) ?? null;
  return Object.fromEntries(Object.entries(parts).map(([name, part]) => [name, slice(part)])) as unknown as Parts;
}

/** A kept row's bytes, or those of `run`, in one buffer of the pool. */
export function packKeptRow(row: NativeRow, buffers: BufferPool, run?: { byteOffset: number; byteLength: number }) {
  const bytes = run === undefined ? row.data : row.data.subarray(run.byteOffset, run.byteOffset + run.byteLength);
  const buffer = buffers.take(bytes.byteLength);
  new Uint8Array(buffer).set(bytes);
  return buffer;
}

function packedRowBytes(parts: Parts): number {
  return partsByteLength(Object.values(parts).map((part) => part?.byteLength ?? 0));
}

function keptRows(row: NativeRow, cols: number): number {
  const rowBytes = (cols * DTYPES[row.storedDtype ?? row.dtype].bits) / 8;
  return rowBytes === 0 ? viewAs2d(row.shape).rows : row.data.byteLength / rowBytes;
}
