import { existsSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { findMethod } from "../../../dist/quantize/methods/index.js";
import { rowLayout } from "../../../dist/tensor/layout.js";
import { deriveMetrics } from "../../../dist/tensor/metrics.js";
import { tensors } from "../../kernels/arbitraries.js";
import {
  floatSource,
  gaussians,
  KERNEL_BUILDS,
  quantize,
  rebuildFloats,
  specOf,
  storedOf,
} from "../../kernels/harness.js";
import { roundEven } from "../../kernels/reference.js";
import { floatsOf, matricesOf, partsOf, readSafetensors, referenceCases, SHARED_MODELS } from "./vectors.js";

const f32 = Math.fround;
const clamp = (x: number, low: number, high: number) => Math.min(Math.max(x, low), high);

/** Range scale and unrounded zero point of a group, as hqq starts. */
function start(group: Float32Array, largest: number): { s: number; z: number } {
  const low = group.reduce((a, b) => Math.min(a, b), 0);
  const high = group.reduce((a, b) => Math.max(a, b), 0);
  const s = f32(f32(high - low) / largest);
  return { s, z: s === 0 ? 0 : f32(-low / s) };
}

/** DESIGN.md's hqq of one group in float64 with Math.pow: zero point and Σ|w − ŵ| of every step. */
function definition(group: Float32Array, bits: number): { z: number; error: number }[] {
  const largest = 2 ** bits - 1;
  const { s, z: first } = start(group, largest);
  let z: number = first;
  let beta = 10;
  const steps: { z: number; error: number }[] = [];
  for (let step = 0; step <= 20; step++) {
    let error = 0;
    let sum = 0;
    for (const w of group) {
      const q = clamp(roundEven(w / s + z), 0, largest);
      const r = w / s - (q - z);
      error += s * Math.abs(r);
      const e = Math.sign(r) * Math.max(0, Math.abs(r) - Math.abs(r) ** (0.7 - 1) / beta);
      sum += q - (w / s - e);
    }
    steps.push({ z, error });
    z = sum / group.length;
    beta *= 1.01;
  }
  return steps;
}

describe.each(KERNEL_BUILDS)("hqq, %s", (build) => {
  it("stores what the numpy prototype does, to the byte", () => {
    const cases = referenceCases("hqq");
    expect(cases.length).toBeGreaterThan(40);
    for (const { spec, source, cols, values, expected } of cases) {
      const found = quantize(build, floatSource(values, cols), spec);
      expect(partsOf(found), `${source} ${JSON.stringify(spec)}`).toEqual(expected);
    }
  });

  it("counts columns by their importance: alike where it is one, not at all where it is zero", () => {
    const cols = 96;
    const values = gaussians(8 * cols, 5);
    const spec = specOf({ method: "hqq", bits: 2, groupSize: 32 });
    const plain = quantize(build, floatSource(values, cols), spec);
    const ones = { ...floatSource(values, cols), importance: new Float32Array(cols).fill(1) };
    expect(quantize(build, ones, spec)).toEqual(plain);
    // Column 3 lies within the range of its group, so it only counts by what it pulls.
    const importance = Float32Array.from({ length: cols }, (_, c) => (c === 3 ? 0 : 1 + (c % 5)));
    const moved = values.map((w, i) => (i % cols === 3 ? 0 : w));
    const zeroPoints = (weights: Float32Array) =>
      quantize(build, { ...floatSource(weights, cols), importance }, { ...spec, zeroPointBits: null }).zeroPoints;
    expect(zeroPoints(moved)).toEqual(zeroPoints(values.map((w, i) => (i % cols === 3 ? w / 1e3 : w))));
    expect(zeroPoints(values)).not.toEqual(
      quantize(build, floatSource(values, cols), { ...spec, zeroPointBits: null }).zeroPoints,
    );
  });

  it("never has a row of greater mean |w − ŵ| than its start, float32 storage", () => {
    fc.assert(
      fc.property(tensors(["hqq"]), ({ spec: drawn, rows, cols, values }) => {
        const spec = { ...drawn, scaleBits: null, zeroPointBits: null, superGroupSize: null };
        const found = quantize(build, floatSource(values, cols), spec);
        const rebuilt = rebuildFloats(build, storedOf(found, spec, rows, cols));
        const largest = 2 ** spec.bits - 1;
        for (let row = 0; row < rows; row++) {
          let before = 0;
          let after = 0;
          let scales = 0;
          for (let from = row * cols; from < (row + 1) * cols; from += spec.groupSize) {
            const to = Math.min(from + spec.groupSize, (row + 1) * cols);
            const { s, z } = start(values.subarray(from, to), largest);
            for (let i = from; i < to; i++) {
              const w = values[i] as number;
              const q = s === 0 ? roundEven(z) : clamp(roundEven(f32(w / s + z)), 0, largest);
              before += Math.abs(w - (q - z) * s);
              after += Math.abs(w - (rebuilt[i] as number));
              scales += s;
            }
          }
          // A float32 residual is off by up to the last bit of a code of 255, 2^-17 scales.
          expect(after).toBeLessThanOrEqual(before + scales * 2 ** -16);
        }
      }),
      { numRuns: 300 },
    );
  });

  it.each([2, 3, 4, 5, 6, 8] as const)("is the definition with Math.pow in float64, %i bits", (bits) => {
    const groupSize = 64;
    const values = gaussians(groupSize * 400, bits);
    const spec = specOf({ method: "hqq", bits, groupSize });
    const found = quantize(build, floatSource(values, groupSize), spec);
    let close = 0;
    for (let row = 0; row < 400; row++) {
      const steps = definition(values.subarray(row * groupSize, (row + 1) * groupSize), bits);
      // The last steps err alike; float32 may prefer the step before.
      const least = Math.min(...steps.map(({ error }) => error)) * 1.0001;
      const z = found.zeroPoints?.[row] as number;
      if (steps.some((step) => Math.abs(step.z - z) < 1e-4 && step.error <= least)) close += 1;
    }
    // The rest: a weight so near the middle between two codes that float32 takes the other one.
    expect(close).toBeGreaterThan(390);
  });

  it("moves zero points and leaves the range's scales", () => {
    const values = gaussians(40 * 96, 3);
    const [hqq, rtn] = (["hqq", "rtn"] as const).map((method) =>
      quantize(build, floatSource(values, 96), specOf({ method, scaleBits: 6, superGroupSize: 64 })),
    );
    expect(hqq?.scales).toEqual(rtn?.scales);
    expect(hqq?.scaleCodes).toEqual(rtn?.scaleCodes);
    expect(hqq?.zeroPoints).not.toEqual(rtn?.zeroPoints);
  });

  it("does not let a row depend on its neighbours, ragged groups", () => {
    const values = gaussians(6 * 77, 4);
    const spec = specOf({ method: "hqq", groupSize: 23, zeroPointBits: 6 });
    const whole = quantize(build, floatSource(values, 77), spec);
    const bytes = rowLayout(77, spec).codeBytes;
    for (let row = 0; row < 6; row++) {
      const alone = quantize(build, floatSource(values.slice(row * 77, (row + 1) * 77), 77), spec);
      expect(alone.data).toEqual(whole.data.slice(row * bytes, (row + 1) * bytes));
    }
  });
});

describe("hqq", () => {
  it("refuses symmetric, naming both settings", () => {
    expect(() => findMethod("hqq").check(specOf({ method: "hqq", symmetric: true }))).toThrow(
      expect.objectContaining({ code: "E_CONFLICT", message: expect.stringMatching(/hqq.*symmetric/) }),
    );
  });

  it.skipIf(!existsSync(SHARED_MODELS) && !process.env.CI)(
    "has the scales of another implementation, nearly all of its codes, and a smaller error (shared/models/parity)",
    () => {
      const { tensors: theirs } = readSafetensors(`${SHARED_MODELS}parity/dit-mnist_quant_reference.safetensors`);
      const models = readSafetensors(`${SHARED_MODELS}dit-mnist/transformer/diffusion_pytorch_model.safetensors`);
      for (const layer of ["transformer_blocks.0.attn1.to_q", "transformer_blocks.1.ff.net.2"]) {
        const values = floatsOf(models.tensors.get(`${layer}.weight`));
        const cols = values.length / 256;
        for (const bits of [2, 4] as const) {
          const part = (name: string) => theirs.get(`${layer}.hqq.b${bits}.g64.${name}`);
          const codes = part("codes")?.bytes as Uint8Array;
          const scales = floatsOf(part("scale"));
          const zeros = floatsOf(part("zero"));
          const spec = specOf({ method: "hqq", bits, groupSize: 64 });
          const found = quantize("simd", floatSource(values, cols), spec);
          const rebuilt = rebuildFloats("simd", storedOf(found, spec, 256, cols));
          for (const [g, s] of found.scales.entries())
            expect(Math.abs(s / (scales[g] as number) - 1)).toBeLessThan(3e-7);
          let equal = 0;
          let ours = 0;
          let other = 0;
          values.forEach((w, i) => {
            const g = Math.floor(i / 64);
            const code = Math.round(
              (rebuilt[i] as number) / (found.scales[g] as number) + (found.zeroPoints?.[g] as number),
            );
            if (code === codes[i]) equal += 1;
            ours += Math.abs(w - (rebuilt[i] as number));
            other += Math.abs(w - ((codes[i] as number) - (zeros[g] as number)) * (scales[g] as number));
          });
          // Theirs does not normalise the residual, so its zero points hardly move.
          expect(equal / values.length).toBeGreaterThan(0.93);
          expect(ours).toBeLessThan(other);
        }
      }
    },
  );

  it.skipIf(!existsSync(SHARED_MODELS) && !process.env.CI)("keeps the direction of every layer of real models", () => {
    for (const path of ["dit-mnist/transformer", "unet-mnist/unet"]) {
      for (const { name, cols, values } of matricesOf(`${SHARED_MODELS}${path}/diffusion_pytorch_model.safetensors`)) {
        for (const [bits, least] of [
          [8, 0.9999],
          [6, 0.999],
          [5, 0.997],
          [4, 0.98],
          [3, 0.94],
          [2, 0.75],
        ] as const) {
          const spec = specOf({ method: "hqq", bits, groupSize: 64, scaleBits: 6, zeroPointBits: 6 });
          const { sums } = quantize("simd", floatSource(values, cols), spec);
          expect(deriveMetrics(sums).cosineSimilarity, `${name} at ${bits} bits`).toBeGreaterThan(least);
        }
      }
    }
  });
});
