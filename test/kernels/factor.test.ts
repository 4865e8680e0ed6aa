import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { HessianFactor } from "../../dist/kernels/factor.js";
import { loadKernels } from "../../dist/kernels/load.js";
import { KERNEL_BUILDS, kernelsOf } from "./harness.js";
import {
  correlatedInputs,
  dampedInOrder,
  type FactoredHessian,
  factorHessian,
  factorIndex,
  gramOf,
} from "./hessians.js";

/** T·D·Tᵀ in visiting order. */
function multiplyOut({ factor, order }: FactoredHessian): Float64Array {
  const cols = order.length;
  const at = (row: number, col: number) => (row === col ? 1 : (factor[factorIndex(row, col)] as number));
  const product = new Float64Array(cols * cols);
  for (let i = 0; i < cols; i++) {
    for (let j = i; j < cols; j++) {
      let sum = 0;
      for (let k = j; k < cols; k++) sum += at(i, k) * (factor[factorIndex(k, k)] as number) * at(j, k);
      product[i * cols + j] = sum;
      product[j * cols + i] = sum;
    }
  }
  return product;
}

/** Largest error of an element, in units of its row's and its column's diagonal. */
function worstError(found: Float64Array, expected: Float64Array, cols: number): number {
  const size = (i: number) => Math.sqrt(expected[i * (cols + 1)] as number);
  let worst = 0;
  for (const [k, value] of found.entries()) {
    const error = Math.abs(value - (expected[k] as number)) / (size(Math.floor(k / cols)) * size(k % cols));
    worst = Math.max(worst, error);
  }
  return worst;
}

const hessians = fc.record({
  // On both sides of a panel (8) and of a block (64).
  cols: fc.oneof(fc.integer({ min: 1, max: 20 }), fc.constantFrom(63, 64, 65, 72, 127, 130)),
  seed: fc.nat(1000),
  dead: fc.integer({ min: -20, max: 30 }),
  order: fc.boolean(),
});

describe.each(KERNEL_BUILDS)("factor, %s", (build) => {
  const kernels = kernelsOf(build);

  it("times its transpose is the damped matrix in visiting order, whatever lies below the diagonal", () => {
    fc.assert(
      fc.property(hessians, ({ cols, seed, dead, order }) => {
        const hessian = gramOf(correlatedInputs(3 * cols, cols, seed, dead), cols);
        const upper = hessian.map((value, k) => (k % cols < Math.floor(k / cols) ? Number.NaN : value));
        const found = factorHessian(kernels, upper, cols, { order }) as FactoredHessian;
        expect([...found.order].sort((a, b) => a - b)).toEqual(Array.from({ length: cols }, (_, c) => c));
        expect([...found.deadColumns]).toEqual(Array.from({ length: cols }, (_, c) => (c === dead ? 1 : 0)));
        if (!order && !(dead >= 0)) expect([...found.order]).toEqual(Array.from({ length: cols }, (_, c) => c));
        expect(worstError(multiplyOut(found), dampedInOrder(hessian, found), cols)).toBeLessThan(3e-6);
      }),
      { numRuns: 60 },
    );
  });

  it("puts last, of the columns left, always the one of least variance given the others", () => {
    const cols = 90;
    const hessian = gramOf(correlatedInputs(400, cols, 4), cols);
    const found = factorHessian(kernels, hessian, cols) as FactoredHessian;
    const left = dampedInOrder(hessian, found);
    for (let last = cols - 1; last > 0; last--) {
      const pivot = left[last * (cols + 1)] as number;
      for (let i = 0; i < last; i++) expect(left[i * (cols + 1)]).toBeGreaterThan(pivot * (1 - 1e-4));
      for (let i = 0; i < last; i++) {
        for (let j = 0; j < last; j++) {
          left[i * cols + j] =
            (left[i * cols + j] as number) -
            ((left[i * cols + last] as number) * (left[j * cols + last] as number)) / pivot;
        }
      }
    }
    const sumOfPivots = ({ factor }: FactoredHessian) =>
      Array.from({ length: cols }, (_, i) => factor[factorIndex(i, i)] as number).reduce((sum, d) => sum + d, 0);
    const natural = factorHessian(kernels, hessian, cols, { order: false }) as FactoredHessian;
    expect(sumOfPivots(found)).toBeLessThan(0.9 * sumOfPivots(natural));
  });

  it("divides by the equalization scales of both columns", () => {
    const [cols, width] = [36, 3];
    const inputs = correlatedInputs(200, cols, 7);
    const scales = Float32Array.from({ length: cols / width }, (_, c) => 2 ** ((c % 5) - 2));
    const divided = inputs.map((x, k) => x / (scales[Math.floor((k % cols) / width)] as number));
    // Powers of two: exact.
    expect(factorHessian(kernels, gramOf(inputs, cols), cols, { equalizationScales: scales })).toEqual(
      factorHessian(kernels, gramOf(divided, cols), cols),
    );
  });

  it("says so where a matrix is not positive definite, or no matrix at all", () => {
    const cols = 70;
    const fine = gramOf(correlatedInputs(300, cols, 3), cols);
    const changed = (row: number, col: number, value: number) =>
      fine.map((x, k) => (k === row * cols + col ? value : x));
    expect(factorHessian(kernels, fine, cols)).not.toBeNull();
    expect(
      factorHessian(
        kernels,
        fine.map((x) => -x),
        cols,
      ),
    ).toBeNull();
    expect(factorHessian(kernels, changed(3, 3, -1), cols)).toBeNull();
    for (const value of [Number.NaN, Infinity]) {
      expect(factorHessian(kernels, changed(5, 5, value), cols)).toBeNull();
      expect(factorHessian(kernels, changed(2, 66, value), cols)).toBeNull();
    }
    const size = Math.sqrt((fine[0] as number) * (fine[cols + 1] as number));
    expect(factorHessian(kernels, changed(0, 1, 2 * size), cols)).toBeNull();
    // Fewer inputs than columns: only damping makes it one.
    const singular = gramOf(correlatedInputs(20, cols, 5), cols);
    expect(factorHessian(kernels, singular, cols, { damp: 0 })).toBeNull();
    expect(factorHessian(kernels, singular, cols)).not.toBeNull();
    expect(factorHessian(kernels, new Float64Array(cols * cols), cols)?.deadColumns.every((dead) => dead === 1)).toBe(
      true,
    );
  });
});

it("gives the same bits with SIMD and without", () => {
  for (const cols of [5, 64, 131, 200]) {
    const hessian = gramOf(correlatedInputs(250, cols, cols), cols);
    for (const order of [true, false]) {
      const [simd, scalar] = KERNEL_BUILDS.map((build) => factorHessian(kernelsOf(build), hessian, cols, { order }));
      expect(simd).toEqual(scalar);
    }
  }
});

it("is told exactly what it takes", () => {
  const cols = 75;
  const needed = HessianFactor.bytesNeeded(cols);
  const tight = loadKernels({ maxBytes: needed });
  expect(factorHessian(tight, gramOf(correlatedInputs(200, cols, 1), cols), cols)).not.toBeNull();
  expect(tight.arena.usedBytes).toBe(needed);
  expect(() => new HessianFactor(loadKernels({ maxBytes: needed - 1 }), cols)).toThrow("kernels need");
});
