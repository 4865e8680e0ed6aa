import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { rowLayout } from "../../dist/tensor/layout.js";
import { tensors } from "./arbitraries.js";
import {
  bytesOf,
  floatSource,
  gaussians,
  KERNEL_BUILDS,
  quantize,
  rebuildFloats,
  specOf,
  storedOf,
} from "./harness.js";
import { packBits, referenceRtn, unpackBits } from "./reference.js";

const bits = (floats: Float32Array) => new Uint32Array(floats.buffer, floats.byteOffset, floats.length);

describe.each(KERNEL_BUILDS)("rtn, %s", (build) => {
  it("is DESIGN.md's rtn, to the bit, for every width, storage, shape and kind of weights", () => {
    fc.assert(
      fc.property(tensors(["rtn"]), ({ spec, rows, cols, values }) => {
        const layout = rowLayout(cols, spec);
        const found = quantize(build, floatSource(values, cols), spec);
        const rebuilt = rebuildFloats(build, storedOf(found, spec, rows, cols));
        for (let row = 0; row < rows; row++) {
          const expected = referenceRtn(values.subarray(row * cols, (row + 1) * cols), spec);
          const part = <T extends Uint8Array | Float32Array>(array: T, perRow: number) =>
            array.subarray(row * perRow, (row + 1) * perRow);
          expect(part(found.data, layout.codeBytes)).toEqual(packBits(expected.codes, spec.bits));
          const scales = part(found.scales, layout.scaleCount) as Float32Array;
          expect(bits(scales)).toEqual(bits(Float32Array.from(expected.scales)));
          if (found.zeroPoints !== null) {
            const zeroPoints = part(found.zeroPoints, layout.zeroPointCount) as Float32Array;
            expect(bits(zeroPoints)).toEqual(bits(Float32Array.from(expected.zeroPoints)));
          }
          if (found.scaleCodes !== null) {
            expect(part(found.scaleCodes, layout.scaleCodeBytes)).toEqual(
              packBits(expected.scaleCodes, spec.scaleBits as number),
            );
          }
          if (found.zeroPointCodes !== null) {
            expect(part(found.zeroPointCodes, layout.zeroPointCodeBytes)).toEqual(
              packBits(expected.zeroPointCodes, spec.zeroPointBits as number),
            );
          }
          const rebuiltRow = rebuilt.subarray(row * cols, (row + 1) * cols);
          expect(bits(rebuiltRow)).toEqual(bits(Float32Array.from(expected.rebuilt)));
        }
        expect(found.zeroPoints === null).toBe(spec.symmetric || spec.zeroPointBits !== null);
        expect(found.zeroPointCodes === null).toBe(spec.symmetric || spec.zeroPointBits === null);
        expect(found.scaleCodes === null).toBe(spec.scaleBits === null);
        expect(found.residualScaleCodes).toBeNull();
      }),
      { numRuns: 300 },
    );
  });

  it("errs by at most half a scale, float32 storage, asymmetric", () => {
    fc.assert(
      fc.property(fc.constantFrom(2 as const, 4 as const, 8 as const), fc.integer(), (width, seed) => {
        const values = gaussians(3 * 130, seed);
        const spec = specOf({ bits: width });
        const found = quantize(build, floatSource(values, 130), spec);
        const rebuilt = rebuildFloats(build, storedOf(found, spec, 3, 130));
        rebuilt.forEach((v, i) => {
          const group = Math.floor(i / 130) * 5 + Math.floor((i % 130) / 32);
          const w = values[i] as number;
          expect(Math.abs(w - v)).toBeLessThanOrEqual((found.scales[group] as number) * (0.5 + 2 ** (width - 22)));
        });
      }),
    );
  });

  it("keeps the largest magnitude of a symmetric group exactly, float32 scales", () => {
    fc.assert(
      fc.property(fc.integer(), (seed) => {
        const values = gaussians(64, seed);
        const spec = specOf({ symmetric: true, groupSize: 64 });
        const found = quantize(build, floatSource(values, 64), spec);
        const rebuilt = rebuildFloats(build, storedOf(found, spec, 1, 64));
        const extreme = values.reduce((m, w) => (Math.abs(w) > Math.abs(m) ? w : m), 0);
        const at = values.indexOf(extreme);
        expect(rebuilt[at]).toBe(extreme);
        expect(unpackBits(found.data, 64, 4)[at]).toBe(0);
        expect(Math.sign(found.scales[0] as number)).toBe(-Math.sign(extreme));
      }),
    );
  });

  it("takes the first of two largest magnitudes for the sign of a symmetric scale", () => {
    const values = new Float32Array(32).fill(0.1);
    values[7] = 0.5;
    values[20] = -0.5;
    const spec = specOf({ symmetric: true });
    expect(quantize(build, floatSource(values, 32), spec).scales[0]).toBe(-0.0625);
    values[3] = -0.5;
    expect(quantize(build, floatSource(values, 32), spec).scales[0]).toBe(0.0625);
  });

  it("stores scales that underflow as plain zeros", () => {
    for (const w of [2 ** -149, -(2 ** -149)]) {
      const values = new Float32Array(16).fill(w);
      const found = quantize(build, floatSource(values, 16), specOf({ symmetric: true, groupSize: 16 }));
      expect(bits(found.scales)).toEqual(Uint32Array.of(0));
    }
    const values = Float32Array.from({ length: 128 }, (_, i) => (i % 2 === 0 ? 1 : -1) * 2 ** -149);
    const found = quantize(build, floatSource(values, 128), specOf({ groupSize: 16 }));
    expect(bits(found.scales)).toEqual(new Uint32Array(8));
    expect(bits(found.zeroPoints as Float32Array)).toEqual(new Uint32Array(8));
  });

  it("rebuilds zero groups to zeros, also beside others in a super-group", () => {
    const values = gaussians(1024, 3);
    values.fill(0, 64, 128);
    for (const scaleBits of [null, 2, 6, 8]) {
      for (const symmetric of [false, true]) {
        const spec = specOf({ scaleBits, zeroPointBits: scaleBits, symmetric });
        const found = quantize(build, floatSource(values, 1024), spec);
        const rebuilt = rebuildFloats(build, storedOf(found, spec, 1, 1024));
        expect(rebuilt.subarray(64, 128).every((v) => v === 0)).toBe(true);
      }
    }
  });

  it("does not read beyond a row: what stands after it changes nothing", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 100 }), fc.integer(), (cols, seed) => {
        const spec = specOf({ groupSize: 17, scaleBits: 6, zeroPointBits: 6, superGroupSize: 34 });
        const two = gaussians(2 * cols, seed);
        const alone = quantize(build, floatSource(two.slice(0, cols), cols), spec);
        two.fill(1e20, cols);
        const first = quantize(build, floatSource(two, cols), spec);
        const layout = rowLayout(cols, spec);
        expect(first.data.subarray(0, layout.codeBytes)).toEqual(alone.data);
        expect(bytesOf(first.scales.subarray(0, layout.scaleCount))).toEqual(bytesOf(alone.scales));
      }),
    );
  });
});
