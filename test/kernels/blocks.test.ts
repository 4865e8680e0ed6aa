/** Stored chunks in blocks: the same weights as `rebuild` gives, by (q − z) · s, from either build. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";

import { ChunkRebuilder } from "../../dist/kernels/chunk-rebuilder.js";
import { packedBytes } from "../../dist/tensor/layout.js";
import type { StoredChunk } from "../../dist/tensor/stored.js";
import { KERNEL_BUILDS, kernelsOf } from "./harness.js";

interface Drawn {
  readonly stored: StoredChunk;
  readonly blockSize: number;
}

/** Any bytes are codes; scales and zero points are whatever is drawn. */
const drawn: fc.Arbitrary<Drawn> = fc
  .record({
    rows: fc.integer({ min: 1, max: 3 }),
    cols: fc.integer({ min: 1, max: 300 }),
    bits: fc.constantFrom(2, 3, 4, 8),
    groupSize: fc.constantFrom(1, 7, 16, 48, 64, 512),
    zeroPoints: fc.constantFrom("none", "whole", "fractional", "coded"),
    isByteStored: fc.boolean(),
    parts: fc.integer({ min: 1, max: 8 }),
    seed: fc.integer(),
  })
  .map(({ rows, cols, bits, groupSize, zeroPoints, isByteStored, parts, seed }) => {
    let state = seed >>> 0;
    const next = () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return state / 2 ** 32;
    };
    const groups = Math.ceil(cols / groupSize);
    const storageBits = isByteStored ? 8 : bits;
    const largest = 2 ** bits - 1;
    const bytes = (length: number, most: number) => Uint8Array.from({ length }, () => Math.floor(next() * (most + 1)));
    const floats = (draw: () => number) => Float32Array.from({ length: rows * groups }, draw);
    const stored: StoredChunk = {
      ...{ bits, storageBits, groupSize, rows, cols, superGroupSize: null, scaleBits: null, isR2q: false },
      zeroPointBits: zeroPoints === "coded" ? 6 : null,
      data: bytes(rows * packedBytes(cols, storageBits), isByteStored ? largest : 255),
      scales: floats(() => next() - 0.3),
      zeroPoints:
        zeroPoints === "whole"
          ? floats(() => Math.floor(next() * (largest + 1)))
          : zeroPoints === "fractional"
            ? floats(() => next() * largest)
            : null,
      scaleCodes: null,
      zeroPointCodes: zeroPoints === "coded" ? bytes(rows * packedBytes(groups, 6), 255) : null,
      residualScaleCodes: null,
      equalizationScales: null,
    };
    // A block divides the group, or is a row and more.
    const divisors = [1, 2, 3, 4, 6, 8].filter((divisor) => groupSize % divisor === 0);
    const divisor = divisors[parts % divisors.length] as number;
    return { stored, blockSize: parts === 8 && groupSize >= cols ? cols + 3 : groupSize / divisor };
  });

function decode({ stored, blockSize }: Drawn, build: (typeof KERNEL_BUILDS)[number]) {
  const rebuilder = new ChunkRebuilder(kernelsOf(build), stored, { slabRows: stored.rows, blockSize });
  const { codes, scales, zeroPoints, zeroPointBytes } = rebuilder.decodeBlocks(stored.rows);
  const parts = { codes, scales, zeroPoints, zeroPointBytes };
  return Object.fromEntries(Object.entries(parts).map(([name, part]) => [name, part.slice()])) as typeof parts;
}

describe("decodeBlocks", () => {
  it("holds the weights that rebuild gives, codes from the lowest bits of each block's first byte on", () => {
    fc.assert(
      fc.property(drawn, fc.constantFrom(...KERNEL_BUILDS), (each, build) => {
        const { stored, blockSize } = each;
        const { rows, cols, bits } = stored;
        const { codes, scales, zeroPoints, zeroPointBytes } = decode(each, build);
        const rebuilder = new ChunkRebuilder(kernelsOf(build), stored, { slabRows: rows, outDtype: "F32" });
        const expected = new Float32Array(rebuilder.rebuild(rows).slice().buffer);
        const blocks = Math.ceil(cols / blockSize);
        const blockBytes = packedBytes(blockSize, bits);
        expect(codes.length).toBe(rows * blocks * blockBytes);
        const code = (block: number, index: number) => {
          const bit = index * bits;
          const at = block * blockBytes + (bit >> 3);
          const window = (codes[at] as number) | ((codes[at + 1] ?? 0) << 8);
          return (window >> (bit & 7)) & (2 ** bits - 1);
        };
        for (let row = 0; row < rows; row++) {
          for (let col = 0; col < cols; col++) {
            const block = row * blocks + Math.floor(col / blockSize);
            const step = Math.fround(code(block, col % blockSize) - (zeroPoints[block] as number));
            expect(Math.fround(step * (scales[block] as number))).toBe(expected[row * cols + col]);
          }
          for (let index = cols; index < blocks * blockSize; index++) {
            expect(code(row * blocks + Math.floor(index / blockSize), index % blockSize)).toBe(0);
          }
        }
        if (zeroPoints.every(Number.isInteger)) expect([...zeroPointBytes]).toEqual([...zeroPoints]);
      }),
      { numRuns: 150 },
    );
  });

  it("gives the same from both builds", () => {
    fc.assert(
      fc.property(drawn, (each) => {
        expect(decode(each, "scalar")).toEqual(decode(each, "simd"));
      }),
      { numRuns: 100 },
    );
  });
});
