import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArrowQuantError } from "../../dist/errors.js";
import { ChunkRebuilder } from "../../dist/kernels/chunk-rebuilder.js";
import type { StoredChunk } from "../../dist/tensor/stored.js";
import { bytesOf, KERNEL_BUILDS, kernelsOf, rebuild, rebuildFloats } from "./harness.js";
import { encodeFloat, packBits } from "./reference.js";

const f32 = Math.fround;

/** A stored chunk of random parts, as any writer may make it, and what FORMAT.md makes of it. */
const chunks = fc
  .record({
    rows: fc.integer({ min: 1, max: 3 }),
    channels: fc.integer({ min: 1, max: 40 }),
    colsPerChannel: fc.integer({ min: 1, max: 9 }),
    bits: fc.integer({ min: 1, max: 8 }),
    oneBytePerCode: fc.boolean(),
    groupSize: fc.constantFrom(1, 3, 16, 17, 64, 1024),
    groupsPerSuper: fc.integer({ min: 1, max: 5 }),
    scaleBits: fc.option(fc.integer({ min: 1, max: 8 }), { nil: null }),
    zeroPoints: fc.constantFrom("float", "coded", "symmetric"),
    zeroPointBits: fc.integer({ min: 1, max: 8 }),
    isR2q: fc.boolean(),
    equalized: fc.boolean(),
  })
  .chain((settings) => {
    const { rows, channels, colsPerChannel, groupsPerSuper, groupSize, isR2q, equalized } = settings;
    const cols = channels * colsPerChannel;
    const bits = isR2q ? 2 : settings.bits;
    const scaleBits = isR2q ? (settings.scaleBits ?? 6) : settings.scaleBits;
    const storageBits = settings.oneBytePerCode ? 8 : bits;
    const groups = Math.ceil(cols / groupSize);
    const supers = Math.ceil(groups / groupsPerSuper);
    const floats = (length: number, min = -4, max = 4) =>
      fc.float32Array({ minLength: length, maxLength: length, min, max, noNaN: true });
    const codes = (length: number, width: number) =>
      fc.uint8Array({ minLength: length, maxLength: length, max: 2 ** width - 1 });
    const packed = (all: Uint8Array, perRow: number, width: number) =>
      new Uint8Array(
        Buffer.concat(
          Array.from({ length: rows }, (_, row) => packBits(all.subarray(row * perRow, (row + 1) * perRow), width)),
        ),
      );
    return fc
      .record({
        q: codes(rows * cols, bits),
        scales: floats(rows * (scaleBits === null ? groups : supers)),
        zeroPoints: floats(rows * groups, -1, 2 ** bits),
        scaleCodes: codes(rows * groups, scaleBits ?? 1),
        residualScaleCodes: codes(rows * groups, scaleBits ?? 1),
        zeroPointCodes: codes(rows * groups, settings.zeroPointBits),
        equalization: floats(channels, 0.25, 4),
      })
      .map((parts) => {
        const coded = !isR2q && settings.zeroPoints === "coded";
        const stored: StoredChunk = {
          rows,
          cols,
          bits,
          storageBits,
          groupSize,
          superGroupSize: scaleBits === null ? null : groupSize * groupsPerSuper,
          scaleBits,
          zeroPointBits: coded ? settings.zeroPointBits : null,
          isR2q,
          data: packed(parts.q, cols, storageBits),
          scales: parts.scales,
          zeroPoints: !isR2q && settings.zeroPoints === "float" ? parts.zeroPoints : null,
          scaleCodes: scaleBits === null ? null : packed(parts.scaleCodes, groups, scaleBits),
          zeroPointCodes: coded ? packed(parts.zeroPointCodes, groups, settings.zeroPointBits) : null,
          residualScaleCodes: isR2q ? packed(parts.residualScaleCodes, groups, scaleBits as number) : null,
          equalizationScales: equalized ? parts.equalization : null,
        };
        const expected = Float32Array.from(parts.q, (q, i) => {
          const row = Math.floor(i / cols);
          const col = i % cols;
          const group = Math.floor(col / groupSize);
          const g = row * groups + group;
          const at = row * supers + Math.floor(group / groupsPerSuper);
          const decode = (all: Uint8Array) => f32((parts.scales[at] as number) * (all[g] as number));
          const scale = scaleBits === null ? (parts.scales[g] as number) : decode(parts.scaleCodes);
          let w: number;
          if (isR2q) {
            const residual = decode(parts.residualScaleCodes);
            w = f32(f32(scale * (2 * (q >> 1) - 1)) + f32(residual * (2 * (q & 1) - 1)));
          } else {
            const step = f32((2 ** bits - 1) / (2 ** settings.zeroPointBits - 1));
            const z = coded
              ? f32((parts.zeroPointCodes[g] as number) * step)
              : settings.zeroPoints === "float"
                ? (parts.zeroPoints[g] as number)
                : 2 ** (bits - 1);
            w = f32(f32(q - z) * scale);
          }
          return equalized ? w / (parts.equalization[Math.floor(col / colsPerChannel)] as number) : w;
        });
        return { stored, expected };
      });
  });

