import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { ArrowQuantError } from "../../dist/errors.js";
import {
  type AllocationLayer,
  allocateBits,
  applyGenome,
  type Budget,
  type Candidate,
  findReachableRange,
  uniformGenomes,
} from "../../dist/plan/allocation.js";
import { BIT_WIDTHS, type BitWidth, type QuantSpec } from "../../dist/tensor/layout.js";

function specOf(bits: BitWidth, groupSize: number): QuantSpec {
  return {
    bits,
    groupSize,
    symmetric: false,
    method: bits === 2 ? "r2q" : "hqq",
    scaleBits: 6,
    zeroPointBits: 6,
    superGroupSize: 256,
    weighting: "none",
    preserveGain: false,
  };
}

const GROUP_SIZES = [32, 64, 128];

function layerOf(
  name: string,
  sensitivity: number,
  options: { rows?: number; tie?: string | null; bits?: readonly BitWidth[]; groups?: readonly number[] } = {},
): AllocationLayer {
  const parameterCount = (options.rows ?? 64) * 256;
  const candidates = (options.bits ?? BIT_WIDTHS).flatMap((bits) =>
    (options.groups ?? GROUP_SIZES).map((groupSize) => ({
      spec: specOf(bits, groupSize),
      bytes: (parameterCount * bits) / 8 + (parameterCount / groupSize) * 1.5,
      error: sensitivity * 4 ** -bits * (1 + Math.log2(groupSize) / 10),
    })),
  );
  return { name, parameterCount, candidates, tie: options.tie ?? null };
}

const someLayers = fc
  .array(
    fc.record({
      sensitivity: fc.double({ min: 1e-3, max: 10, noNaN: true }),
      rows: fc.integer({ min: 1, max: 8 }),
      tie: fc.constantFrom(null, "a", "b"),
      bits: fc.subarray<BitWidth>([2, 3, 4, 8], { minLength: 1 }).map((bits) => [...new Set<BitWidth>([4, ...bits])]),
      groups: fc.constantFrom([64], [32, 64]),
    }),
    { minLength: 1, maxLength: 4 },
  )
  .map((layers) => layers.map(({ sensitivity, ...options }, index) => layerOf(`layer${index}`, sensitivity, options)));

