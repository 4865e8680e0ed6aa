/**
 * What FORMAT.md demands of a row and of the rows of a tensor; whatever breaks it is refused before it is
 * used.
 */
import { ArrowQuantError } from "../../errors.js";
import { DTYPES, isBlockQuantized, isDtype } from "../../tensor/dtype.js";
import { countElements, METHOD_NAMES, packedBytes, viewAs2d } from "../../tensor/layout.js";
import type { FileKind } from "./columns.js";
import { type NativeRow, type NativeRowMeta, QUANT_TYPES, rowCrc32, rowLabel } from "./row.js";

/** Bits of a scale or zero-point code. */
const MIN_CODE_BITS = 2;
const MAX_CODE_BITS = 8;

function refuse(row: NativeRowMeta, problem: string, details: Readonly<Record<string, unknown>> = {}): never {
  throw new ArrowQuantError("E_NATIVE", `${rowLabel(row)}: ${problem}`, {
    details: { layer: row.layerName, chunkIndex: row.chunkIndex, ...details },
  });
}

function isCount(value: number | null, least: number): value is number {
  return value !== null && Number.isSafeInteger(value) && value >= least;
}

function expectNulls(row: NativeRow, keys: readonly (keyof NativeRow)[], because: string): void {
  for (const key of keys) {
    if (row[key] !== null) refuse(row, `${key} is set although ${because}`, { key });
  }
}

function expectLength(row: NativeRow, key: keyof NativeRow, expected: number): void {
  const found = (row[key] as ArrayLike<number> | null)?.length;
  if (found !== expected)
    refuse(row, `${key} has ${found ?? "no"} values, expected ${expected}`, { key, found, expected });
}

/** Everything that can be said of a row without its codes and scales. */
export function checkMeta(row: NativeRowMeta): void {
  const { shape, dtype, quantType, method, storedDtype, chunkIndex, chunkCount, paramCount } = row;
  if (shape.some((size) => !isCount(size, 0))) refuse(row, `shape [${shape.join(", ")}] has a negative size`);
  const elementCount = countElements(shape);
  if (!Number.isSafeInteger(elementCount) || elementCount !== paramCount) {
    refuse(row, `shape [${shape.join(", ")}] has ${elementCount} elements, num_params is ${paramCount}`);
  }
  if (!isDtype(dtype)) refuse(row, `dtype "${String(dtype)}" is unknown`);
  // Tensors that a source holds in blocks are kept as float32.
  if (storedDtype !== null && (!isDtype(storedDtype) || isBlockQuantized(storedDtype))) {
    refuse(row, `stored_dtype "${String(storedDtype)}" is unknown`);
  }
  if (!Object.hasOwn(QUANT_TYPES, quantType)) refuse(row, `quant_type "${String(quantType)}" is unknown`);
  if (method !== null && !METHOD_NAMES.includes(method)) refuse(row, `method "${String(method)}" is unknown`);
  if (chunkIndex < 0 || chunkIndex >= chunkCount) refuse(row, "the chunk's index is not below the number of chunks");
  if (QUANT_TYPES[quantType] !== 0 && (shape.length < 2 || elementCount === 0)) {
    refuse(row, `shape [${shape.join(", ")}] can only be kept, quant_type is ${quantType}`);
  }
  const equalized = row.spatial?.equalizationScales.length ?? 0;
  if (equalized !== 0 && equalized !== shape[1]) {
    refuse(row, `${equalized} equalization scales for shape [${shape.join(", ")}]`);
  }
}

/** Rows of the 2-D view that `dataBytes` hold. */
function countRows(row: NativeRow, rowBytes: number): number {
  const { data } = row;
  if (rowBytes === 0 || data.length % rowBytes !== 0 || data.length === 0) {
    refuse(row, `data has ${data.length} bytes, which are no whole rows of ${rowBytes}`, {
      byteLength: data.length,
      rowBytes,
    });
  }
  return data.length / rowBytes;
}

