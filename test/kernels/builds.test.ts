/** The two builds give the same bits, and no slab size changes them. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { METHODS } from "../../dist/quantize/methods/index.js";
import type { Dtype } from "../../dist/tensor/dtype.js";
import type { MethodName } from "../../dist/tensor/layout.js";
import { tensors } from "./arbitraries.js";
import {
  bytesOf,
  compare,
  floatSource,
  gaussians,
  KERNEL_BUILDS,
  quantize,
  rebuild,
  specOf,
  storedOf,
} from "./harness.js";
import { encodeFloat } from "./reference.js";

const methods = Object.keys(METHODS) as MethodName[];

describe.each(methods)("%s", (method) => {
  it("gives the same bits with SIMD and without, sums included", () => {
    fc.assert(
      fc.property(tensors([method]), ({ spec, cols, values }) => {
        const source = floatSource(values, cols);
        expect(quantize("simd", source, spec)).toEqual(quantize("scalar", source, spec));
      }),
      { numRuns: 150 },
    );
  });

  it("stores nothing but numbers for finite weights", () => {
    fc.assert(
      fc.property(tensors([method]), ({ spec, rows, cols, values }) => {
        const found = quantize("simd", floatSource(values, cols), spec);
        expect(found.scales.every(Number.isFinite)).toBe(true);
        expect(found.zeroPoints?.every(Number.isFinite) ?? true).toBe(true);
        const rebuilt = new Float32Array(rebuild("simd", storedOf(found, spec, rows, cols)).buffer);
        expect(rebuilt.every(Number.isFinite)).toBe(true);
        expect(Object.values(found.sums).every(Number.isFinite)).toBe(true);
      }),
      { numRuns: 150 },
    );
  });

  it.each(KERNEL_BUILDS)("does not depend on slabs, %s", (build) => {
    fc.assert(
      fc.property(tensors([method]), fc.integer({ min: 1, max: 3 }), ({ spec, rows, cols, values }, slabRows) => {
        const source = floatSource(values, cols);
        expect(quantize(build, source, spec, Math.min(slabRows, rows))).toEqual(quantize(build, source, spec));
      }),
      { numRuns: 40 },
    );
  });

  it.each(KERNEL_BUILDS)("compares to the very sums it measured, %s", (build) => {
    fc.assert(
      fc.property(tensors([method]), fc.integer({ min: 1, max: 3 }), ({ spec, rows, cols, values }, slabRows) => {
        const source = floatSource(values, cols);
        const found = quantize(build, source, spec);
        const stored = storedOf(found, spec, rows, cols);
        expect(compare(build, stored, source, Math.min(slabRows, rows))).toEqual(found.sums);
      }),
      { numRuns: 80 },
    );
  });

  it("reads every float type, with scales, alike in both builds", () => {
    const cols = 150;
    const values = gaussians(4 * cols, 11);
    const sources: [Dtype, Uint8Array][] = [
      ["F64", bytesOf(Float64Array.from(values))],
      ["F16", bytesOf(Uint16Array.from(values, (w) => encodeFloat(w, 5, 10)))],
      ["BF16", bytesOf(Uint16Array.from(values, (w) => encodeFloat(w, 8, 7)))],
      ["F8_E5M2", Uint8Array.from(values, (w) => encodeFloat(w, 5, 2))],
      ["F8_E4M3", Uint8Array.from(values, (w) => Math.min(encodeFloat(w * 100, 4, 3), 0xfe))],
    ];
    const spec = specOf({ method, bits: 2, scaleBits: 6, zeroPointBits: 6, groupSize: 32 });
    for (const [dtype, bytes] of sources) {
      for (const scales of [undefined, Float32Array.of(0.01), Float32Array.of(0.5, 2, 0.3, 1)]) {
        const source = { rows: 4, cols, dtype, bytes, ...(scales === undefined ? {} : { scales }) };
        const simd = quantize("simd", source, spec, 3);
        expect(simd).toEqual(quantize("scalar", source, spec, 4));
        expect(simd.sums.sourceNorm2).toBeGreaterThan(0);
        expect(compare("simd", storedOf(simd, spec, 4, cols), source, 2)).toEqual(simd.sums);
      }
    }
  });
});
