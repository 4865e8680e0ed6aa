/** Noise: the published generator, the same bits everywhere, and normal. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { drawInteger, lnBelowOne, philox, seedBatchNoise, seedNoise } from "../../dist/sampler/noise.js";

function draw(source: { fill(into: Float32Array): void }, count: number): Float32Array {
  const values = new Float32Array(count);
  source.fill(values);
  return values;
}

const meanOf = (values: ArrayLike<number>, of = (x: number) => x) =>
  Array.from(values).reduce((sum, x) => sum + of(x), 0) / values.length;

// The known answers that Random123 publishes for Philox4x32-10.
it.each([
  { counter: [0, 0, 0, 0], key: [0, 0], words: [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8] },
  {
    counter: [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
    key: [0xffffffff, 0xffffffff],
    words: [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
  },
  {
    counter: [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
    key: [0xa4093822, 0x299f31d0],
    words: [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
  },
] as const)("Philox of counter $counter under key $key", ({ counter, key, words }) => {
  const found = Uint32Array.from(counter);
  philox(found, ...key);
  expect(Array.from(found)).toEqual(words);
});

it("the logarithm agrees with the engine's to a few last bits", () => {
  fc.assert(
    fc.property(fc.double({ min: 2 ** -106, max: 1, maxExcluded: true, noNaN: true }), (x) => {
      expect(Math.abs(lnBelowOne(x) - Math.log(x))).toBeLessThanOrEqual(1e-15 * Math.abs(Math.log(x)));
    }),
    { numRuns: 2000, examples: [[0.5], [Math.SQRT1_2], [1 - 2 ** -53], [2 ** -106]] },
  );
});

// Any other bits are a break of everything that was sampled from a seed.
it("has these bits", () => {
  const bitsOf = (values: Float32Array) => Array.from(new Uint32Array(values.buffer), (word) => word.toString(16));
  expect(bitsOf(draw(seedNoise(0), 6))).toEqual([
    "bf24b921",
    "3fc04d99",
    "3fa8a927",
    "3ef5a33e",
    "bf11f799",
    "3ffa2e8f",
  ]);
  expect(bitsOf(draw(seedNoise(2 ** 53 - 1, 2 ** 32 - 1), 6))).toEqual([
    "bf3e3702",
    "bf8d24f0",
    "3e0177b0",
    "bf63db28",
    "3eee4601",
    "bf023d29",
  ]);
  expect(Array.from({ length: 12 }, (_, i) => drawInteger(0, i, 10))).toEqual([5, 1, 2, 7, 9, 6, 4, 5, 7, 0, 9, 1]);
});

it("is one sequence, however it is cut", () => {
  fc.assert(
    fc.property(fc.nat(), fc.array(fc.nat({ max: 7 }), { maxLength: 12 }), (seed, lengths) => {
      const source = seedNoise(seed);
      const parts = lengths.flatMap((length) => Array.from(draw(source, length)));
      expect(parts).toEqual(Array.from(draw(seedNoise(seed), parts.length)));
    }),
    { numRuns: 50 },
  );
});

it("of a sample does not depend on its batch", () => {
  const whole = seedBatchNoise(7, [0, 1, 2, 3]);
  const part = seedBatchNoise(7, [2, 0]);
  for (let step = 0; step < 3; step++) {
    const four = draw(whole, 4 * 9);
    const two = draw(part, 2 * 9);
    expect(two).toEqual(Float32Array.from([...four.subarray(18, 27), ...four.subarray(0, 9)]));
  }
  expect(() => draw(whole, 6)).toThrow(expect.objectContaining({ code: "E_SHAPE" }));
});

describe("200,000 values", () => {
  const count = 200_000;
  const values = draw(seedNoise(20_241), count);
  // Five standard errors: a sound generator passes one million seeds, but for one or two.
  const within = (found: number, expected: number, variance: number) =>
    expect(Math.abs(found - expected)).toBeLessThan(5 * Math.sqrt(variance / count));

  it("have the moments of the normal distribution", () => {
    within(meanOf(values), 0, 1);
    within(
      meanOf(values, (x) => x ** 2),
      1,
      2,
    );
    within(
      meanOf(values, (x) => x ** 3),
      0,
      15,
    );
    within(
      meanOf(values, (x) => x ** 4),
      3,
      96,
    );
  });

  // Φ(z) by tables.
  it.each([
    [-3, 0.0013499],
    [-1.959964, 0.025],
    [-0.6744898, 0.25],
    [0, 0.5],
    [0.2533471, 0.6],
    [1.2815516, 0.9],
    [2.3263479, 0.99],
    [3.7190165, 0.9999],
  ])("are below %d with probability %d", (z, probability) => {
    const below = values.filter((x) => x < z).length / count;
    within(below, probability, probability * (1 - probability));
  });

  it.each([1, 2, 255])("do not know the value %d places before, nor its size", (lag) => {
    const pairs = values.subarray(lag);
    within(pairs.reduce((sum, x, i) => sum + x * (values[i] as number), 0) / pairs.length, 0, 1);
    const sizes = pairs.reduce((sum, x, i) => sum + (x ** 2 - 1) * ((values[i] as number) ** 2 - 1), 0);
    within(sizes / pairs.length, 0, 4);
  });

  it("do not know those of other streams and seeds", () => {
    for (const other of [seedNoise(20_241, 1), seedNoise(20_242), seedNoise(20_241 + 2 ** 32)]) {
      const others = draw(other, count);
      within(values.reduce((sum, x, i) => sum + x * (others[i] as number), 0) / count, 0, 1);
    }
  });
});

describe("integers", () => {
  it("are equally likely", () => {
    const counts = new Float64Array(10);
    const drawn = 20_000;
    for (let i = 0; i < drawn; i++) (counts[drawInteger(3, i, 10)] as number)++;
    const chiSquare = counts.reduce((sum, count) => sum + (count - drawn / 10) ** 2 / (drawn / 10), 0);
    // 9 degrees of freedom: above 33.7 in one of 10,000 seeds.
    expect(chiSquare).toBeLessThan(33.7);
  });

  it("stay below any bound", () => {
    fc.assert(
      fc.property(fc.nat(), fc.nat(), fc.integer({ min: 1, max: 2 ** 32 }), (seed, index, bound) => {
        const value = drawInteger(seed, index, bound);
        expect(Number.isInteger(value) && value >= 0 && value < bound).toBe(true);
      }),
      {
        examples: [
          [0, 0, 1],
          [0, 0, 2 ** 32],
          [1, 5, 2 ** 31 + 1],
        ],
      },
    );
  });
});

it.each([-1, 0.5, 2 ** 53, Number.NaN])("seed %d is refused", (seed) => {
  expect(() => seedNoise(seed)).toThrow(expect.objectContaining({ code: "E_INTEGER" }));
});
