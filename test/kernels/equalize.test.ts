/** Equalization in every method, what it does to errors, and the maxima that its scales come from. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ColumnMaxima } from "../../dist/kernels/column-maxima.js";
import { METHODS } from "../../dist/quantize/methods/index.js";
import type { MethodName } from "../../dist/tensor/layout.js";
import { tensors } from "./arbitraries.js";
import {
  bytesOf,
  compare,
  floatSource,
  gaussians,
  KERNEL_BUILDS,
  kernelsOf,
  quantize,
  rebuildFloats,
  specOf,
  storedOf,
} from "./harness.js";
import { uniforms } from "./hessians.js";

const methods = Object.keys(METHODS) as MethodName[];

/** The numbers of channels that `cols` can be made of. */
function channelCounts(cols: number): number[] {
  return Array.from({ length: cols }, (_, i) => i + 1).filter((count) => cols % count === 0);
}

function positiveScales(count: number, seed: number): Float32Array {
  const uniform = uniforms(seed);
  return Float32Array.from({ length: count }, () => Math.exp(4 * uniform() - 2));
}

describe.each(methods)("equalized %s", (method) => {
  const layers = tensors([method]).chain((tensor) =>
    fc.record({
      tensor: fc.constant(tensor),
      channels: fc.constantFrom(...channelCounts(tensor.cols)),
      seed: fc.nat(1000),
      slabRows: fc.integer({ min: 1, max: tensor.rows }),
    }),
  );

  it("changes nothing, to the bit, where all scales are one", () => {
    fc.assert(
      fc.property(layers, ({ tensor: { spec, cols, values }, channels }) => {
        const source = floatSource(values, cols);
        const equalizationScales = new Float32Array(channels).fill(1);
        expect(quantize("simd", { ...source, equalizationScales }, spec)).toEqual(quantize("simd", source, spec));
      }),
      { numRuns: 40 },
    );
  });

  it("scales everything exactly where all scales are one power of two", () => {
    const [rows, cols] = [3, 150];
    for (const bits of method === "r2q" ? ([2] as const) : ([2, 4, 8] as const)) {
      for (const scaleBits of method === "r2q" ? [6] : [6, null]) {
        const spec = specOf({ method, bits, scaleBits, zeroPointBits: 6, groupSize: 32 });
        const source = floatSource(gaussians(rows * cols, bits), cols);
        const plain = quantize("simd", source, spec);
        const scaled = quantize("simd", { ...source, equalizationScales: new Float32Array(50).fill(0.25) }, spec);
        expect(scaled).toEqual({ ...plain, scales: plain.scales.map((scale) => scale / 4) });
      }
    }
  });

  it("gives the same bits in both builds, the weights that a reader rebuilds, and their errors", () => {
    fc.assert(
      fc.property(layers, ({ tensor: { spec, rows, cols, values }, channels, seed, slabRows }) => {
        // Beyond this, weights times scales may be too large.
        fc.pre(values.every((w) => Math.abs(w) < 2 ** 90));
        const equalizationScales = positiveScales(channels, seed);
        const source = { ...floatSource(values, cols), equalizationScales };
        const found = quantize("simd", source, spec, slabRows);
        expect(found).toEqual(quantize("scalar", source, spec));
        const stored = storedOf(found, spec, rows, cols, equalizationScales);
        for (const build of KERNEL_BUILDS) expect(compare(build, stored, source, slabRows)).toEqual(found.sums);
      }),
      { numRuns: 60 },
    );
  });

  it("quantizes weights times scales, and divides what it rebuilds by them", () => {
    const [rows, channels, width] = [4, 20, 9];
    const cols = channels * width;
    const spec = specOf({ method, bits: 2, groupSize: 32, scaleBits: 6, zeroPointBits: 6 });
    const values = gaussians(rows * cols, 5);
    const equalizationScales = positiveScales(channels, 2);
    const scaleOf = (k: number) => equalizationScales[Math.floor((k % cols) / width)] as number;
    const found = quantize("simd", { ...floatSource(values, cols), equalizationScales }, spec);
    const beforehand = quantize(
      "simd",
      floatSource(
        values.map((w, k) => w * scaleOf(k)),
        cols,
      ),
      spec,
    );
    expect({ ...found, sums: null }).toEqual({ ...beforehand, sums: null });
    const rebuilt = rebuildFloats("simd", storedOf(beforehand, spec, rows, cols)).map((w, k) => w / scaleOf(k));
    expect(rebuildFloats("simd", storedOf(found, spec, rows, cols, equalizationScales))).toEqual(rebuilt);
    const errorNorm2 = values.reduce((sum, w, k) => sum + (w - (rebuilt[k] as number)) ** 2, 0);
    expect(found.sums.errorNorm2).toBeCloseTo(errorNorm2, 9);
  });

  it("refuses scales that nothing can be divided by", () => {
    const source = floatSource(gaussians(60, 1), 30);
    const spec = specOf({ method, bits: 2, scaleBits: 6 });
    for (const scales of [[0, 1], [1, -1], [Number.NaN, 1], [1, Infinity], [1, 1, 1, 1], []]) {
      const equalized = { ...source, equalizationScales: Float32Array.from(scales) };
      expect(() => quantize("simd", equalized, spec)).toThrow("equalization scale");
    }
  });
});

describe.each(KERNEL_BUILDS)("column maxima, %s", (build) => {
  it("are those of plain loops, source scales applied, whatever the slabs", () => {
    const [rows, cols] = [11, 37];
    const values = gaussians(rows * cols, 8);
    const scales = positiveScales(rows, 3);
    for (const slabRows of [1, 4, 11]) {
      const maxima = new ColumnMaxima(kernelsOf(build), { cols, slabRows, dtype: "F32", sourceScale: "row" });
      for (let row = 0; row < rows; row += slabRows) {
        const rowCount = Math.min(slabRows, rows - row);
        maxima.source(rowCount).set(bytesOf(values.subarray(row * cols, (row + rowCount) * cols)));
        maxima.sourceScales().set(scales.subarray(row, row + rowCount));
        expect(maxima.add(rowCount)).toBeNull();
      }
      const expected = Float32Array.from({ length: cols }, (_, c) =>
        Math.max(...Array.from(scales, (scale, row) => Math.abs((values[row * cols + c] as number) * scale))),
      );
      expect(maxima.maxima()).toEqual(expected);
      maxima.source(1).set(bytesOf(Float32Array.from({ length: cols }, (_, c) => (c === 5 ? Number.NaN : 0))));
      expect(maxima.add(1)).toMatchObject({ row: rows, col: 5 });
    }
  });
});
