import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { OutDtype } from "../../dist/kernels/converter.js";
import type { Dtype } from "../../dist/tensor/dtype.js";
import { bytesOf, convert, floatSource, KERNEL_BUILDS } from "./harness.js";
import { decodeFloat, encodeFloat } from "./reference.js";

const IEEE = { F16: [5, 10], BF16: [8, 7], F8_E5M2: [5, 2], F8_E4M3: [4, 3] } as const;

const f32Bits = (x: number) => new Uint32Array(Float32Array.of(x).buffer)[0] as number;

/** Bits of float32 with every NaN made the same one. */
function comparable(floats: Float32Array): Uint32Array {
  return new Uint32Array(Float32Array.from(floats, (x) => (Number.isNaN(x) ? NaN : x)).buffer);
}

describe.each(KERNEL_BUILDS)("conversion, %s", (build) => {
  it.each(Object.entries(IEEE))("reads all codes of %s exactly", (dtype, [exponentBits, mantissaBits]) => {
    const count = 2 ** (1 + exponentBits + mantissaBits);
    const codes = Uint16Array.from({ length: count }, (_, code) => code);
    const raw = count === 256 ? Uint8Array.from(codes) : codes;
    const expected = Float32Array.from(codes, (code) =>
      decodeFloat(code, exponentBits, mantissaBits, dtype === "F8_E4M3"),
    );
    const source = { rows: 1, cols: count, dtype: dtype as Dtype, bytes: bytesOf(raw) };
    const found = new Float32Array(convert(build, source, "F32").buffer);
    expect(comparable(found)).toEqual(comparable(expected));
  });

  it.each(["F16", "BF16", "F8_E5M2", "F8_E4M3"] as const)("reads ragged rows of %s anywhere among them", (dtype) => {
    const [exponentBits, mantissaBits] = IEEE[dtype];
    const ofBytes = exponentBits + mantissaBits === 15 ? fc.uint16Array : fc.uint8Array;
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 70 }), fc.gen(), (rows, cols, gen) => {
        const raw = gen(ofBytes, { minLength: rows * cols, maxLength: rows * cols });
        const source = { rows, cols, dtype, bytes: bytesOf(raw) };
        const expected = Float32Array.from(raw, (code) =>
          decodeFloat(code, exponentBits, mantissaBits, dtype === "F8_E4M3"),
        );
        const found = new Float32Array(convert(build, source, "F32").buffer);
        expect(comparable(found)).toEqual(comparable(expected));
      }),
    );
  });

  it("rounds F64 to the nearest float32", () => {
    fc.assert(
      fc.property(fc.float64Array({ minLength: 1, maxLength: 40 }), (doubles) => {
        const source = { rows: 1, cols: doubles.length, dtype: "F64" as const, bytes: bytesOf(doubles) };
        const found = new Float32Array(convert(build, source, "F32").buffer);
        expect(comparable(found)).toEqual(comparable(Float32Array.from(doubles)));
      }),
    );
  });

  it("multiplies by the source scale, one for all rows or one a row, in one float32 step", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 37 }),
        fc.boolean(),
        fc.gen(),
        (rows, cols, perRow, gen) => {
          const raw = gen(fc.uint8Array, { minLength: rows * cols, maxLength: rows * cols });
          const scales = gen(fc.float32Array, {
            minLength: perRow ? rows : 1,
            maxLength: perRow ? rows : 1,
            noNaN: true,
          });
          const expected = Float32Array.from(raw, (code, i) => {
            const scale = scales[scales.length > 1 ? Math.floor(i / cols) : 0] as number;
            return decodeFloat(code, 4, 3, true) * scale;
          });
          const source = { rows, cols, dtype: "F8_E4M3" as const, bytes: raw, scales };
          const found = new Float32Array(convert(build, source, "F32", 2).buffer);
          expect(comparable(found)).toEqual(comparable(expected));
        },
      ),
    );
  });

  const NARROW = ["F16", "BF16"] as const;

  it.each(NARROW)("gives every number of %s back as it was", (dtype) => {
    const [exponentBits, mantissaBits] = IEEE[dtype];
    const codes = Uint16Array.from({ length: 65536 }, (_, code) => code);
    const source = { rows: 1, cols: 65536, dtype, bytes: bytesOf(codes) };
    const found = new Uint16Array(convert(build, source, dtype).buffer);
    const isNaNCode = (code: number) => Number.isNaN(decodeFloat(code, exponentBits, mantissaBits, false));
    const wrong = codes.filter((code, i) => (isNaNCode(code) ? !isNaNCode(found[i] as number) : found[i] !== code));
    expect(wrong).toEqual(new Uint16Array(0));
  });

  it.each(NARROW)("rounds to %s half to even, at and beside every midpoint", (dtype) => {
    const [exponentBits, mantissaBits] = IEEE[dtype];
    const infinity = (2 ** exponentBits - 1) * 2 ** mantissaBits;
    const values: number[] = [];
    // Every 7th code, so that parities and exponents of all kinds are met.
    for (let code = 0; code < infinity; code += 7) {
      const low = decodeFloat(code, exponentBits, mantissaBits, false);
      const next = code + 1 < infinity ? decodeFloat(code + 1, exponentBits, mantissaBits, false) : NaN;
      const middle = f32Bits(code + 1 < infinity ? low / 2 + next / 2 : low);
      for (const bits of [middle - 1, middle, middle + 1]) {
        const [value] = new Float32Array(Uint32Array.of(Math.max(0, bits)).buffer) as unknown as [number];
        values.push(value, -value);
      }
    }
    const floats = Float32Array.from(values);
    const found = new Uint16Array(convert(build, floatSource(floats, floats.length), dtype).buffer);
    const expected = Uint16Array.from(floats, (x) => encodeFloat(x, exponentBits, mantissaBits));
    expect(found).toEqual(expected);
  });

  it.each(NARROW)("rounds any float32 to %s, with Inf beyond the largest number", (dtype) => {
    const [exponentBits, mantissaBits] = IEEE[dtype];
    const largest = { F16: 65504, BF16: 3.3895313892515355e38 }[dtype];
    const beyond = { F16: [65519.99, 65520, 1e6], BF16: [3.39e38, 3.4e38] }[dtype];
    const near = fc.constantFrom(largest, ...beyond, Infinity, 0, -0, 2 ** -24, 2 ** -25, 2 ** -26, 6.1e-5);
    fc.assert(
      fc.property(
        fc.array(
          fc.oneof(
            fc.float(),
            near,
            near.map((x) => -x),
          ),
          { minLength: 1, maxLength: 40 },
        ),
        (xs) => {
          const floats = Float32Array.from(xs);
          const found = new Uint16Array(convert(build, floatSource(floats, floats.length), dtype).buffer);
          floats.forEach((x, i) => {
            if (Number.isNaN(x)) expect(decodeFloat(found[i] as number, exponentBits, mantissaBits, false)).toBeNaN();
            else expect(found[i]).toBe(encodeFloat(x, exponentBits, mantissaBits));
          });
        },
      ),
      { numRuns: 400 },
    );
  });
});

it("both builds convert any bytes alike, NaN payloads included", () => {
  const dtypes: Dtype[] = ["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"];
  const outs: OutDtype[] = ["F32", "F16", "BF16"];
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 8 * 50, maxLength: 8 * 50 }),
      fc.integer({ min: 1, max: 50 }),
      fc.constantFrom(...dtypes),
      fc.constantFrom(...outs),
      (bytes, cols, dtype, out) => {
        const source = { rows: 1, cols, dtype, bytes };
        const scalar = convert("scalar", source, out);
        const simd = convert("simd", source, out);
        expect(simd).toEqual(scalar);
      },
    ),
  );
});
