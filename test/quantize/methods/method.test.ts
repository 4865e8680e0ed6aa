import { describe, expect, it } from "vitest";
import { ArrowQuantError } from "../../../dist/errors.js";
import { findMethod, METHODS } from "../../../dist/quantize/methods/index.js";
import { checkSpec } from "../../../dist/quantize/methods/method.js";
import type { MethodName, QuantSpec } from "../../../dist/tensor/layout.js";
import { specOf } from "../../kernels/harness.js";

function failure(work: () => unknown): { code: string; message: string } {
  try {
    work();
  } catch (error) {
    if (error instanceof ArrowQuantError) return error;
    throw error;
  }
  return { code: "none", message: "" };
}

describe("checkSpec", () => {
  it.each<Partial<QuantSpec>>([
    {},
    { bits: 3 },
    { bits: 5 },
    { bits: 6, zeroPointBits: 6 },
    { groupSize: 16 },
    { groupSize: 1024 },
    { groupSize: 100, scaleBits: 2, superGroupSize: 300 },
    { scaleBits: 8, zeroPointBits: 8, superGroupSize: 32 },
    { zeroPointBits: 4 },
  ])("takes %o", (spec) => {
    expect(() => checkSpec(specOf(spec))).not.toThrow();
  });

  it.each<[Partial<QuantSpec>, string, RegExp]>([
    [{ bits: 7 as 8 }, "E_CONFIG", /bit width 7 /],
    [{ groupSize: 15 }, "E_CONFIG", /group size 15/],
    [{ groupSize: 1025 }, "E_CONFIG", /group size 1025/],
    [{ groupSize: 32.5 }, "E_CONFIG", /group size 32\.5/],
    [{ groupSize: NaN }, "E_CONFIG", /group size NaN/],
    [{ scaleBits: 1 }, "E_CONFIG", /scale bits 1 /],
    [{ scaleBits: 9 }, "E_CONFIG", /scale bits 9 /],
    [{ zeroPointBits: 0 }, "E_CONFIG", /zero-point bits 0 /],
    [{ zeroPointBits: 4.5 }, "E_CONFIG", /zero-point bits 4\.5 /],
    [{ scaleBits: 6, superGroupSize: 1000 }, "E_CONFLICT", /super-group size 1000 .* group size 32/],
    [{ scaleBits: 6, superGroupSize: 0 }, "E_CONFLICT", /super-group size 0 /],
    [{ scaleBits: 6, superGroupSize: null }, "E_CONFLICT", /scale bits 6 .*super-group size none/],
    [{ scaleBits: null, superGroupSize: 64 }, "E_CONFLICT", /scale bits none .*super-group size 64/],
  ])("refuses %o with %s", (spec, code, message) => {
    const error = failure(() => checkSpec(specOf(spec)));
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
  });
});

describe("the table of methods", () => {
  it("has a method for every name, under that name", () => {
    for (const [name, method] of Object.entries(METHODS)) {
      expect(method.name).toBe(name);
      expect(findMethod(name as MethodName)).toBe(method);
    }
  });

  it("refuses r2q at other widths than two bits, and without scale codes", () => {
    const check = (spec: Partial<QuantSpec>) =>
      failure(() => findMethod("r2q").check(specOf({ method: "r2q", ...spec })));
    expect(check({ bits: 2, scaleBits: 6 }).code).toBe("none");
    expect(check({ bits: 4, scaleBits: 6 })).toMatchObject({
      code: "E_CONFLICT",
      message: expect.stringMatching(/r2q.*4/),
    });
    expect(check({ bits: 2 })).toMatchObject({
      code: "E_CONFLICT",
      message: expect.stringMatching(/r2q.*scale bits/),
    });
  });
});
