/** Streaming statistics beside plain loops over everything that was added. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  ActivationStats,
  type ActivationStatsResult,
  type ActivationStatsShape,
} from "../../dist/kernels/activation-stats.js";
import { type KernelBuild, loadKernels } from "../../dist/kernels/load.js";
import { type ActivationArray, Staging } from "../../dist/kernels/staging.js";
import type { Dtype } from "../../dist/tensor/dtype.js";
import { gaussians, KERNEL_BUILDS, kernelsOf } from "./harness.js";
import { encodeFloat } from "./reference.js";

interface Addition {
  x: ActivationArray;
  layout: "channels-last" | "channels-first";
  positions: number;
  bin: number;
  dtype?: Dtype;
}

/** null where an addition was refused. */
function collect(
  build: KernelBuild,
  shape: ActivationStatsShape,
  additions: readonly Addition[],
): ActivationStatsResult | null {
  const kernels = kernelsOf(build);
  kernels.arena.reset();
  const stats = new ActivationStats(kernels, new Staging(kernels), shape);
  for (const { x, bin, ...layout } of additions) if (!stats.add(x, layout, bin)) return null;
  return stats.result();
}

/** Elements of one channel of one time bin. */
function elementsOf(additions: readonly Addition[], channels: number, bin: number, channel: number): number[] {
  return additions
    .filter((addition) => addition.bin === bin)
    .flatMap(({ x, layout, positions }) =>
      [...x].filter((_, k) => (layout === "channels-last" ? k : Math.floor(k / positions)) % channels === channel),
    );
}

/** The definitions, over all elements at once. */
function plainStats(additions: readonly Addition[], { channels, bins, histogramBins = 2048 }: ActivationStatsShape) {
  const half = histogramBins / 2;
  const perChannel = { absmax: [], min: [], max: [], mean: [], meansq: [] } as Record<string, number[]>;
  const histogram = new Uint32Array(bins * histogramBins);
  const histogramExponent: number[] = [];
  const count: number[] = [];
  for (let bin = 0; bin < bins; bin++) {
    const elements = Array.from({ length: channels }, (_, c) => elementsOf(additions, channels, bin, c));
    for (const list of elements) {
      const mean = (f: (x: number) => number) => list.reduce((sum, x) => sum + f(x), 0) / Math.max(1, list.length);
      perChannel["min"]?.push(list.reduce((least, x) => Math.min(least, x), list[0] ?? 0) + 0);
      perChannel["max"]?.push(list.reduce((most, x) => Math.max(most, x), list[0] ?? 0) + 0);
      perChannel["absmax"]?.push(list.reduce((most, x) => Math.max(most, Math.abs(x)), 0));
      perChannel["mean"]?.push(mean((x) => x));
      perChannel["meansq"]?.push(mean((x) => x * x));
    }
    const all = elements.flat();
    const largest = all.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    let exponent = -100;
    while (2 ** exponent <= largest) exponent++;
    for (const x of all) {
      const index = bin * histogramBins + half + Math.floor((x * half) / 2 ** exponent);
      histogram[index] = (histogram[index] as number) + 1;
    }
    histogramExponent.push(exponent);
    count.push(all.length / channels);
  }
  return { ...perChannel, histogram, histogramExponent, count } as Record<string, ArrayLike<number>>;
}

function expectStats(found: ActivationStatsResult | null, plain: Record<string, ArrayLike<number>>): void {
  if (found === null) throw new Error("refused");
  for (const name of ["min", "max", "absmax", "count", "histogram", "histogramExponent"] as const) {
    expect([...found[name]]).toEqual([...(plain[name] as ArrayLike<number>)]);
  }
  for (const [k, meansq] of Array.from(plain["meansq"] as ArrayLike<number>).entries()) {
    // Squares below the least float32 are lost.
    expect(Math.abs((found.meansq[k] as number) - meansq)).toBeLessThanOrEqual(1e-5 * meansq + 2 ** -125);
    const mean = (plain["mean"] as ArrayLike<number>)[k] as number;
    expect(Math.abs((found.mean[k] as number) - mean)).toBeLessThanOrEqual(1e-5 * Math.sqrt(meansq) + 2 ** -125);
  }
}

