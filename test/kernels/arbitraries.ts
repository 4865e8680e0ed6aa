/** What fast-check draws: specs, shapes and rows of every kind that has its own path in the kernels. */
import fc from "fast-check";
import { METHODS } from "../../dist/quantize/methods/index.js";
import { BIT_WIDTHS, type MethodName, type QuantSpec } from "../../dist/tensor/layout.js";

/** Past the vector widths on both sides, group starts that no vector width divides, ragged ends. */
export const groupSizes = fc.constantFrom(16, 17, 18, 23, 32, 40, 64, 100, 128, 333, 1024);
const codeBits = fc.option(fc.integer({ min: 2, max: 8 }), { nil: null });

export function specs(methods: readonly MethodName[]): fc.Arbitrary<QuantSpec> {
  return fc
    .record({
      bits: fc.constantFrom(...BIT_WIDTHS),
      groupSize: groupSizes,
      symmetric: fc.boolean(),
      method: fc.constantFrom(...methods),
      scaleBits: codeBits,
      zeroPointBits: codeBits,
      groupsPerSuper: fc.integer({ min: 1, max: 9 }),
      weighting: fc.constantFrom("none" as const, "magnitude" as const),
      preserveGain: fc.boolean(),
    })
    .map(({ groupsPerSuper, ...rest }) => {
      const r2q = rest.method === "r2q" ? { bits: 2 as const, scaleBits: rest.scaleBits ?? 6 } : {};
      const spec = { ...rest, ...r2q };
      return { ...spec, superGroupSize: spec.scaleBits === null ? null : groupsPerSuper * spec.groupSize };
    })
    .filter((spec) => {
      try {
        METHODS[spec.method]?.check(spec);
        return true;
      } catch {
        return false;
      }
    });
}

/** Elements of a tensor, each kind of value among them; `count` of them. */
export function weights(count: number): fc.Arbitrary<Float32Array> {
  const size = { minLength: count, maxLength: count };
  const between = (min: number, max: number) =>
    fc.float32Array({ ...size, min, max, noNaN: true, noDefaultInfinity: true });
  return fc.oneof(
    { weight: 4, arbitrary: between(-1, 1) },
    { weight: 2, arbitrary: fc.int8Array(size).map((k) => Float32Array.from(k, (each) => each / 64)) },
    { weight: 1, arbitrary: fc.boolean().map((negative) => new Float32Array(count).fill(negative ? -0 : 0)) },
    {
      weight: 1,
      arbitrary: fc.integer({ min: -99, max: 99 }).map((k) => new Float32Array(count).fill(k / 30)),
    },
    { weight: 1, arbitrary: between(0, 2) },
    { weight: 1, arbitrary: between(-2, 0) },
    { weight: 1, arbitrary: between(-(2 ** -120), 2 ** -120) },
    { weight: 1, arbitrary: between(-(2 ** -140), 2 ** -140) },
    { weight: 1, arbitrary: between(-(2 ** 100), 2 ** 100) },
    {
      weight: 1,
      arbitrary: between(-1, 1).map((row) => row.map((w, i) => (i % 37 === 5 ? w * 2 ** 90 : i % 5 === 0 ? 0 : w))),
    },
  );
}

export const shapes = fc.oneof(
  fc.record({ rows: fc.integer({ min: 1, max: 4 }), cols: fc.integer({ min: 1, max: 300 }) }),
  fc.record({ rows: fc.integer({ min: 1, max: 2 }), cols: fc.integer({ min: 1, max: 2200 }) }),
);

export function tensors(methods: readonly MethodName[]) {
  return fc
    .record({ spec: specs(methods), shape: shapes })
    .chain(({ spec, shape }) => weights(shape.rows * shape.cols).map((values) => ({ spec, ...shape, values })));
}
