/** Codes of ggml's blocks: the two builds alike, sums those of what a reader rebuilds, never worse than plain ranges. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";

import { Converter } from "../../dist/kernels/converter.js";
import { GgmlQuantizer } from "../../dist/kernels/ggml-quantizer.js";
import { BLOCKS, type BlockDtype } from "../../dist/tensor/dtype.js";
import { bytesOf, gaussians, KERNEL_BUILDS, kernelsOf } from "./harness.js";

type Build = (typeof KERNEL_BUILDS)[number];
const types = Object.keys(BLOCKS) as BlockDtype[];

interface Matrix {
  readonly cols: number;
  readonly values: Float32Array;
  readonly importance: Float32Array | null;
}

function quantize(build: Build, type: BlockDtype, matrix: Matrix, slabRows?: number) {
  const { cols, values, importance } = matrix;
  const rows = values.length / cols;
  const step = slabRows ?? rows;
  const shape = { type, rows, cols, slabRows: step, dtype: "F32", sourceScale: "none", importance } as const;
  const quantizer = new GgmlQuantizer(kernelsOf(build), shape);
  for (let row = 0; row < rows; row += step) {
    const rowCount = Math.min(step, rows - row);
    quantizer.source(rowCount).set(bytesOf(values.subarray(row * cols, (row + rowCount) * cols)));
    const bad = quantizer.quantize(rowCount);
    if (bad !== null) return { bad };
  }
  return { blocks: quantizer.outputs().slice(), sums: quantizer.sums() };
}

function rebuild(type: BlockDtype, blocks: Uint8Array, rows: number, cols: number): Float32Array {
  const shape = { cols, slabRows: rows, sourceDtype: type, sourceScale: "none", outDtype: "F32" } as const;
  const converter = new Converter(kernelsOf("simd"), shape);
  converter.source(rows).set(blocks);
  return new Float32Array(converter.convert(rows).slice().buffer);
}

/** Σ h·(w − ŵ)² of what a reader makes of the blocks. */
function weightedError(type: BlockDtype, matrix: Matrix, blocks: Uint8Array, h: Float32Array): number {
  const { cols, values } = matrix;
  const rebuilt = rebuild(type, blocks, values.length / cols, cols);
  return values.reduce((sum, w, index) => sum + (h[index % cols] as number) * (w - (rebuilt[index] as number)) ** 2, 0);
}

const matrices: fc.Arbitrary<Matrix> = fc
  .record({
    rows: fc.integer({ min: 1, max: 3 }),
    seed: fc.integer({ min: 1, max: 1e6 }),
    kind: fc.constantFrom("normal", "outliers", "positive", "negative", "zeros", "constant", "sparse"),
    size: fc.constantFrom(1e-9, 1e-7, 1e-4, 0.04, 1, 1000),
    hasImportance: fc.boolean(),
  })
  .map(({ rows, seed, kind, size, hasImportance }) => {
    const cols = 512;
    const shapes: Record<typeof kind, (w: number, index: number) => number> = {
      normal: (w) => w,
      outliers: (w, index) => (index % 97 === 0 ? 40 * w : w),
      positive: (w) => Math.abs(w) + 1,
      negative: (w) => -Math.abs(w) - 1,
      zeros: () => -0,
      constant: () => 1,
      sparse: (w, index) => (index % 16 < 13 ? 0 : w),
    };
    const values = gaussians(rows * cols, seed).map((w, index) => size * shapes[kind](w, index));
    const importance = hasImportance ? gaussians(cols, seed + 1).map((x, i) => (i % 50 < 5 ? 0 : x * x * x * x)) : null;
    return { cols, values, importance };
  });

describe.each(types)("%s", (type) => {
  it("has the same bits with SIMD and without, whatever the slabs; its sums are of what a reader rebuilds", () => {
    fc.assert(
      fc.property(matrices, (matrix) => {
        const { cols, values } = matrix;
        const found = quantize("simd", type, matrix);
        expect(quantize("scalar", type, matrix, 2)).toEqual(found);
        const { blocks, sums } = found as Required<typeof found>;
        const rebuilt = rebuild(type, blocks, values.length / cols, cols);
        expect(rebuilt.every(Number.isFinite)).toBe(true);
        const error = weightedError(type, matrix, blocks, new Float32Array(cols).fill(1));
        expect(Math.abs(error - sums.errorNorm2)).toBeLessThanOrEqual(1e-9 * sums.sourceNorm2);
        expect(sums.errorNorm2).toBeLessThanOrEqual(sums.sourceNorm2);
      }),
      { numRuns: 25 },
    );
  });

  it("errs less where importance lies than without it", () => {
    const cols = 512;
    const values = gaussians(8 * cols, 5).map((w) => 0.04 * w);
    const importance = gaussians(cols, 6).map((x) => x ** 4);
    const plain = quantize("simd", type, { cols, values, importance: null }) as { blocks: Uint8Array };
    const weighted = quantize("simd", type, { cols, values, importance }) as { blocks: Uint8Array };
    const matrix = { cols, values, importance };
    const errorOf = ({ blocks }: { blocks: Uint8Array }) => weightedError(type, matrix, blocks, importance);
    expect(errorOf(weighted)).toBeLessThan(errorOf(plain));
  });

  it.each(KERNEL_BUILDS)("stops at the first weight that no float16 scale can hold, %s", (build) => {
    for (const value of [Number.NaN, Infinity, -65505, 1e30]) {
      const values = gaussians(1024, 3);
      values[700] = value;
      const found = quantize(build, type, { cols: 512, values, importance: null });
      expect(found.bad).toMatchObject({ row: 1, col: 188, value: Math.fround(value) });
    }
  });
});

it("refuses columns that blocks do not divide, and importances that are none", () => {
  const shape = { rows: 1, slabRows: 1, dtype: "F32", sourceScale: "none", type: "Q4_K" } as const;
  const create = (cols: number, importance: Float32Array | null) =>
    new GgmlQuantizer(kernelsOf("simd"), { ...shape, cols, importance });
  expect(() => create(128, null)).toThrow(/128 columns/);
  expect(() => create(256, new Float32Array(255))).toThrow(/255 importances/);
  expect(() => create(256, new Float32Array(256).fill(-1))).toThrow(/importance 0 is -1/);
});