const additions = fc
  .record({
    channels: fc.integer({ min: 1, max: 21 }),
    bins: fc.integer({ min: 1, max: 3 }),
    parts: fc.array(
      fc.record({
        layout: fc.constantFrom("channels-last" as const, "channels-first" as const),
        positions: fc.integer({ min: 1, max: 140 }),
        images: fc.integer({ min: 1, max: 3 }),
        seed: fc.integer({ min: 1, max: 1000 }),
        // Zeros, denormals, exact powers of two and everything up to what is almost infinite.
        exponent: fc.constantFrom(null, -140, -99, -3, 0, 0, 1, 5, 56),
        isCoarse: fc.boolean(),
      }),
      { maxLength: 5 },
    ),
  })
  .map(({ channels, bins, parts }) => ({
    shape: { channels, bins },
    additions: parts.map(({ layout, positions, images, seed, exponent, isCoarse }): Addition => {
      const count = channels * positions * (layout === "channels-last" ? 1 : images);
      const values = gaussians(count, seed, exponent === null ? 0 : 1);
      const rounded = isCoarse ? values.map(Math.round) : values;
      return { x: rounded.map((x) => x * 2 ** (exponent ?? 0)), layout, positions, bin: seed % bins };
    }),
  }));

describe.each(KERNEL_BUILDS)("activation statistics, %s", (build) => {
  it("are those of plain loops, histograms exactly, whatever came first", () => {
    fc.assert(
      fc.property(additions, ({ shape, additions }) => {
        const found = collect(build, shape, additions);
        expectStats(found, plainStats(additions, shape));
        const reversed = collect(build, shape, [...additions].reverse());
        expect(reversed?.histogram).toEqual(found?.histogram);
        expect(reversed?.histogramExponent).toEqual(found?.histogramExponent);
      }),
      { numRuns: 60 },
    );
  });

  it("come in pieces where an array is longer than one, in runs and across them", () => {
    for (const [channels, positions, layout] of [
      [3, 70_000, "channels-first"],
      [70_000, 3, "channels-last"],
      [700, 250, "channels-last"],
      [250, 700, "channels-first"],
    ] as const) {
      const x = gaussians(channels * positions, channels);
      const additions = [{ x, layout, positions, bin: 0 }];
      const found = collect(build, { channels, bins: 1 }, additions);
      const sum = (values: ArrayLike<number>) => Array.from(values).reduce((total, each) => total + each, 0);
      expect(sum((found as ActivationStatsResult).histogram)).toBe(x.length);
      for (const channel of [0, 1, channels - 2, channels - 1]) {
        const elements = elementsOf(additions, channels, 0, channel);
        expect(found?.min[channel]).toBe(Math.min(...elements));
        expect(found?.max[channel]).toBe(Math.max(...elements));
        expect(found?.meansq[channel]).toBeCloseTo(sum(elements.map((each) => each * each)) / elements.length, 6);
      }
    }
  });

  it("takes every float type that a runtime hands out", () => {
    const exact = gaussians(64, 3).map((x) => Math.round(x * 1024) / 1024);
    const bits = (exponentBits: number, mantissaBits: number) =>
      Uint16Array.from(exact, (x) => encodeFloat(Math.fround(Math.round(x * 64) / 64), exponentBits, mantissaBits));
    const shape = { channels: 4, bins: 1 };
    const of = (x: ActivationArray, dtype: Dtype) =>
      collect(build, shape, [{ x, dtype, layout: "channels-last", positions: 16, bin: 0 }]);
    expect(of(Float64Array.from(exact), "F64")).toEqual(of(exact, "F32"));
    const coarse = of(
      exact.map((x) => Math.round(x * 64) / 64),
      "F32",
    );
    expect(of(bits(5, 10), "F16")).toEqual(coarse);
    expect(of(bits(8, 7), "BF16")).toEqual(coarse);
  });

  it("refuses what is not finite or too large, wherever it stands", () => {
    for (const bad of [Number.NaN, Infinity, -Infinity, 2 ** 60 * (1 + 2 ** -20)]) {
      for (const at of [0, 63, 66]) {
        const x = gaussians(67, 2);
        x[at] = bad;
        for (const layout of ["channels-last", "channels-first"] as const) {
          expect(collect(build, { channels: 67, bins: 1 }, [{ x, layout, positions: 1, bin: 0 }])).toBeNull();
        }
      }
    }
  });

  it("is told exactly what it takes", () => {
    const shape = { channels: 33, bins: 5 };
    const needed = Staging.bytesNeeded(100_000) + ActivationStats.bytesNeeded(shape);
    const kernels = loadKernels({ build, maxBytes: needed });
    new ActivationStats(kernels, new Staging(kernels, 100_000), shape);
    expect(kernels.arena.usedBytes).toBe(needed);
  });
});

it("gives the same bits with SIMD and without", () => {
  fc.assert(
    fc.property(additions, ({ shape, additions }) => {
      expect(collect("simd", shape, additions)).toEqual(collect("scalar", shape, additions));
    }),
    { numRuns: 60 },
  );
});
