/** What quantized rows do to the layer's output over held-back inputs. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { METHODS } from "../../dist/quantize/methods/index.js";
import type { MethodName } from "../../dist/tensor/layout.js";
import { floatSource, gaussians, quantize, rebuildFloats, specOf, storedOf } from "./harness.js";

const methods = Object.keys(METHODS) as MethodName[];

interface Layer {
  rows: number;
  cols: number;
  /** Columns of a channel; cols divides by it. */
  width: number;
  inputs: number;
  seed: number;
  equalizes: boolean;
  activationBits: number | null;
}

const layers = fc
  .record({
    rows: fc.integer({ min: 1, max: 20 }),
    channels: fc.integer({ min: 1, max: 70 }),
    width: fc.constantFrom(1, 1, 4, 9),
    inputs: fc.integer({ min: 1, max: 20 }),
    seed: fc.nat(1000),
    equalizes: fc.boolean(),
    activationBits: fc.constantFrom(null, 4, 8),
  })
  .map(({ channels, ...rest }): Layer => ({ ...rest, cols: channels * rest.width }));

/** A layer's tensors, and its held-back inputs as quantized activations have them (FORMAT.md). */
function makeLayer({ rows, cols, width, inputs, seed, equalizes, activationBits }: Layer) {
  const weights = gaussians(rows * cols, seed + 1);
  const x = gaussians(inputs * cols, seed + 2, 1);
  const equalizationScales = gaussians(cols / width, seed + 3, 1).map((each) => Math.exp(each));
  const scaleOf = (k: number) => (equalizes ? (equalizationScales[Math.floor((k % cols) / width)] as number) : 1);
  if (activationBits === null) {
    return { weights, heldBack: { rows: x }, quantized: Float64Array.from(x), equalizationScales };
  }
  const largest = 2 ** activationBits - 1;
  const scales = Float32Array.from({ length: inputs }, (_, i) => (4 + (i % 3)) / largest);
  const zeroPoints = Float32Array.from({ length: inputs }, (_, i) => Math.round(largest / 2) - (i % 2));
  const f32 = Math.fround;
  const quantized = Float64Array.from(x, (value, k) => {
    const input = Math.floor(k / cols);
    const [s, z, e] = [scales[input] as number, zeroPoints[input] as number, scaleOf(k)];
    const q = Math.min(largest, Math.max(0, roundEven(f32(f32(value / e) / s)) + z));
    return f32(f32((q - z) * s) * e);
  });
  const activations = { bits: activationBits, scales, zeroPoints };
  return { weights, heldBack: { rows: x, activations }, quantized, equalizationScales };
}

function roundEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
}

describe.each(methods)("output of %s", (method) => {
  it("is that of the rebuilt weights, in float64, alike in both builds and whatever the slabs", () => {
    fc.assert(
      fc.property(layers, fc.integer({ min: 1, max: 20 }), (layer, slabRows) => {
        const { rows, cols, equalizes } = layer;
        const { weights, heldBack, quantized, equalizationScales } = makeLayer(layer);
        const spec = specOf({ method, bits: 2, groupSize: 32, scaleBits: 6, zeroPointBits: 6 });
        const scales = equalizes ? equalizationScales : null;
        const source = {
          ...floatSource(weights, cols),
          heldBack,
          ...(scales === null ? {} : { equalizationScales: scales }),
        };
        const found = quantize("simd", source, spec, Math.min(slabRows, rows));
        expect(quantize("scalar", source, spec)).toEqual(found);
        const rebuilt = rebuildFloats("simd", storedOf(found, spec, rows, cols, scales));
        const expected = { dot: 0, sourceNorm2: 0, rebuiltNorm2: 0, errorNorm2: 0 };
        for (let row = 0; row < rows; row++) {
          for (let input = 0; input < layer.inputs; input++) {
            let y = 0;
            let v = 0;
            for (let c = 0; c < cols; c++) {
              y += (weights[row * cols + c] as number) * (heldBack.rows[input * cols + c] as number);
              v += (rebuilt[row * cols + c] as number) * (quantized[input * cols + c] as number);
            }
            expected.dot += y * v;
            expected.sourceNorm2 += y * y;
            expected.rebuiltNorm2 += v * v;
            expected.errorNorm2 += (y - v) ** 2;
          }
        }
        const scale = expected.sourceNorm2 + expected.rebuiltNorm2;
        for (const [name, value] of Object.entries(expected)) {
          const error = Math.abs((found.outputSums as typeof expected)[name as keyof typeof expected] - value);
          expect(error).toBeLessThan(1e-5 * (name === "errorNorm2" ? Math.sqrt(value * scale) + 1e-6 * scale : scale));
        }
      }),
      { numRuns: 50 },
    );
  });
});