/** @returns rows of the 2-D view in this chunk */
function checkKept(row: NativeRow): number {
  expectNulls(
    row,
    [
      "scales",
      "zeroPoints",
      "quantAxis",
      "groupSize",
      "method",
      "metrics",
      "scaleBits",
      "superGroupSize",
      "scaleCodes",
      "zeroPointBits",
      "zeroPointCodes",
      "residualScaleCodes",
    ],
    "the tensor is kept",
  );
  const { storedDtype, shape, data } = row;
  if (storedDtype === null) refuse(row, "stored_dtype is null although the tensor is kept");
  const { rows, cols } = viewAs2d(shape);
  if (rows * cols === 0) {
    if (data.length !== 0) refuse(row, `data has ${data.length} bytes although the tensor is empty`);
    return rows;
  }
  return countRows(row, packedBytes(cols, DTYPES[storedDtype].bits));
}

function checkCodeBits(row: NativeRow, key: "scaleBits" | "zeroPointBits"): void {
  const bits = row[key];
  if (bits !== null && !(bits >= MIN_CODE_BITS && bits <= MAX_CODE_BITS)) {
    refuse(row, `${key} is ${bits}, allowed are ${MIN_CODE_BITS} to ${MAX_CODE_BITS}`, { key, bits });
  }
}

function checkZeroPoints(row: NativeRow, rows: number, groupsPerRow: number): void {
  if (row.method === "r2q") {
    expectNulls(row, ["zeroPoints", "zeroPointBits", "zeroPointCodes"], "the method is r2q");
    if (row.scaleBits === null) refuse(row, "the method is r2q, which needs scale_bits");
    if (row.quantType !== "int2") refuse(row, `the method is r2q, which needs int2, not ${row.quantType}`);
    expectLength(row, "residualScaleCodes", rows * packedBytes(groupsPerRow, row.scaleBits));
    return;
  }
  expectNulls(row, ["residualScaleCodes"], "the method is not r2q");
  checkCodeBits(row, "zeroPointBits");
  if (row.zeroPointBits === null) {
    expectNulls(row, ["zeroPointCodes"], "zero_point_bits is null");
    if (row.zeroPoints !== null) expectLength(row, "zeroPoints", rows * groupsPerRow);
  } else {
    expectNulls(row, ["zeroPoints"], "the zero points are coded");
    expectLength(row, "zeroPointCodes", rows * packedBytes(groupsPerRow, row.zeroPointBits));
  }
}

/** @returns rows of the 2-D view in this chunk */
function checkQuantized(row: NativeRow): number {
  const { shape, quantType, quantAxis, groupSize, superGroupSize, scaleBits } = row;
  const { cols } = viewAs2d(shape);
  if (row.storedDtype !== null) refuse(row, "stored_dtype is set although the tensor is quantized");
  if (row.method === null) refuse(row, "method is null although the tensor is quantized");
  if (quantAxis !== 1) refuse(row, `quant_axis is ${quantAxis}, expected 1`);
  if (!isCount(groupSize, 1)) refuse(row, `group_size is ${groupSize}`);
  const rows = countRows(row, packedBytes(cols, QUANT_TYPES[quantType]));
  const groupsPerRow = Math.ceil(cols / groupSize);
  checkCodeBits(row, "scaleBits");
  if (scaleBits === null) {
    expectNulls(row, ["superGroupSize", "scaleCodes"], "scale_bits is null");
    expectLength(row, "scales", rows * groupsPerRow);
  } else {
    if (!isCount(superGroupSize, 1) || superGroupSize % groupSize !== 0) {
      refuse(row, `super_group_size is ${superGroupSize}, no multiple of group_size ${groupSize}`);
    }
    expectLength(row, "scales", rows * Math.ceil(cols / superGroupSize));
    expectLength(row, "scaleCodes", rows * packedBytes(groupsPerRow, scaleBits));
  }
  checkZeroPoints(row, rows, groupsPerRow);
  return rows;
}

/** Whether a plain row holds one code per byte; where a packed row is as long, both readings are the same. */
export function holdsBytes(row: NativeRow): boolean {
  return row.data.length === row.paramCount;
}

/** A plain V2 row: the whole tensor, scales by group, by index of an axis, or one. */
function checkPlain(row: NativeRow): number {
  const { shape, quantType, quantAxis, groupSize } = row;
  const { rows, cols } = viewAs2d(shape);
  const bits = QUANT_TYPES[quantType];
  const packed = rows * packedBytes(cols, bits);
  if (!holdsBytes(row) && row.data.length !== packed) {
    refuse(row, `data has ${row.data.length} bytes, expected ${row.paramCount} or, packed, ${packed}`);
  }
  if (quantAxis !== null && quantAxis !== 0 && quantAxis !== 1) refuse(row, `quant_axis is ${quantAxis}`);
  const expected = plainScaleCount(row, rows, cols);
  expectLength(row, "scales", expected);
  if (row.zeroPoints !== null) expectLength(row, "zeroPoints", expected);
  if (groupSize !== null && !isCount(groupSize, 1)) refuse(row, `group_size is ${groupSize}`);
  return rows;
}

