/** Single elements of tensors, for the few that are looked at outside the kernels. */
import { DTYPES, type Dtype } from "./dtype.js";

/** Types that hold weights. */
export type FloatDtype = "F64" | "F32" | "F16" | "BF16" | "F8_E4M3" | "F8_E5M2";

/** Most that rounding to nearest changes a number: a part of it, near zero an absolute amount. */
interface Rounding {
  readonly relative: number;
  readonly absolute: number;
}

interface FloatType {
  readonly read: (view: DataView, byteOffset: number) => number;
  readonly rounding: Rounding;
}

/** Half of the last bit of a mantissa of so many bits, and of the smallest number. */
const roundingOf = (mantissaBits: number, smallestExponent: number): Rounding => ({
  relative: 2 ** (-mantissaBits - 1),
  absolute: 2 ** (smallestExponent - 1),
});

const FLOAT_TYPES: Readonly<Record<FloatDtype, FloatType>> = {
  F64: { read: (view, at) => view.getFloat64(at, true), rounding: roundingOf(52, -1074) },
  F32: { read: (view, at) => view.getFloat32(at, true), rounding: roundingOf(23, -149) },
  F16: { read: (view, at) => decode(view.getUint16(at, true), 5, 10), rounding: roundingOf(10, -24) },
  BF16: { read: (view, at) => decode(view.getUint16(at, true), 8, 7), rounding: roundingOf(7, -133) },
  F8_E4M3: { read: (view, at) => decodeE4M3(view.getUint8(at)), rounding: roundingOf(3, -9) },
  F8_E5M2: { read: (view, at) => decode(view.getUint8(at), 5, 2), rounding: roundingOf(2, -16) },
};

export function isFloatDtype(dtype: Dtype): dtype is FloatDtype {
  return Object.hasOwn(FLOAT_TYPES, dtype);
}

/** The little-endian element number `index` of a run of elements. */
export function readElement(view: DataView, index: number, dtype: FloatDtype): number {
  return FLOAT_TYPES[dtype].read(view, (index * DTYPES[dtype].bits) / 8);
}

export function roundingOfDtype(dtype: FloatDtype): Rounding {
  return FLOAT_TYPES[dtype].rounding;
}

/** Sign, exponent, mantissa as in IEEE 754: the largest exponent is Inf and NaN, the smallest has no hidden bit. */
function decode(code: number, exponentBits: number, mantissaBits: number): number {
  const sign = code >> (exponentBits + mantissaBits) === 0 ? 1 : -1;
  const largest = 2 ** exponentBits - 1;
  const exponent = (code >> mantissaBits) & largest;
  const mantissa = (code & (2 ** mantissaBits - 1)) / 2 ** mantissaBits;
  const bias = (largest - 1) / 2;
  if (exponent === largest) return mantissa === 0 ? sign * Infinity : Number.NaN;
  return exponent === 0 ? sign * mantissa * 2 ** (1 - bias) : sign * (1 + mantissa) * 2 ** (exponent - bias);
}

/** OCP 8-bit floating point: the largest exponent holds numbers too, but for the one code that is NaN. */
function decodeE4M3(code: number): number {
  if ((code & 0x7f) === 0x7f) return Number.NaN;
  const isTop = (code & 0x78) === 0x78;
  return isTop ? 2 * decode(code - 8, 4, 3) : decode(code, 4, 3);
}