const bits = (floats: Float32Array) => new Uint32Array(floats.buffer, floats.byteOffset, floats.length);

describe.each(KERNEL_BUILDS)("rebuilding, %s", (build) => {
  it("follows FORMAT.md to the bit for any parts", () => {
    fc.assert(
      fc.property(chunks, ({ stored, expected }) => {
        expect(bits(rebuildFloats(build, stored))).toEqual(bits(expected));
      }),
      { numRuns: 400 },
    );
  });

  it("gives the same rows slab by slab, and the nearest F16 and BF16", () => {
    fc.assert(
      fc.property(chunks, fc.constantFrom("F16" as const, "BF16" as const), ({ stored, expected }, dtype) => {
        expect(rebuild(build, stored, "F32", 1)).toEqual(bytesOf(expected));
        const narrow = new Uint16Array(rebuild(build, stored, dtype, 2 <= stored.rows ? 2 : 1).buffer);
        const [exponentBits, mantissaBits] = dtype === "F16" ? [5, 10] : [8, 7];
        expect(narrow).toEqual(
          Uint16Array.from(expected, (w) => encodeFloat(w, exponentBits as number, mantissaBits as number)),
        );
      }),
      { numRuns: 60 },
    );
  });

  it("refuses parts that do not fit their settings, naming what is wrong", () => {
    const stored: StoredChunk = {
      rows: 2,
      cols: 40,
      bits: 4,
      storageBits: 4,
      groupSize: 16,
      superGroupSize: 32,
      scaleBits: 6,
      zeroPointBits: 6,
      isR2q: false,
      data: new Uint8Array(40),
      scales: new Float32Array(4),
      zeroPoints: null,
      scaleCodes: new Uint8Array(6),
      zeroPointCodes: new Uint8Array(6),
      residualScaleCodes: null,
      equalizationScales: null,
    };
    const open = (changes: Partial<StoredChunk>) => () =>
      new ChunkRebuilder(kernelsOf(build), { ...stored, ...changes }, { slabRows: 2, outDtype: "F32" });
    expect(open({})).not.toThrow();
    const cases: [Partial<StoredChunk>, RegExp][] = [
      [{ data: new Uint8Array(39) }, /data has 39 elements, 40/],
      [{ data: new Uint8Array(41) }, /data has 41/],
      [{ scales: new Float32Array(6) }, /scales has 6 elements, 4/],
      [{ scaleCodes: null }, /scaleCodes has no elements, 6/],
      [{ scaleCodes: new Uint8Array(5) }, /scaleCodes has 5/],
      [{ zeroPointCodes: new Uint8Array(7) }, /zeroPointCodes has 7/],
      [{ zeroPoints: new Float32Array(6) }, /zeroPoints has 6 elements, none/],
      [{ residualScaleCodes: new Uint8Array(6) }, /residualScaleCodes has 6 elements, none/],
      [{ bits: 9 }, /bits is 9/],
      [{ bits: 0 }, /bits is 0/],
      [{ storageBits: 2 }, /4 bits are stored in 2/],
      [{ scaleBits: 12 }, /scaleBits is 12/],
      [{ zeroPointBits: 2.5 }, /zeroPointBits is 2.5/],
      [{ groupSize: 0 }, /group size is 0/],
      [{ groupSize: Number.NaN }, /group size is NaN/],
      [{ superGroupSize: 40 }, /super-group size 40 is not a multiple/],
      [{ superGroupSize: 0 }, /super-group size 0/],
      [{ superGroupSize: null }, /super-group size and scale bits/],
      [{ isR2q: true }, /r2q with 4 bits/],
      [{ equalizationScales: new Float32Array(7) }, /7 equalization scales for 40/],
      [{ equalizationScales: new Float32Array(0) }, /0 equalization scales/],
    ];
    for (const [changes, message] of cases) {
      expect(open(changes)).toThrow(message);
      expect(open(changes)).toThrow(ArrowQuantError);
    }
  });
});
