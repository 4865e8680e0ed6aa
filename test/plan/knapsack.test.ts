import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type KnapsackOption, solveKnapsack } from "../../dist/plan/knapsack.js";
import { seedRandom } from "../../dist/plan/random.js";

type Items = readonly (readonly KnapsackOption[])[];

/** Sizes and costs that tie, that are whole, fractional, zero, and of very different magnitudes. */
const numbers = [
  fc.integer({ min: 0, max: 4 }),
  fc.integer({ min: 0, max: 100_000_000 }),
  fc.integer({ min: 0, max: 9 }).map((tenths) => tenths / 10),
  fc.double({ min: 0, max: 1, noNaN: true }),
  fc.double({ min: -12, max: 12, noNaN: true }).map((exponent) => 10 ** exponent),
  fc.constant(0),
];

/** Items of up to 6^5 choices, and a capacity: at random, or what one of the choices comes to exactly. */
const instances = fc.tuple(fc.constantFrom(...numbers), fc.constantFrom(...numbers)).chain(([size, cost]) =>
  fc
    .array(fc.array(fc.record({ size, cost }), { minLength: 1, maxLength: 6 }), { minLength: 0, maxLength: 5 })
    .chain((items) =>
      fc.record({
        items: fc.constant(items),
        capacity: fc.oneof(
          fc
            .tuple(...items.map((options) => fc.constantFrom(...options)))
            .map((chosen) => chosen.reduce((sum, option) => sum + option.size, 0)),
          fc
            .double({ min: -0.1, max: 1.1, noNaN: true })
            .map((part) => part * items.reduce((sum, all) => sum + Math.max(...all.map((option) => option.size)), 0)),
        ),
      }),
    ),
);

function add(items: Items, choice: readonly number[], of: "size" | "cost"): number {
  return choice.reduce((sum, option, item) => sum + (items[item]?.[option]?.[of] as number), 0);
}

/** Least cost of all choices that fit; null: none does. */
function bruteForce(items: Items, capacity: number): number | null {
  let choices: { size: number; cost: number }[] = [{ size: 0, cost: 0 }];
  for (const options of items) {
    choices = choices.flatMap((so) =>
      options.map(({ size, cost }) => ({ size: so.size + size, cost: so.cost + cost })),
    );
  }
  const fitting = choices.filter(({ size }) => size <= capacity).map(({ cost }) => cost);
  return fitting.length === 0 ? null : Math.min(...fitting);
}

describe("solveKnapsack", () => {
  it("finds the least cost of all choices, or one within the gap, and a bound that holds", () => {
    fc.assert(
      fc.property(instances, fc.constantFrom(0, 0.001, 0.1), ({ items, capacity }, gap) => {
        const least = bruteForce(items, capacity);
        const solution = solveKnapsack(items, capacity, gap);
        if (least === null || solution === null) {
          expect(solution).toBe(least);
          return;
        }
        expect(solution.size).toBe(add(items, solution.choice, "size"));
        expect(solution.cost).toBe(add(items, solution.choice, "cost"));
        expect(solution.size).toBeLessThanOrEqual(capacity);
        expect(solution.gap).toBeLessThanOrEqual(gap);
        expect(solution.cost - solution.lowerBound).toBeLessThanOrEqual(gap * solution.cost * (1 + 1e-12));
        expect(solution.lowerBound).toBeLessThanOrEqual(least * (1 + 1e-13));
        if (gap === 0) expect(solution.cost).toBeLessThanOrEqual(least * (1 + 1e-13));
      }),
      { numRuns: 3000 },
    );
  });

  it("never chooses what is not finite", () => {
    const items = [
      [
        { size: 1, cost: Number.NaN },
        { size: 1, cost: Infinity },
        { size: Infinity, cost: 0 },
        { size: 2, cost: 7 },
      ],
    ];
    expect(solveKnapsack(items, 10)?.choice).toEqual([3]);
    expect(solveKnapsack(items, 1)).toBeNull();
    expect(solveKnapsack([[{ size: 0, cost: Number.NaN }]], 1)).toBeNull();
  });

  it("does not lose small costs beside an enormous one", () => {
    const items = [
      [
        { size: 1, cost: 1e300 },
        { size: 2, cost: 0 },
      ],
      ...Array.from({ length: 4 }, (_, index) => [
        { size: 1, cost: 2 ** -index },
        { size: 2, cost: 0 },
      ]),
    ];
    expect(solveKnapsack(items, 7, 0)).toMatchObject({ choice: [1, 1, 0, 0, 0], cost: 0.875, gap: 0 });
  });

  /** Layers of a transformer of 12 billion weights: six widths by five group sizes each. */
  function fluxSized(seed: number): KnapsackOption[][] {
    const random = seedRandom(seed);
    return Array.from({ length: 500 }, () => {
      const weightCount = 3072 * 1024 * (1 + random.below(15));
      const sensitivity = 10 ** (3 * random.fraction());
      return [2, 3, 4, 5, 6, 8].flatMap((bits) =>
        [16, 32, 64, 128, 256].map((groupSize) => ({
          size: (weightCount * bits) / 8 + Math.ceil((weightCount / groupSize) * 1.5),
          cost: sensitivity * 4 ** -bits * (1 + 0.15 * Math.log2(groupSize / 16)) * (0.9 + 0.2 * random.fraction()),
        })),
      );
    });
  }

  it("keeps its gap on 500 layers of 30 candidates, and its bound lies below the optimum", () => {
    for (const [seed, part] of [0.02, 0.2, 0.5, 0.9].entries()) {
      const items = fluxSized(seed);
      const least = items.reduce((sum, options) => sum + Math.min(...options.map(({ size }) => size)), 0);
      const most = items.reduce((sum, options) => sum + Math.max(...options.map(({ size }) => size)), 0);
      const capacity = Math.floor(least + part * (most - least));
      const optimum = solveKnapsack(items, capacity, 0);
      expect(optimum).toMatchObject({ gap: 0 });
      const solution = solveKnapsack(items, capacity);
      expect(solution?.gap).toBeLessThanOrEqual(0.001);
      expect(solution?.size).toBeLessThanOrEqual(capacity);
      expect(solution?.size).toBeGreaterThan(0.999 * capacity);
      expect(solution?.lowerBound).toBeLessThanOrEqual(optimum?.cost as number);
      expect(solution?.cost).toBeGreaterThanOrEqual(optimum?.cost as number);
    }
  });

  it("gives up the optimum, not the truth, where states are too many", () => {
    // Even weights of nine digits, a capacity that is odd: no choice fills it, and the bound cannot tell.
    const random = seedRandom(3);
    const items = Array.from({ length: 200 }, () => {
      const weight = 2 * (1 + random.below(50_000_000));
      return [
        { size: 0, cost: weight },
        { size: weight, cost: 0 },
      ];
    });
    const total = items.reduce((sum, [first]) => sum + (first?.cost as number), 0);
    const capacity = 2 * Math.floor(total / 6) + 1;
    const solution = solveKnapsack(items, capacity, 0);
    expect(solution?.size).toBeLessThan(capacity);
    expect(solution?.cost).toBe(total - (solution?.size as number));
    expect(solution?.lowerBound).toBeLessThanOrEqual(total - capacity + 1);
    expect(solution?.gap).toBeLessThan(1e-6);
  });
});
