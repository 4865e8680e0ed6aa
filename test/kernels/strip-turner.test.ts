import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { StripTurner } from "../../dist/kernels/strip-turner.js";
import { KERNEL_BUILDS, kernelsOf } from "./harness.js";

describe.each(KERNEL_BUILDS)("turning strips, %s", (build) => {
  it("gives rows of what was stored by columns, whatever the size of elements", () => {
    const size = fc.integer({ min: 1, max: 40 });
    const elementBytes = fc.constantFrom(1, 2, 4, 8);
    fc.assert(
      fc.property(size, size, size, elementBytes, fc.integer(), (rows, cols, slabRows, width, seed) => {
        const stored = Uint8Array.from(
          { length: rows * cols * width },
          (_, i) => Math.imul(seed + i, 2654435761) >> 13,
        );
        const turner = new StripTurner(kernelsOf(build), { cols, slabRows, elementBytes: width });
        expect(turner.stripRows % slabRows).toBe(0);
        const found: number[] = [];
        for (let begin = 0; begin < rows; begin += turner.stripRows) {
          const stripRows = Math.min(turner.stripRows, rows - begin);
          const strip = turner.strip(stripRows);
          for (let col = 0; col < cols; col++) {
            const line = (col * rows + begin) * width;
            strip.set(stored.subarray(line, line + stripRows * width), col * stripRows * width);
          }
          for (let row = 0; row < stripRows; row += slabRows) {
            found.push(...turner.turn(stripRows, row, Math.min(slabRows, stripRows - row)));
          }
        }
        const expected = Array.from({ length: rows * cols * width }, (_, i) => {
          const [element, byte] = [Math.floor(i / width), i % width];
          return stored[((element % cols) * rows + Math.floor(element / cols)) * width + byte];
        });
        expect(found).toEqual(expected);
      }),
    );
  });
});
