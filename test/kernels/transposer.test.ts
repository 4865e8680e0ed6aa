import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Transposer } from "../../dist/kernels/transposer.js";
import { bytesOf, KERNEL_BUILDS, kernelsOf } from "./harness.js";

describe.each(KERNEL_BUILDS)("transposing, %s", (build) => {
  it("puts every element where the axes swapped have it, whatever the slabs and bands", () => {
    const size = fc.integer({ min: 1, max: 70 });
    fc.assert(
      fc.property(size, size, size, size, fc.integer(), (rows, cols, slabRows, bandCols, seed) => {
        // Any 32 bits: NaN and denormals are to pass as they are.
        const words = Uint32Array.from({ length: rows * cols }, (_, i) => Math.imul(seed + i, 2654435761));
        const transposer = new Transposer(kernelsOf(build), { rows, cols, slabRows, bandCols });
        const found: number[] = [];
        for (let firstCol = 0; firstCol < cols; firstCol += bandCols) {
          const colCount = Math.min(bandCols, cols - firstCol);
          for (let row = 0; row < rows; row += slabRows) {
            const slab = bytesOf(words.subarray(row * cols, Math.min(rows, row + slabRows) * cols));
            const rowCount = slab.byteLength / (4 * cols);
            transposer.slab(rowCount).set(slab);
            transposer.add(row, rowCount, firstCol, colCount);
          }
          found.push(...new Uint32Array(transposer.band(colCount).slice().buffer));
        }
        const expected = Array.from({ length: rows * cols }, (_, i) => words[(i % rows) * cols + Math.floor(i / rows)]);
        expect(found).toEqual(expected);
      }),
    );
  });
});
