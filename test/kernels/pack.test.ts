import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { KERNEL_BUILDS, kernelsOf } from "./harness.js";
import { packBits } from "./reference.js";

describe.each(KERNEL_BUILDS)("packing, %s", (build) => {
  const { exports, arena } = kernelsOf(build);

  it.each([1, 2, 3, 4, 5, 6, 7, 8])("packs %i bits as FORMAT.md says and unpacks what it packed", (bits) => {
    fc.assert(
      fc.property(
        fc.uint8Array({ min: 0, max: 2 ** bits - 1, minLength: 1, maxLength: 400, size: "max" }),
        fc.integer({ min: 0, max: 15 }),
        (codes, offset) => {
          const expected = packBits(codes, bits);
          const at = arena.allocateAll({ codes: 500, packed: 500, back: 500 });
          arena.bytes(at.packed, 500).fill(0xee);
          arena.bytes(at.back, 500).fill(0xee);
          arena.bytes(at.codes + offset, codes.length).set(codes);
          exports.packRow(at.codes + offset, at.packed + offset, codes.length, bits);
          expect(arena.bytes(at.packed + offset, expected.length)).toEqual(expected);
          expect(arena.bytes(at.packed + offset + expected.length, 1)[0]).toBe(0xee);
          exports.unpackRow(at.packed + offset, at.back, codes.length, bits);
          expect(arena.bytes(at.back, codes.length)).toEqual(codes);
          expect(arena.bytes(at.back + codes.length, 1)[0]).toBe(0xee);
        },
      ),
    );
  });
});
