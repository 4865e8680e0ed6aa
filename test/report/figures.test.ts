import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  formatBitsPerWeight,
  formatBytes,
  formatClock,
  formatCosine,
  formatCount,
  formatDecibels,
  formatQuantity,
  formatRatio,
  formatSeconds,
  formatShape,
  formatSignificant,
} from "../../dist/report/figures.js";

const UNITS: Record<string, number> = {
  B: 1,
  KiB: 1024,
  MiB: 1024 ** 2,
  GiB: 1024 ** 3,
  TiB: 1024 ** 4,
  PiB: 1024 ** 5,
};

describe("formatBytes", () => {
  it.each([
    [0, "0 B"],
    [1023, "1023 B"],
    [1024, "1.00 KiB"],
    [21_646_400, "20.6 MiB"],
    [1024 ** 2 - 1, "1.00 MiB"],
    [4 * 1024 ** 3, "4.00 GiB"],
  ])("%d is %s", (bytes, text) => expect(formatBytes(bytes)).toBe(text));

  it("is within half a percent of the truth, with a number below 1024", () => {
    fc.assert(
      fc.property(fc.nat({ max: 2 ** 50 }), (bytes) => {
        const [number, unit] = formatBytes(bytes).split(" ") as [string, string];
        expect(Number(number)).toBeLessThan(1024);
        expect(Math.abs(Number(number) * (UNITS[unit] as number) - bytes)).toBeLessThanOrEqual(bytes * 0.005);
      }),
    );
  });
});

describe("formatCosine", () => {
  it("never shows 1 for less than 1", () => {
    fc.assert(
      fc.property(fc.double({ min: -1, max: 1, maxExcluded: true, noNaN: true }), (cosine) => {
        expect(formatCosine(cosine)).not.toBe("1.00000");
      }),
    );
    expect(formatCosine(1 - 1e-9)).toBe(">0.99999");
    expect(formatCosine(1)).toBe("1.00000");
  });
});

describe("times", () => {
  it.each([
    [0, "0:00"],
    [59.6, "1:00"],
    [750, "12:30"],
    [7500, "2:05:00"],
    [-3, "0:00"],
  ])("%d s on the clock is %s", (seconds, text) => expect(formatClock(seconds)).toBe(text));
  it.each([
    [0.4, "0.40 s"],
    [9.999, "10.0 s"],
    [59.99, "1:00"],
  ])("%d s took %s", (seconds, text) => expect(formatSeconds(seconds)).toBe(text));
});

describe("other figures", () => {
  it("names what has no number", () => {
    expect(formatDecibels(Infinity)).toBe("∞");
    expect(formatDecibels(-Infinity)).toBe("−∞");
    expect(formatSignificant(Infinity)).toBe("∞");
    expect(formatRatio(NaN)).toBe("–");
    expect(formatBitsPerWeight(null)).toBe("–");
  });
  it("keeps three digits", () => {
    expect(formatSignificant(0)).toBe("0");
    expect(formatSignificant(0.0128)).toBe("0.0128");
    expect(formatSignificant(0.00001234)).toBe("1.23e-5");
    expect(formatSignificant(-2.5)).toBe("-2.50");
  });
  it("writes shapes and counts", () => {
    expect(formatShape([256, 1024])).toBe("256×1024");
    expect(formatShape([])).toBe("scalar");
    expect(formatCount(5_411_600)).toBe("5.41 M");
    expect(formatCount(999_999)).toBe("1.00 M");
    expect(formatQuantity(1, "layer")).toBe("1 layer");
    expect(formatQuantity(1200, "layer")).toBe("1,200 layers");
  });
});
