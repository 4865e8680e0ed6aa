/** Weights that cannot be quantized are found, with their position, whatever they come from. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { METHODS } from "../../dist/quantize/methods/index.js";
import type { MethodName } from "../../dist/tensor/layout.js";
import {
  bytesOf,
  compare,
  floatSource,
  gaussians,
  KERNEL_BUILDS,
  quantize,
  type SourceTensor,
  specOf,
  storedOf,
} from "./harness.js";
import { encodeFloat } from "./reference.js";

const methods = Object.keys(METHODS) as MethodName[];
const COLS = 90;
const ROWS = 5;

/** Makes the raw bytes of a tensor, and what a bad element of that type may be. */
const SOURCES = {
  F64: { from: (w: Float32Array) => Float64Array.from(w), bad: [NaN, Infinity, -1e300, 2e30] },
  F32: { from: (w: Float32Array) => w.slice(), bad: [NaN, -Infinity, 1.3e30] },
  F16: {
    from: (w: Float32Array) => Uint16Array.from(w, (x) => encodeFloat(x, 5, 10)),
    bad: [0x7c00, 0xfc00, 0x7e01],
  },
  BF16: {
    from: (w: Float32Array) => Uint16Array.from(w, (x) => encodeFloat(x, 8, 7)),
    bad: [0x7f80, 0xffc0, 0x7190],
  },
  F8_E5M2: { from: (w: Float32Array) => Uint8Array.from(w, (x) => encodeFloat(x, 5, 2)), bad: [0x7c, 0xff] },
  F8_E4M3: { from: (w: Float32Array) => Uint8Array.from(w, (x) => encodeFloat(x, 4, 3)), bad: [0x7f, 0xff] },
} as const;

function caught(work: () => unknown): { row: number; col: number; value: number } {
  try {
    work();
  } catch (error) {
    return error as { row: number; col: number; value: number };
  }
  throw new Error("nothing was found");
}

describe.each(KERNEL_BUILDS)("bad weights, %s", (build) => {
  it.each(methods.flatMap((method) => Object.keys(SOURCES).map((dtype) => [method, dtype] as const)))(
    "%s finds the first of them in %s",
    (method, dtype) => {
      const { from, bad } = SOURCES[dtype as keyof typeof SOURCES];
      const spec = specOf({ method, bits: 2, scaleBits: 6, zeroPointBits: 6 });
      const position = fc.record({ row: fc.nat(ROWS - 1), col: fc.nat(COLS - 1) });
      fc.assert(
        fc.property(
          fc.array(position, { minLength: 1, maxLength: 3 }),
          fc.constantFrom(...bad),
          fc.integer({ min: 1, max: ROWS }),
          (positions, value, slabRows) => {
            const raw = from(gaussians(ROWS * COLS, 9));
            for (const { row, col } of positions) raw[row * COLS + col] = value;
            const source = { rows: ROWS, cols: COLS, dtype, bytes: bytesOf(raw) } as SourceTensor;
            const first = Math.min(...positions.map(({ row, col }) => row * COLS + col));
            const found = caught(() => quantize(build, source, spec, slabRows));
            expect([found.row, found.col]).toEqual([Math.floor(first / COLS), first % COLS]);
            expect(Math.abs(found.value) <= 2 ** 100).toBe(false);
          },
        ),
        { numRuns: 8 },
      );
    },
  );

  it("are found when a source scale makes them", () => {
    const raw = gaussians(2 * COLS, 3);
    raw[COLS + 7] = 1e20;
    const source = { ...floatSource(raw, COLS), scales: Float32Array.of(1, 1e15) };
    const found = caught(() => quantize(build, source, specOf()));
    expect(found).toMatchObject({
      row: 1,
      col: 7,
      value: Math.fround(Math.fround(1e20) * Math.fround(1e15)),
    });
  });

  it("are found when a source is compared", () => {
    const values = gaussians(ROWS * COLS, 3);
    const spec = specOf();
    const stored = storedOf(quantize(build, floatSource(values, COLS), spec), spec, ROWS, COLS);
    values[3 * COLS + 11] = NaN;
    expect(caught(() => compare(build, stored, floatSource(values, COLS), 2))).toMatchObject({
      row: 3,
      col: 11,
      value: NaN,
    });
  });

  it("are not the largest that are allowed", () => {
    const values = gaussians(COLS, 3);
    values[5] = 2 ** 100;
    values[6] = -(2 ** 100);
    expect(quantize(build, floatSource(values, COLS), specOf()).sums.maxAbsError).toBeLessThan(2 ** 97);
  });
});
