import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fromFloat16Bits, toFloat16Bits } from "../../dist/tensor/float16.js";

describe("float16", () => {
  it("comes back as it was, all 65,536 of them", () => {
    const bits = Uint16Array.from({ length: 65536 }, (_, index) => index);
    const isNumber = (half: number) => (half & 0x7c00) !== 0x7c00 || (half & 0x3ff) === 0;
    const back = toFloat16Bits(fromFloat16Bits(bits));
    expect([...back].filter((half, index) => half !== index && isNumber(index))).toEqual([]);
    expect(fromFloat16Bits(bits.filter((half) => !isNumber(half))).every(Number.isNaN)).toBe(true);
  });

  it("is the nearest there is, of two as near the even one", () => {
    const finite = fromFloat16Bits(Uint16Array.from({ length: 0x7c00 }, (_, index) => index));
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 0x7bfe }), fc.double({ min: 0, max: 1, noNaN: true }), (half, share) => {
        const [low, high] = [finite[half] as number, finite[half + 1] as number];
        const value = Math.fround(low + share * (high - low));
        const [found] = toFloat16Bits(Float32Array.of(value));
        const [below, above] = [value - low, high - value];
        const expected = below < above ? half : below > above ? half + 1 : half + (half & 1);
        expect(found).toBe(expected);
        expect(toFloat16Bits(Float32Array.of(-value))[0]).toBe(expected | 0x8000);
      }),
    );
    expect([...toFloat16Bits(Float32Array.of(65519, 65520, 1e30, Infinity, Number.NaN))]).toEqual([
      0x7bff, 0x7c00, 0x7c00, 0x7c00, 0x7e00,
    ]);
  });
});
