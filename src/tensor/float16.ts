/** float32 as float16. For inputs of models and other small vectors: weights go through the kernels. */
import { readElement } from "./element.js";

/** 16 bits of each value, rounded to nearest even; beyond 65,504 infinite. */
export function toFloat16Bits(values: Float32Array): Uint16Array {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  return Uint16Array.from(words, (word) => {
    const sign = (word >>> 16) & 0x8000;
    const magnitude = word & 0x7fffffff;
    if (magnitude > 0x7f800000) return sign | 0x7e00;
    // Where float16 is normal its exponent is 112 less and its mantissa 13 bits shorter; a carry out of the mantissa
    // raises the exponent, at last to infinity.
    if (magnitude >= 0x38800000) return sign | Math.min(0x7c00, roundShift(magnitude - (112 << 23), 13));
    const exponent = magnitude >>> 23;
    if (exponent < 102) return sign;
    return sign | roundShift((magnitude & 0x7fffff) | 0x800000, 126 - exponent);
  });
}

/** `value` / 2^`shift`, ties to even. */
function roundShift(value: number, shift: number): number {
  const kept = value >>> shift;
  const rest = value & ((1 << shift) - 1);
  const half = 1 << (shift - 1);
  return rest > half || (rest === half && (kept & 1) === 1) ? kept + 1 : kept;
}

/** float32 of 16 bits each. */
export function fromFloat16Bits(bits: Uint16Array): Float32Array {
  const view = new DataView(bits.buffer, bits.byteOffset, bits.byteLength);
  return Float32Array.from(bits, (_, index) => readElement(view, index, "F16"));
}
