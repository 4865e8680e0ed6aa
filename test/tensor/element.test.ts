import { describe, expect, it } from "vitest";
import { readElement } from "../../dist/tensor/element.js";
import { decodeFloat } from "../kernels/reference.ts";

describe("single elements", () => {
  it.each([
    ["F16", 5, 10],
    ["BF16", 8, 7],
    ["F8_E5M2", 5, 2],
    ["F8_E4M3", 4, 3],
  ] as const)("of %s have the value of their code, all of them", (dtype, exponentBits, mantissaBits) => {
    const bytes = (1 + exponentBits + mantissaBits) / 8;
    const count = 256 ** bytes;
    const view = new DataView(new ArrayBuffer(count * bytes));
    for (let code = 0; code < count; code++) {
      if (bytes === 1) view.setUint8(code, code);
      else view.setUint16(2 * code, code, true);
    }
    const codes = Array.from({ length: count }, (_, code) => code);
    const found = codes.map((code) => readElement(view, code, dtype));
    expect(found).toEqual(codes.map((code) => decodeFloat(code, exponentBits, mantissaBits, dtype === "F8_E4M3")));
  });

  it("of F32 and F64 are little-endian", () => {
    const values = [1.5, -Math.PI, 2 ** -149];
    const view = new DataView(new ArrayBuffer(24));
    for (const [i, value] of values.entries()) view.setFloat32(4 * i, value, true);
    expect(values.map((_, i) => readElement(view, i, "F32"))).toEqual(values.map(Math.fround));
    for (const [i, value] of values.entries()) view.setFloat64(8 * i, value, true);
    expect(values.map((_, i) => readElement(view, i, "F64"))).toEqual(values);
  });
});
