/** Errors weighted by the importance of columns: in both builds those of a plain sum over the rebuilt weights. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ChunkRebuilder } from "../../dist/kernels/chunk-rebuilder.js";
import type { KernelBuild } from "../../dist/kernels/load.js";
import type { StoredChunk } from "../../dist/tensor/stored.js";
import { tensors } from "./arbitraries.js";
import { bytesOf, floatSource, KERNEL_BUILDS, kernelsOf, quantize, rebuildFloats, storedOf } from "./harness.js";

function weigh(
  build: KernelBuild,
  stored: StoredChunk,
  source: Float32Array,
  importance: Float32Array,
  slabRows: number,
) {
  const options = { slabRows, sourceDtype: "F32", importance } as const;
  const rebuilder = new ChunkRebuilder(kernelsOf(build), stored, options);
  for (let row = 0; row < stored.rows; row += slabRows) {
    const rowCount = Math.min(slabRows, stored.rows - row);
    const slab = source.slice(row * stored.cols, (row + rowCount) * stored.cols);
    rebuilder.source(rowCount).set(bytesOf(slab));
    expect(rebuilder.compare(rowCount)).toBeNull();
  }
  return { weighted: rebuilder.importanceSums(), plain: rebuilder.sums() };
}

describe("importance", () => {
  it("weighs the errors of columns, the same in both builds and in slabs of any size", () => {
    const cases = tensors(["rtn", "r2q"]).chain((tensor) =>
      fc.record({
        tensor: fc.constant(tensor),
        slabRows: fc.integer({ min: 1, max: 4 }),
        importance: fc.float32Array({
          minLength: tensor.cols,
          maxLength: tensor.cols,
          min: 0,
          max: 100,
          noNaN: true,
        }),
      }),
    );
    fc.assert(
      fc.property(cases, ({ tensor: { spec, rows, cols, values }, importance, slabRows }) => {
        const [build, other] = KERNEL_BUILDS as [KernelBuild, KernelBuild];
        const stored = storedOf(quantize(build, floatSource(values, cols), spec), spec, rows, cols);
        const found = weigh(build, stored, values, importance, slabRows);
        expect(weigh(other, stored, values, importance, rows)).toEqual(found);
        const rebuilt = rebuildFloats(build, stored);
        const expected = { sourceNorm2: 0, rebuiltNorm2: 0, errorNorm2: 0 };
        for (const [index, w] of values.entries()) {
          const [v, h] = [rebuilt[index] as number, importance[index % cols] as number];
          expected.sourceNorm2 += h * w * w;
          expected.rebuiltNorm2 += h * v * v;
          expected.errorNorm2 += h * (w - v) * (w - v);
        }
        for (const part of ["sourceNorm2", "rebuiltNorm2", "errorNorm2"] as const) {
          expect(Math.abs(found.weighted[part] - expected[part])).toBeLessThanOrEqual(1e-12 * expected[part]);
        }
      }),
      { numRuns: 100 },
    );
  });

  it("of one everywhere changes nothing", () => {
    fc.assert(
      fc.property(tensors(["rtn"]), ({ spec, rows, cols, values }) => {
        const stored = storedOf(quantize("scalar", floatSource(values, cols), spec), spec, rows, cols);
        for (const build of KERNEL_BUILDS) {
          const { weighted, plain } = weigh(build, stored, values, new Float32Array(cols).fill(1), rows);
          for (const part of ["sourceNorm2", "rebuiltNorm2", "errorNorm2"] as const) {
            expect(weighted[part]).toBe(plain[part]);
          }
        }
      }),
      { numRuns: 50 },
    );
  });
});
