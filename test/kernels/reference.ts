/**
 * DESIGN.md and FORMAT.md again in plain JavaScript, slow and independent of the kernels: numbers are
 * doubles, and every step that the documents call a float32 operation is rounded by Math.fround.
 */
import type { QuantSpec } from "../../dist/tensor/layout.js";

const f32 = Math.fround;

/** Half to even. */
export function roundEven(x: number): number {
  const below = Math.floor(x);
  const rest = x - below;
  if (rest !== 0.5) return rest < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}

const clamp = (x: number, lo: number, hi: number) => Math.min(Math.max(x, lo), hi);

/** Value of a small float: sign, exponent of `exponentBits`, mantissa of `mantissaBits`. */
export function decodeFloat(code: number, exponentBits: number, mantissaBits: number, isFn: boolean): number {
  const sign = code >> (exponentBits + mantissaBits) ? -1 : 1;
  const largestExponent = 2 ** exponentBits - 1;
  const exponent = (code >> mantissaBits) & largestExponent;
  const mantissa = code & (2 ** mantissaBits - 1);
  const bias = 2 ** (exponentBits - 1) - 1;
  if (isFn) {
    if (exponent === largestExponent && mantissa === 2 ** mantissaBits - 1) return NaN;
  } else if (exponent === largestExponent) {
    return mantissa === 0 ? sign * Infinity : NaN;
  }
  if (exponent === 0) return sign * mantissa * 2 ** (1 - bias - mantissaBits);
  return sign * (1 + mantissa / 2 ** mantissaBits) * 2 ** (exponent - bias);
}

/** The code of the nearest number of that IEEE format, ties to even; NaN gives NaN. */
export function encodeFloat(x: number, exponentBits: number, mantissaBits: number): number {
  const sign = x < 0 || Object.is(x, -0) ? 2 ** (exponentBits + mantissaBits) : 0;
  const bias = 2 ** (exponentBits - 1) - 1;
  const infinity = (2 ** exponentBits - 1) * 2 ** mantissaBits;
  const magnitude = Math.abs(x);
  if (Number.isNaN(x)) return NaN;
  if (magnitude === Infinity) return sign + infinity;
  let exponent = 1 - bias;
  while (magnitude >= 2 ** (exponent + 1)) exponent += 1;
  const units = roundEven(magnitude / 2 ** (exponent - mantissaBits));
  // `units` counts from zero in steps of the last mantissa bit; a carry moves on to the next exponent by
  // itself.
  const code = (exponent - 1 + bias) * 2 ** mantissaBits + units;
  return sign + Math.min(code, infinity);
}

export function packBits(codes: ArrayLike<number>, bits: number): Uint8Array {
  const packed = new Uint8Array(Math.ceil((codes.length * bits) / 8));
  for (let j = 0; j < codes.length; j++) {
    for (let bit = 0; bit < bits; bit++) {
      const at = j * bits + bit;
      if (((codes[j] as number) >> bit) & 1) packed[at >> 3] = (packed[at >> 3] as number) | (1 << (at & 7));
    }
  }
  return packed;
}

export function unpackBits(packed: Uint8Array, count: number, bits: number): number[] {
  return Array.from({ length: count }, (_, j) => {
    let code = 0;
    for (let bit = 0; bit < bits; bit++) {
      const at = j * bits + bit;
      code |= (((packed[at >> 3] as number) >> (at & 7)) & 1) << bit;
    }
    return code;
  });
}

export interface ReferenceRow {
  codes: number[];
  scales: number[];
  zeroPoints: number[];
  scaleCodes: number[];
  zeroPointCodes: number[];
  rebuilt: number[];
}

/** rtn of one row, from the text of DESIGN.md. */
export function referenceRtn(row: Float32Array, spec: QuantSpec): ReferenceRow {
  const { bits, groupSize, symmetric, scaleBits, zeroPointBits, superGroupSize } = spec;
  const L = 2 ** bits - 1;
  const groups: Float32Array[] = [];
  for (let at = 0; at < row.length; at += groupSize) groups.push(row.subarray(at, at + groupSize));

  const proposed = groups.map((group) => {
    let lo = 0;
    let hi = 0;
    let m = 0;
    for (const w of group) {
      lo = Math.min(lo, w);
      hi = Math.max(hi, w);
      if (Math.abs(w) > Math.abs(m)) m = w;
    }
    if (symmetric) {
      const s = scaleBits === null ? f32(-m / 2 ** (bits - 1)) : f32(Math.abs(m) / (2 ** (bits - 1) - 1));
      return { s, z: 2 ** (bits - 1) };
    }
    const s = f32(f32(hi - lo) / L);
    return { s, z: s === 0 ? 0 : clamp(roundEven(f32(f32(-lo) / s)), 0, L) };
  });

  let stored = proposed.map(({ s }) => s + 0);
  let scales = stored;
  const scaleCodes: number[] = [];
  if (scaleBits !== null && superGroupSize !== null) {
    const perSuper = superGroupSize / groupSize;
    const top = 2 ** scaleBits - 1;
    scales = [];
    for (let at = 0; at < proposed.length; at += perSuper) {
      const members = proposed.slice(at, at + perSuper);
      const S = f32(Math.max(...members.map(({ s }) => s)) / top);
      scales.push(S);
      scaleCodes.push(...members.map(({ s }) => (S === 0 ? 1 : clamp(roundEven(f32(s / S)), 1, top))));
    }
    stored = scaleCodes.map((code, g) => f32((scales[Math.floor(g / perSuper)] as number) * code));
  }

  let zeroPoints = proposed.map(({ z }) => z);
  let zeroPointCodes: number[] = [];
  let storedZeroPoints = zeroPoints;
  if (symmetric) {
    storedZeroPoints = zeroPoints;
    zeroPoints = [];
  } else if (zeroPointBits !== null) {
    const step = f32(L / (2 ** zeroPointBits - 1));
    zeroPointCodes = zeroPoints.map((z) => clamp(roundEven(f32(z / step)), 0, 2 ** zeroPointBits - 1));
    storedZeroPoints = zeroPointCodes.map((code) => f32(code * step));
    zeroPoints = [];
  }

  const codes: number[] = [];
  const rebuilt: number[] = [];
  groups.forEach((group, g) => {
    const s = stored[g] as number;
    const z = storedZeroPoints[g] as number;
    for (const w of group) {
      const q = roundEven(clamp(f32((s === 0 ? 0 : f32(w / s)) + z), 0, L));
      codes.push(q);
      rebuilt.push(f32(f32(q - z) * s));
    }
  });
  return { codes, scales, zeroPoints, scaleCodes, zeroPointCodes, rebuilt };
}

/** The four sums and the maximum of FORMAT.md's metrics, plain. */
export function referenceSums(weights: ArrayLike<number>, rebuilt: ArrayLike<number>) {
  const sums = { dot: 0, sourceNorm2: 0, rebuiltNorm2: 0, errorNorm2: 0, maxAbsError: 0 };
  for (let i = 0; i < weights.length; i++) {
    const w = weights[i] as number;
    const v = rebuilt[i] as number;
    sums.dot += w * v;
    sums.sourceNorm2 += w * w;
    sums.rebuiltNorm2 += v * v;
    sums.errorNorm2 += (w - v) ** 2;
    sums.maxAbsError = Math.max(sums.maxAbsError, Math.abs(w - v));
  }
  return sums;
}
