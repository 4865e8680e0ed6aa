/** GPTQ beside the algorithm of the paper in float64, and what must hold of it whatever the inputs. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ChunkQuantizer } from "../../dist/kernels/chunk-quantizer.js";
import { loadKernels } from "../../dist/kernels/load.js";
import { findMethod } from "../../dist/quantize/methods/index.js";
import type { QuantSpec } from "../../dist/tensor/layout.js";
import { specs } from "./arbitraries.js";
import {
  floatSource,
  gaussians,
  KERNEL_BUILDS,
  kernelsOf,
  type Quantized,
  quantize,
  rebuildFloats,
  specOf,
  storedOf,
} from "./harness.js";
import {
  correlatedInputs,
  dampedInOrder,
  type FactoredHessian,
  factorHessian,
  gramOf,
  inverseFactor,
  outputError,
  plainGptq,
} from "./hessians.js";
import { referenceRtn, unpackBits } from "./reference.js";

const f32 = Math.fround;

/** Stored scale and zero point of every group of a row: rtn's scales, the range's unrounded lower end upon them. */
function referenceGrid(row: Float32Array, spec: QuantSpec) {
  const { bits, groupSize, symmetric, zeroPointBits } = spec;
  const largest = 2 ** bits - 1;
  const { scales, scaleCodes } = referenceRtn(row, spec);
  const perSuper = spec.superGroupSize === null ? 1 : spec.superGroupSize / groupSize;
  return Array.from({ length: Math.ceil(row.length / groupSize) }, (_, g) => {
    const group = row.subarray(g * groupSize, (g + 1) * groupSize);
    const scale =
      spec.scaleBits === null
        ? (scales[g] as number)
        : f32((scales[Math.floor(g / perSuper)] as number) * (scaleCodes[g] as number));
    if (symmetric) return { scale, zeroPoint: 2 ** (bits - 1), largest };
    const proposed = scale === 0 ? 0 : f32(-Math.min(0, ...group) / scale);
    if (zeroPointBits === null) return { scale, zeroPoint: proposed, largest };
    const step = f32(largest / (2 ** zeroPointBits - 1));
    const code = Math.min(2 ** zeroPointBits - 1, Math.max(0, Math.round(f32(proposed / step))));
    return { scale, zeroPoint: f32(code * step), largest };
  });
}

/** Codes, one each, row by row. */
function codesOf({ data }: Quantized, rows: number, cols: number, bits: number): number[] {
  const rowBytes = Math.ceil((cols * bits) / 8);
  return Array.from({ length: rows }, (_, row) =>
    unpackBits(data.subarray(row * rowBytes, (row + 1) * rowBytes), cols, bits),
  ).flat();
}

/** A layer and its inputs' Hessian, one column of it dead. */
function makeLayer(rows: number, cols: number, seed: number, dead = 3) {
  const hessian = gramOf(correlatedInputs(4 * cols, cols, seed, dead), cols);
  return { rows, cols, hessian, weights: gaussians(rows * cols, seed + 1) };
}

const SPECS: Partial<QuantSpec>[] = [
  { bits: 4, groupSize: 32, scaleBits: 6, zeroPointBits: 6 },
  { bits: 2, groupSize: 16, scaleBits: 4, zeroPointBits: 4 },
  { bits: 8, groupSize: 40 },
  { bits: 3, groupSize: 32, scaleBits: 6, zeroPointBits: 3 },
  { bits: 5, groupSize: 48 },
  { bits: 6, groupSize: 17, symmetric: true },
  { bits: 4, groupSize: 64, zeroPointBits: 4 },
  { bits: 2, groupSize: 17, scaleBits: 6, superGroupSize: 51 },
  { bits: 4, groupSize: 32, symmetric: true },
  { bits: 4, groupSize: 32, symmetric: true, scaleBits: 6 },
];