/** All ways to give layers candidates, tied ones the same bits and group size. */
function allAllocations(layers: readonly AllocationLayer[]): (readonly Candidate[])[] {
  let all: Candidate[][] = [[]];
  for (const layer of layers) {
    all = all.flatMap((before) =>
      layer.candidates.flatMap((candidate) => {
        const first = layer.tie === null ? -1 : layers.findIndex(({ tie }) => tie === layer.tie);
        const other = (before[first] ?? candidate).spec;
        const isAlike = other.bits === candidate.spec.bits && other.groupSize === candidate.spec.groupSize;
        return isAlike ? [[...before, candidate]] : [];
      }),
    );
  }
  return all;
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

/** What a budget limits, so that less keeps within it, and what it makes least. */
function measure(layers: readonly AllocationLayer[], chosen: readonly Candidate[], kind: Budget["kind"]) {
  const parameters = sum(layers.map(({ parameterCount }) => parameterCount));
  const bytes = sum(chosen.map((candidate) => candidate.bytes));
  const error = sum(chosen.map((candidate) => candidate.error));
  const group = sum(chosen.map(({ spec }, at) => spec.groupSize * (layers[at] as AllocationLayer).parameterCount));
  return {
    bpw: { value: (8 * bytes) / parameters, sign: 1, cost: error },
    bytes: { value: bytes, sign: 1, cost: error },
    error: { value: error, sign: 1, cost: bytes },
    "mean-group": { value: group / parameters, sign: -1, cost: error },
  }[kind];
}

function refusal(work: () => unknown): ArrowQuantError {
  try {
    work();
  } catch (thrown) {
    return thrown as ArrowQuantError;
  }
  return expect.unreachable();
}

describe("allocateBits", () => {
  const kinds = fc.constantFrom<Budget["kind"]>("bpw", "bytes", "error", "mean-group");

  it("is the best of all allocations within the budget, ties kept, or refuses it with the range", () => {
    fc.assert(
      fc.property(someLayers, kinds, fc.double({ min: -0.1, max: 1.1, noNaN: true }), (layers, kind, part) => {
        const all = allAllocations(layers).map((chosen) => measure(layers, chosen, kind));
        const values = all.map(({ value }) => value);
        const [least, most] = [Math.min(...values), Math.max(...values)];
        // In the middle between what is reached, so that rounding decides nothing.
        const sorted = [...new Set(values)].sort((a, b) => a - b);
        const wanted = least + part * (most - least);
        const below = sorted.findLast((value) => value <= wanted) ?? least - 1;
        const above = sorted.find((value) => value > wanted) ?? most + 1;
        const value = below + (above - below) / 2;
        fc.pre(value > 0 && above - below > 1e-9 * above);
        const within = all.filter((one) => one.sign * one.value <= one.sign * value);
        const range = findReachableRange(layers, kind);
        expect(range.least).toBeCloseTo(least, 9);
        expect(range.most).toBeCloseTo(most, 9);
        if (within.length === 0) {
          const { code, details } = refusal(() => allocateBits(layers, { kind, value }, 0));
          expect(code).toBe("E_TARGET");
          expect(details).toMatchObject({ kind, value, ...range });
          return;
        }
        const found = allocateBits(layers, { kind, value }, 0);
        const chosen = layers.map(({ name }) => found.specs.get(name) as Candidate);
        const measured = measure(layers, chosen, kind);
        expect(measured.sign * measured.value).toBeLessThanOrEqual(measured.sign * value);
        expect(measured.cost / Math.min(...within.map(({ cost }) => cost))).toBeCloseTo(1, 9);
        expect([found.bytes, found.error]).toEqual([
          expect.closeTo(sum(chosen.map(({ bytes }) => bytes)), 6),
          expect.closeTo(sum(chosen.map(({ error }) => error)), 9),
        ]);
        for (const layer of layers) {
          const others = layers.filter(({ tie }) => tie !== null && tie === layer.tie);
          const specs = others.map(({ name }) => found.specs.get(name)?.spec);
          expect(new Set(specs.map((spec) => `${spec?.bits}/${spec?.groupSize}`)).size).toBeLessThanOrEqual(1);
        }
        expect(applyGenome(found.items.sets, found.items.genome)).toEqual({
          specs: found.specs,
          bytes: found.bytes,
          error: found.error,
        });
        const used = sum(found.items.genome.map((option, set) => found.items.options[set]?.[option]?.size as number));
        expect(used).toBeLessThanOrEqual(found.items.capacity);
      }),
      { numRuns: 300 },
    );
  });

  it("reaches a target that it printed itself: bytes and error of an allocation, asked for again", () => {
    fc.assert(
      fc.property(someLayers, fc.double({ min: 0, max: 1, noNaN: true }), (layers, part) => {
        const { least, most } = findReachableRange(layers, "bytes");
        const first = allocateBits(layers, { kind: "bytes", value: least + part * (most - least) }, 0);
        const byBytes = allocateBits(layers, { kind: "bytes", value: first.bytes }, 0);
        const byError = allocateBits(layers, { kind: "error", value: first.error }, 0);
        expect(byBytes.error).toBe(first.error);
        expect(byError.error).toBeLessThanOrEqual(first.error);
        expect(byError.bytes).toBeLessThanOrEqual(first.bytes);
        for (const kind of ["bpw", "bytes", "error"] as const) {
          const value = findReachableRange(layers, kind).least;
          expect(() => allocateBits(layers, { kind, value }, 0)).not.toThrow();
        }
        const value = findReachableRange(layers, "mean-group").most;
        expect(() => allocateBits(layers, { kind: "mean-group", value }, 0)).not.toThrow();
      }),
    );
  });

  it("gives bits to the layers that need them, and all there are where the target is beyond", () => {
    const layers = [layerOf("tough", 1e-3, { groups: [64] }), layerOf("tender", 10, { groups: [64] })];
    const bitsOf = (value: number) => {
      const { specs } = allocateBits(layers, { kind: "bpw", value }, 0);
      return [specs.get("tough")?.spec.bits, specs.get("tender")?.spec.bits];
    };
    expect(bitsOf(5.2)).toEqual([2, 8]);
    expect(bitsOf(32)).toEqual([8, 8]);
  });

  it("names the layers that cannot be given anything", () => {
    const tied = [layerOf("q", 1, { tie: "t", bits: [2, 3] }), layerOf("k", 1, { tie: "t", bits: [4] })];
    const conflict = refusal(() => allocateBits(tied, { kind: "bpw", value: 4 }, 0));
    expect(conflict).toMatchObject({ code: "E_CONFLICT", details: { layers: ["q", "k"] } });
    const spoilt = layerOf("spoilt", Number.NaN);
    const lack = refusal(() => allocateBits([spoilt], { kind: "bpw", value: 4 }, 0));
    expect(lack).toMatchObject({ code: "E_CONFLICT", details: { layer: "spoilt" } });
  });

  it("prints a range that can be reached", () => {
    const layers = [layerOf("one", 1, { rows: 3, groups: [96] })];
    const { message, exitCode } = refusal(() => allocateBits(layers, { kind: "bpw", value: 1 }, 0));
    const [printed] = message.match(/[\d.]+(?= to )/) as RegExpMatchArray;
    expect(exitCode).toBe(2);
    expect(() => allocateBits(layers, { kind: "bpw", value: Number(printed) }, 0)).not.toThrow();
  });
});

describe("uniformGenomes", () => {
  it("are one of each spec, the nearest where a layer lacks it", () => {
    const layers = [
      layerOf("free", 1, { bits: [2, 3, 4], groups: [32, 64] }),
      layerOf("floor", 1, { bits: [4, 6], groups: [32, 64] }),
    ];
    const { items } = allocateBits(layers, { kind: "bpw", value: 8 }, 0);
    const specs = uniformGenomes(items.sets).map((genome) =>
      [...applyGenome(items.sets, genome).specs.values()].map(({ spec }) => `${spec.bits}/${spec.groupSize}`).join(" "),
    );
    expect(specs).toEqual([
      "2/32 4/32",
      "2/64 4/64",
      "3/32 4/32",
      "3/64 4/64",
      "4/32 4/32",
      "4/64 4/64",
      "4/32 6/32",
      "4/64 6/64",
    ]);
  });
});