function plainScaleCount(row: NativeRow, rows: number, cols: number): number {
  const { groupSize, quantAxis } = row;
  if (groupSize !== null) {
    if (quantAxis === 0) refuse(row, "group_size is set although quant_axis is 0");
    return rows * Math.ceil(cols / groupSize);
  }
  if (row.scales?.length === 1 || quantAxis === null) return 1;
  return quantAxis === 0 ? rows : cols;
}

/**
 * Checks a row by itself, its checksum last.
 * @returns rows of the 2-D view that it holds
 * @throws E_NATIVE naming layer, chunk and what is wrong; E_CRC where the checksum does not match
 */
export function checkRow(row: NativeRow, kind: FileKind): number {
  checkMeta(row);
  const isKept = QUANT_TYPES[row.quantType] === 0;
  const rows = isKept ? checkKept(row) : kind === "extended" ? checkQuantized(row) : checkPlain(row);
  if (row.crc32 !== null) {
    const found = rowCrc32(row);
    if (found !== row.crc32) {
      const [stored, actual] = [row.crc32, found].map((crc) => crc.toString(16).padStart(8, "0"));
      throw new ArrowQuantError("E_CRC", `${rowLabel(row)}: the checksum is ${actual}, the file says ${stored}`, {
        hint: "the file is damaged; copy or write it again",
        details: { layer: row.layerName, chunkIndex: row.chunkIndex, stored: row.crc32, found },
      });
    }
  }
  return rows;
}

/** What every chunk of a tensor repeats. */
function tensorSignature(row: NativeRowMeta): string {
  return JSON.stringify([
    row.shape,
    row.dtype,
    row.paramCount,
    row.quantType,
    row.quantAxis,
    row.groupSize,
    row.isDiffusionModel,
    row.modality,
    row.timeAware,
    row.spatial,
    row.activationStats,
    row.component,
    row.method,
    row.storedDtype,
    row.chunkCount,
    row.scaleBits,
    row.superGroupSize,
    row.zeroPointBits,
  ]);
}

/** Follows the rows of a file from the first on: chunks in order and complete, no tensor twice. */
export class ChunkSequence {
  readonly #names = new Set<string>();
  #row: NativeRowMeta | null = null;
  #signature = "";
  #rowsSoFar = 0;

  /** @param rows rows of the 2-D view that the chunk holds; null where its data was not read */
  next(row: NativeRowMeta, rows: number | null): void {
    const before = this.#row;
    const continues = before !== null && before.chunkIndex + 1 < before.chunkCount;
    if (continues && (row.layerName !== before.layerName || row.chunkIndex !== before.chunkIndex + 1)) {
      refuse(before, `${rowLabel(row)} follows, expected chunk ${before.chunkIndex + 1}`);
    }
    const signature = tensorSignature(row);
    if (!continues) {
      if (row.chunkIndex !== 0) refuse(row, "the chunks before it are missing");
      if (this.#names.has(row.layerName)) refuse(row, "the tensor stands twice in the file");
      this.#names.add(row.layerName);
      this.#rowsSoFar = 0;
    } else if (signature !== this.#signature) {
      refuse(row, "it disagrees with the chunk before about the tensor");
    }
    this.#row = row;
    this.#signature = signature;
    if (rows === null) return;
    this.#rowsSoFar += rows;
    const { rows: tensorRows } = viewAs2d(row.shape);
    const isLast = row.chunkIndex + 1 === row.chunkCount;
    if (this.#rowsSoFar > tensorRows || (isLast && this.#rowsSoFar !== tensorRows)) {
      refuse(row, `its data ends at row ${this.#rowsSoFar} of ${tensorRows}`, {
        rows: this.#rowsSoFar,
        tensorRows,
      });
    }
  }

  /** To be called after the last row. */
  end(): void {
    const last = this.#row;
    if (last !== null && last.chunkIndex + 1 < last.chunkCount) refuse(last, "the chunks after it are missing");
  }
}