describe.each(KERNEL_BUILDS)("gptq, %s", (build) => {
  const kernels = kernelsOf(build);

  it.each(SPECS)("is the algorithm of the paper: %o", (partial) => {
    const spec = specOf({ method: "gptq", ...partial });
    let objective = 0;
    let plainObjective = 0;
    let same = 0;
    let rowCount = 0;
    // Past a block of columns (128), and once past the columns that are summed at a time (256) as well.
    for (const [seed, cols] of [60, 150, 131, ...(partial === SPECS[0] ? [400] : [])].entries()) {
      const { rows, hessian, weights } = makeLayer(12, cols, seed);
      const factored = factorHessian(kernels, hessian, cols) as FactoredHessian;
      const upper = inverseFactor(dampedInOrder(hessian, factored), cols);
      const found = quantize(build, { ...floatSource(weights, cols), hessian: factored }, spec, 5);
      const codes = codesOf(found, rows, cols, spec.bits);
      const live = weights.map((w, k) => (factored.deadColumns[k % cols] === 1 ? 0 : w));
      const rebuilt: number[] = [];
      for (let row = 0; row < rows; row++) {
        const source = live.subarray(row * cols, (row + 1) * cols);
        const grid = referenceGrid(source, spec);
        const plain = plainGptq(source, upper, factored, (col) => grid[Math.floor(col / spec.groupSize)] as never);
        rebuilt.push(...plain.rebuilt);
        const ours = codes.slice(row * cols, (row + 1) * cols);
        // The first column that differs lies, as near as float32 can tell, half-way between two codes; what comes
        // after it has another error to make good.
        const first = [...factored.order].find((col) => ours[col] !== plain.codes[col]);
        rowCount += 1;
        if (first === undefined) same += 1;
        else expect(Math.abs(((plain.values[first] as number) % 1) - 0.5)).toBeLessThan(2e-4 * 2 ** (spec.bits - 2));
      }
      objective += outputError(live, rebuildFloats(build, storedOf(found, spec, rows, cols)), hessian, cols);
      plainObjective += outputError(live, rebuilt, hessian, cols);
    }
    expect(same).toBeGreaterThan(0.8 * rowCount);
    expect(Math.abs(objective / plainObjective - 1)).toBeLessThan(0.01);
  });

  it("chooses the nearest codes where columns have nothing to do with each other", () => {
    fc.assert(
      fc.property(specs(["gptq"]), fc.integer({ min: 1, max: 200 }), fc.nat(1000), (spec, cols, seed) => {
        const rows = 3;
        const weights = gaussians(rows * cols, seed + 1);
        const hessian = new Float64Array(cols * cols);
        for (let c = 0; c < cols; c++) hessian[c * (cols + 1)] = 1 + ((c * 7919 + seed) % 13);
        const factored = factorHessian(kernels, hessian, cols) as FactoredHessian;
        const found = quantize(build, { ...floatSource(weights, cols), hessian: factored }, spec);
        const expected: number[] = [];
        for (let row = 0; row < rows; row++) {
          const source = weights.subarray(row * cols, (row + 1) * cols);
          const grid = referenceGrid(source, spec);
          for (const [col, w] of source.entries()) {
            const { scale, zeroPoint, largest } = grid[Math.floor(col / spec.groupSize)] as (typeof grid)[number];
            const value = f32((scale === 0 ? 0 : f32(w / scale)) + zeroPoint);
            expected.push(roundEven(Math.min(largest, Math.max(0, value))));
          }
        }
        expect(codesOf(found, rows, cols, spec.bits)).toEqual(expected);
      }),
      { numRuns: 60 },
    );
  });

  it("does a fraction of the harm to the output that the nearest codes on the same grid do", () => {
    const spec = specOf({ method: "gptq", bits: 2, groupSize: 32, scaleBits: 6, zeroPointBits: 6 });
    for (let seed = 0; seed < 6; seed++) {
      const { rows, cols, hessian, weights } = makeLayer(9, 96, seed, -1);
      const factored = factorHessian(kernels, hessian, cols) as FactoredHessian;
      const independent = { ...factored, factor: new Float32Array(factored.factor.length) };
      const errorWith = (used: FactoredHessian) => {
        const found = quantize(build, { ...floatSource(weights, cols), hessian: used }, spec);
        return outputError(weights, rebuildFloats(build, storedOf(found, spec, rows, cols)), hessian, cols);
      };
      expect(errorWith(factored)).toBeLessThan(0.3 * errorWith(independent));
    }
  });

  it("takes the weights of dead columns for zeros, and no notice of them elsewhere", () => {
    const spec = specOf({ method: "gptq", bits: 4, groupSize: 32, scaleBits: 6, zeroPointBits: 6 });
    const { rows, cols, hessian, weights } = makeLayer(5, 80, 9, 40);
    const factored = factorHessian(kernels, hessian, cols) as FactoredHessian;
    const other = weights.map((w, k) => (k % cols === 40 ? 100 * w : w));
    const [found, changed] = [weights, other].map((values) =>
      quantize(build, { ...floatSource(values, cols), hessian: factored }, spec),
    ) as [Quantized, Quantized];
    expect({ ...changed, sums: null }).toEqual({ ...found, sums: null });
    const rebuilt = rebuildFloats(build, storedOf(found, spec, rows, cols));
    const deviation = Math.max(...weights.map(Math.abs)) / 8;
    for (let row = 0; row < rows; row++) expect(Math.abs(rebuilt[row * cols + 40] as number)).toBeLessThan(deviation);
    // Errors are those of the weights as they are.
    expect(changed.sums.sourceNorm2).toBeGreaterThan(found.sums.sourceNorm2);
  });

  it("is told exactly what it takes, and takes less in smaller slabs", () => {
    const spec = specOf({ method: "gptq", bits: 4, groupSize: 32, scaleBits: 6, zeroPointBits: 6 });
    const shape = { rows: 40, cols: 77, slabRows: 19, dtype: "F32", sourceScale: "none", hessian: {} } as const;
    const needed = ChunkQuantizer.bytesNeeded(findMethod("gptq"), spec, shape);
    const tight = loadKernels({ build, maxBytes: needed });
    const hessian = factorHessian(kernels, gramOf(correlatedInputs(200, 77, 1), 77), 77) as FactoredHessian;
    new ChunkQuantizer(tight, findMethod("gptq"), spec, { ...shape, hessian });
    expect(tight.arena.usedBytes).toBe(needed);
    const { hessian: _, ...without } = shape;
    expect(() => new ChunkQuantizer(tight, findMethod("gptq"), spec, without)).toThrow("without a Hessian");
    expect(ChunkQuantizer.bytesNeeded(findMethod("gptq"), spec, { ...shape, slabRows: 8 })).toBeLessThan(needed);
  });
});

function roundEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}
