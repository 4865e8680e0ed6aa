/** One value of one column in one row, as it lies in the file, and its way into an input of the graph. */
import { DTYPES, type Dtype, isFloat } from "../../tensor/dtype.js";
import type { SampleArray } from "./sample.js";

/** Numbers in row-major order; elements of JSON may still be anything. */
export interface Cell {
  readonly values: ArrayLike<unknown>;
  /** `[]` of a number that stands alone. */
  readonly shape: readonly number[];
}

/** A row's values by column; a text says what is wrong with the value, to be read after the column's name. */
export type Cells = (column: string) => Cell | string;

/** More axes than any input of a denoiser has (video latents: frames, channels, height, width, and the batch). */
export const MAX_RANK = 8;

/** A text of a file goes into messages no further than this. */
const MAX_SHOWN_LENGTH = 40;

/** A JSON value as a cell: a number, or lists of lists of numbers that are all of one shape. */
export function jsonCell(value: unknown): Cell | string {
  if (!Array.isArray(value)) return { values: [value], shape: [] };
  const shape: number[] = [];
  for (let first: unknown = value; Array.isArray(first); first = first[0]) {
    if (shape.length === MAX_RANK) return `is nested deeper than ${MAX_RANK} lists`;
    shape.push(first.length);
  }
  if (shape.length === 1) return { values: value, shape };
  const inner = shape.slice(0, -1);
  const lists: unknown[][] = [];
  const problem = collectLists(value, inner, shape, lists);
  if (problem !== null) return problem;
  return { values: lists.flat(), shape };
}

/** The innermost lists in order; a text where the outer ones do not have the shape. */
function collectLists(
  list: readonly unknown[],
  inner: readonly number[],
  shape: readonly number[],
  lists: unknown[][],
): string | null {
  const rest = shape.slice(shape.length - inner.length);
  for (const [index, item] of list.entries()) {
    if (!Array.isArray(item)) return `is ragged: item ${index} beside lists is ${describeValue(item)}`;
    if (item.length !== rest[0]) return `is ragged: a list of ${item.length} beside lists of ${rest[0]}`;
    if (inner.length === 1) lists.push(item);
    else {
      const problem = collectLists(item, inner.slice(1), shape, lists);
      if (problem !== null) return problem;
    }
  }
  return null;
}

/** Largest magnitudes that a float input holds; bfloat16 and double go through float32. */
const MAX_FLOAT16 = 65504;
const MAX_FLOAT32 = 3.4028234663852886e38;

/**
 * The values as an input of this type takes them, in memory of their own.
 * @returns a text where one of them is no number, not finite, or does not fit the type
 */
export function convertValues(values: ArrayLike<unknown>, dtype: Dtype): SampleArray | string {
  if (isFloat(dtype)) return toFloats(values, dtype === "F16" ? MAX_FLOAT16 : MAX_FLOAT32, dtype);
  const integers = DTYPES[dtype].bits === 64 ? new BigInt64Array(values.length) : new Int32Array(values.length);
  const { least, most } = integerRange(dtype);
  for (let index = 0; index < values.length; index++) {
    const value = values[index];
    const number = dtype === "BOOL" && typeof value === "boolean" ? Number(value) : toNumber(value);
    if (!Number.isInteger(number) || number < least || number > most) {
      const place = holds(value, index, values.length);
      return Number.isFinite(number) ? `${place}, which is no number of ${dtype}` : place;
    }
    if (integers instanceof BigInt64Array) integers[index] = BigInt(number);
    else integers[index] = number;
  }
  return integers;
}

function toFloats(values: ArrayLike<unknown>, largest: number, dtype: Dtype): Float32Array | string {
  const floats = new Float32Array(values.length);
  for (let index = 0; index < values.length; index++) {
    const number = toNumber(values[index]);
    if (Math.abs(number) <= largest) {
      floats[index] = number;
      continue;
    }
    const isTooLarge = Number.isFinite(number);
    const place = holds(values[index], index, values.length);
    return isTooLarge ? `${place}, which is beyond ${dtype}` : place;
  }
  return floats;
}

function toNumber(value: unknown): number {
  return typeof value === "number" ? value : typeof value === "bigint" ? Number(value) : Number.NaN;
}

/** 64-bit integers end at 2^53, beyond which JSON has rounded them; unsigned ones of 32 bits go into an Int32Array. */
function integerRange(dtype: Dtype): { least: number; most: number } {
  const { bits } = DTYPES[dtype];
  const isSigned = dtype.startsWith("I");
  if (dtype === "BOOL") return { least: 0, most: 1 };
  if (bits === 64) return { least: isSigned ? Number.MIN_SAFE_INTEGER : 0, most: Number.MAX_SAFE_INTEGER };
  if (isSigned) return { least: -(2 ** (bits - 1)), most: 2 ** (bits - 1) - 1 };
  return { least: 0, most: bits === 32 ? 2 ** 31 - 1 : 2 ** bits - 1 };
}

function holds(value: unknown, index: number, count: number): string {
  return count === 1 ? `holds ${describeValue(value)}` : `holds ${describeValue(value)} at element ${index}`;
}

function describeValue(value: unknown): string {
  if (Array.isArray(value)) return "a list";
  if (typeof value === "string") return `the text ${JSON.stringify(value.slice(0, MAX_SHOWN_LENGTH))}`;
  return typeof value === "object" && value !== null ? "an object" : String(value);
}
