/**
 * How a tensor is laid out in the native file: its 2-D view, groups, super-groups, chunks.
 * Every number here is fixed by FORMAT.md; all functions are pure.
 */

export const BIT_WIDTHS = [2, 3, 4, 5, 6, 8] as const;
export type BitWidth = (typeof BIT_WIDTHS)[number];

export const METHOD_NAMES = ["rtn", "hqq", "mse", "r2q", "gptq"] as const;
export type MethodName = (typeof METHOD_NAMES)[number];

/** Limits of the group size. Below 16 the scales outweigh the codes, above 1024 nothing is gained. */
export const MIN_GROUP_SIZE = 16;
export const MAX_GROUP_SIZE = 1024;

/** Largest `data` of one file row, in bytes (FORMAT.md, Rows). */
export const CHUNK_BYTES = 4 * 1024 * 1024;

/** How one tensor is quantized: everything that decides its codes. */
export interface QuantSpec {
  readonly bits: BitWidth;
  /** Elements per group; the last group of a row may be shorter. */
  readonly groupSize: number;
  readonly symmetric: boolean;
  readonly method: MethodName;
  /** Bits of a scale code, 2 … 8; null: scales are float32. */
  readonly scaleBits: number | null;
  /** Bits of a zero-point code, 2 … 8; null: zero points are float32. Ignored when symmetric or r2q. */
  readonly zeroPointBits: number | null;
  /** Elements per super-group, a multiple of `groupSize`; null exactly where `scaleBits` is null. */
  readonly superGroupSize: number | null;
  /** `mse` only: weight of an element's squared error beside its importance. */
  readonly weighting: "none" | "magnitude";
  /** `mse` only: multiply each row's scales by ⟨w,w⟩/⟨w,ŵ⟩ at the end. */
  readonly preserveGain: boolean;
}

export interface View2d {
  readonly rows: number;
  readonly cols: number;
}

/** Number of elements of a shape; 1 for a scalar. */
export function countElements(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** The 2-D view `[o, i·…]`; tensors of fewer than two dimensions are rows of one element. */
export function viewAs2d(shape: readonly number[]): View2d {
  const count = countElements(shape);
  if (shape.length < 2) return { rows: count, cols: 1 };
  const rows = shape[0] as number;
  return { rows, cols: rows === 0 ? countElements(shape.slice(1)) : count / rows };
}

/** Bytes of `count` codes of `bits` bits packed from bit 0 upwards, padded to a byte. */
export function packedBytes(count: number, bits: number): number {
  return Math.ceil((count * bits) / 8);
}

/** Sizes of everything a quantized row stores. */
export interface RowLayout {
  readonly groupsPerRow: number;
  /** 0 without `scaleBits`. */
  readonly supersPerRow: number;
  /** Bytes of codes per row. */
  readonly codeBytes: number;
  /** float32 values of `scales` per row. */
  readonly scaleCount: number;
  /** float32 values of `zero_points` per row. */
  readonly zeroPointCount: number;
  readonly scaleCodeBytes: number;
  readonly zeroPointCodeBytes: number;
  readonly residualScaleCodeBytes: number;
}

export function rowLayout(cols: number, spec: QuantSpec): RowLayout {
  const groupsPerRow = Math.ceil(cols / spec.groupSize);
  const supersPerRow = spec.superGroupSize === null ? 0 : Math.ceil(cols / spec.superGroupSize);
  const isR2q = spec.method === "r2q";
  const hasZeroPoints = !spec.symmetric && !isR2q;
  const scaleCodeBytes = spec.scaleBits === null ? 0 : packedBytes(groupsPerRow, spec.scaleBits);
  return {
    groupsPerRow,
    supersPerRow,
    codeBytes: packedBytes(cols, spec.bits),
    scaleCount: spec.scaleBits === null ? groupsPerRow : supersPerRow,
    zeroPointCount: hasZeroPoints && spec.zeroPointBits === null ? groupsPerRow : 0,
    scaleCodeBytes,
    zeroPointCodeBytes:
      hasZeroPoints && spec.zeroPointBits !== null ? packedBytes(groupsPerRow, spec.zeroPointBits) : 0,
    residualScaleCodeBytes: isR2q ? scaleCodeBytes : 0,
  };
}

/** Bytes a quantized row takes with everything a reader needs. */
export function rowBytes(layout: RowLayout): number {
  return (
    layout.codeBytes +
    4 * (layout.scaleCount + layout.zeroPointCount) +
    layout.scaleCodeBytes +
    layout.zeroPointCodeBytes +
    layout.residualScaleCodeBytes
  );
}

/** Whole rows of the 2-D view per file row, whatever memory or threads were set. */
export function rowsPerChunk(rowDataBytes: number): number {
  return Math.max(1, Math.floor(CHUNK_BYTES / Math.max(1, rowDataBytes)));
}
