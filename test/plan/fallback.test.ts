import { describe, expect, it } from "vitest";
import { methodAtWidth, nextSpec } from "../../dist/plan/fallback.js";
import { BIT_WIDTHS, METHOD_NAMES, type QuantSpec } from "../../dist/tensor/layout.js";

const spec: QuantSpec = {
  bits: 2,
  groupSize: 32,
  symmetric: false,
  method: "hqq",
  scaleBits: 6,
  zeroPointBits: 6,
  superGroupSize: 1024,
  weighting: "magnitude",
  preserveGain: true,
};

describe("nextSpec", () => {
  it.each(METHOD_NAMES)("%s goes 2, 4, 8, kept, and changes nothing else", (method) => {
    const chain: QuantSpec[] = [];
    for (let next: QuantSpec | null = { ...spec, method }; next !== null; next = nextSpec(next)) chain.push(next);
    expect(chain.map(({ bits }) => bits)).toEqual([2, 4, 8]);
    for (const { bits, method: _method, ...rest } of chain) {
      const { bits: _bits, method: _from, ...first } = spec;
      expect(rest, String(bits)).toEqual(first);
    }
    const wide = method === "r2q" ? "hqq" : method;
    expect(chain.map((one) => one.method)).toEqual([method, wide, wide]);
  });

  it.each([
    [3, [4, 8]],
    [5, [6, 8]],
    [6, [8]],
  ] as const)("goes from %i bits to %j, then keeps", (bits, wider) => {
    const chain: number[] = [];
    for (let next = nextSpec({ ...spec, bits }); next !== null; next = nextSpec(next)) chain.push(next.bits);
    expect(chain).toEqual(wider);
  });

  it("r2q is of 2 bits only", () => {
    expect(BIT_WIDTHS.filter((bits) => methodAtWidth("r2q", bits) === "r2q")).toEqual([2]);
    expect(BIT_WIDTHS.slice(1).map((bits) => methodAtWidth("r2q", bits))).toEqual(Array(5).fill("hqq"));
  });
});
