import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type EvolutionInput, evolve, type GenerationReport, type Genome } from "../../dist/plan/evolution.js";
import { type KnapsackOption, solveKnapsack } from "../../dist/plan/knapsack.js";
import { seedRandom } from "../../dist/plan/random.js";

type Items = readonly (readonly KnapsackOption[])[];

const SETTINGS: EvolutionInput["settings"] = {
  population: 10,
  generations: 5,
  mutation: 0.2,
  crossover: 0.7,
  elite: 0.1,
  evaluations: 60,
  seed: 1,
};

const sizeOf = (items: Items, genome: Genome): number =>
  genome.reduce((sum, option, item) => sum + (items[item]?.[option]?.size as number), 0);
const costOf = (items: Items, genome: Genome): number =>
  genome.reduce((sum, option, item) => sum + (items[item]?.[option]?.cost as number), 0);
/** A fitness that has nothing to do with the additive model, the same for the same genome. */
const scramble = (genome: Genome): number =>
  seedRandom(genome.reduce((hash, option) => (hash * 31 + option + 1) % 2 ** 32, 7)).fraction();

const cases = fc
  .array(
    fc.array(fc.record({ size: fc.integer({ min: 0, max: 50 }), cost: fc.integer({ min: 0, max: 9 }) }), {
      minLength: 1,
      maxLength: 5,
    }),
    { minLength: 1, maxLength: 6 },
  )
  .chain((items) => {
    const least = items.reduce((sum, options) => sum + Math.min(...options.map(({ size }) => size)), 0);
    const genome = fc.tuple(...items.map((options) => fc.nat(options.length - 1)));
    return fc.record({
      items: fc.constant(items),
      capacity: fc.integer({ min: 0, max: 120 }).map((room) => least + room),
      seeds: fc.array(genome, { maxLength: 8 }),
      settings: fc.record({
        population: fc.integer({ min: 2, max: 12 }),
        generations: fc.integer({ min: 0, max: 6 }),
        mutation: fc.constantFrom(0, 0.2, 1),
        crossover: fc.constantFrom(0, 0.7, 1),
        elite: fc.constantFrom(0, 0.1, 1),
        evaluations: fc.integer({ min: 1, max: 60 }),
        seed: fc.maxSafeNat(),
      }),
    });
  });

describe("evolve", () => {
  it("keeps to capacity and limits, evaluates nothing twice, never falls behind its seeds, repeats itself", async () => {
    await fc.assert(
      fc.asyncProperty(cases, fc.boolean(), async ({ items, capacity, seeds, settings }, isAdditive) => {
        const fitnessOf = (genome: Genome): number => (isAdditive ? costOf(items, genome) : scramble(genome));
        const seen: string[] = [];
        const evaluate = async (genome: Genome): Promise<number> => {
          expect(sizeOf(items, genome)).toBeLessThanOrEqual(capacity);
          seen.push(genome.join());
          return fitnessOf(genome);
        };
        const reports: GenerationReport[] = [];
        const onGeneration = (report: GenerationReport): unknown => reports.push(report);
        const result = await evolve({ items, capacity, seeds, evaluate, settings, onGeneration });

        expect(new Set(seen).size).toBe(seen.length);
        expect(result.evaluations).toBe(seen.length);
        expect(seen.length).toBeLessThanOrEqual(settings.evaluations);
        expect(result.generations).toBeLessThanOrEqual(settings.generations);
        // It stops before its last generation only at the limit of evaluations, and there exactly.
        if (result.generations < settings.generations) expect(seen.length).toBe(settings.evaluations);
        expect(reports.map(({ best }) => best.fitness)).toEqual(result.history);
        expect(result.history).toHaveLength(result.generations + 1);

        const genomes = seen.map((key) => key.split(",").map(Number));
        const fitnesses = genomes.map(fitnessOf);
        expect(result.fitness).toBe(Math.min(...fitnesses));
        expect(fitnessOf(result.best)).toBe(result.fitness);
        expect(result.history).toEqual([...result.history].sort((a, b) => b - a));
        expect(result.history.at(-1)).toBe(result.fitness);
        // Seeds that fit are evaluated first, as they are.
        const distinct = [...new Set(seeds.map((seed) => seed.join()))].map((key) => key.split(",").map(Number));
        for (const seed of distinct.slice(0, settings.evaluations)) {
          if (sizeOf(items, seed) > capacity) continue;
          expect(seen).toContain(seed.join());
          expect(result.fitness).toBeLessThanOrEqual(fitnessOf(seed));
        }
        const isBeaten = (size: number, fitness: number): boolean =>
          genomes.some((other, at) => {
            const [otherSize, otherFitness] = [sizeOf(items, other), fitnesses[at] as number];
            return otherSize <= size && otherFitness <= fitness && (otherSize < size || otherFitness < fitness);
          });
        const front = genomes
          .map((genome, at) => ({ size: sizeOf(items, genome), fitness: fitnesses[at] as number }))
          .filter(({ size, fitness }) => !isBeaten(size, fitness));
        const points = [...new Map(front.map((point) => [point.size, point])).values()].sort((a, b) => a.size - b.size);
        expect(result.front.map(({ size, fitness }) => ({ size, fitness }))).toEqual(points);
        for (const { genome, fitness } of result.front) expect(fitnessOf(genome)).toBe(fitness);

        const again = await evolve({ items, capacity, seeds, evaluate: async (genome) => fitnessOf(genome), settings });
        expect(again).toEqual(result);
      }),
      { numRuns: 200 },
    );
  });

  /** Forty layers whose true errors weigh otherwise than the additive model has it. */
  function mislead(seed: number): {
    items: KnapsackOption[][];
    capacity: number;
    fitnessOf: (genome: Genome) => number;
  } {
    const random = seedRandom(seed);
    const items = Array.from({ length: 40 }, () => {
      const weightCount = 65_536 * (1 + random.below(6));
      const sensitivity = 10 ** (3 * random.fraction());
      return [2, 3, 4, 5, 6, 8].map((bits) => ({ size: (weightCount * bits) / 8, cost: sensitivity * 4 ** -bits }));
    });
    const weights = items.map(() => 10 ** (1.5 * random.fraction()));
    const uniform = items.reduce((sum, options) => sum + (options[1]?.size as number), 0);
    const fitnessOf = (genome: Genome): number =>
      genome.reduce(
        (sum, option, item) => sum + (items[item]?.[option]?.cost as number) * (weights[item] as number),
        0,
      );
    return { items, capacity: uniform, fitnessOf };
  }

  it("improves on the optimum of an additive model that is wrong", async () => {
    for (const seed of [1, 2, 3]) {
      const { items, capacity, fitnessOf } = mislead(seed);
      const additive = solveKnapsack(items, capacity, 0)?.choice as Genome;
      const uniform = [0, 1, 2].map((option) => items.map(() => option));
      const { fitness } = await evolve({
        items,
        capacity,
        seeds: [additive, ...uniform],
        evaluate: async (genome) => fitnessOf(genome),
        settings: { ...SETTINGS, population: 20, generations: 10, evaluations: 200, seed },
      });
      expect(fitness).toBeLessThan(0.97 * fitnessOf(additive));
    }
  });

  it("goes another way for another seed", async () => {
    const { items, capacity, fitnessOf } = mislead(1);
    const run = async (seed: number): Promise<string[]> => {
      const seen: string[] = [];
      const evaluate = async (genome: Genome): Promise<number> => {
        seen.push(genome.join());
        return fitnessOf(genome);
      };
      await evolve({ items, capacity, seeds: [], evaluate, settings: { ...SETTINGS, seed } });
      return seen;
    };
    const [one, other, far] = [await run(1), await run(2), await run(1 + 2 ** 32)];
    expect(one).not.toEqual(other);
    expect(one).not.toEqual(far);
  });

  it("ends with the signal's reason, after the evaluation under way", async () => {
    const { items, capacity, fitnessOf } = mislead(1);
    const controller = new AbortController();
    const reason = new Error("enough");
    let evaluations = 0;
    const evaluate = async (genome: Genome): Promise<number> => {
      if (++evaluations === 17) controller.abort(reason);
      return fitnessOf(genome);
    };
    const input = { items, capacity, seeds: [], evaluate, settings: SETTINGS, signal: controller.signal };
    await expect(evolve(input)).rejects.toBe(reason);
    expect(evaluations).toBe(17);
  });

  it("takes a fitness that is no number for the worst, and a capacity below everything for out of reach", async () => {
    const items = [0, 1].map(() => [1, 2, 3].map((size) => ({ size, cost: 3 - size })));
    const evaluate = async (genome: Genome): Promise<number> => (genome[0] === 0 ? 5 : Number.NaN);
    const settings = { ...SETTINGS, evaluations: 20 };
    const result = await evolve({
      items,
      capacity: 4,
      seeds: [
        [2, 0],
        [0, 2],
      ],
      evaluate,
      settings,
    });
    expect(result.fitness).toBe(5);
    expect(result.best[0]).toBe(0);
    const tooSmall = evolve({ items, capacity: 1, seeds: [[2, 0]], evaluate, settings });
    await expect(tooSmall).rejects.toMatchObject({ code: "E_TARGET", details: { smallest: 2, capacity: 1 } });
  });
});

describe("seedRandom", () => {
  it("is xoshiro128** below the bound, evenly", () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), fc.integer({ min: 1, max: 12 }), (seed, bound) => {
        const random = seedRandom(seed);
        const counts = Array<number>(bound).fill(0);
        for (let draw = 0; draw < 600 * bound; draw++) {
          const drawn = random.below(bound);
          counts[drawn] = (counts[drawn] as number) + 1;
        }
        // Seven standard deviations.
        for (const count of counts) expect(Math.abs(count - 600)).toBeLessThan(7 * Math.sqrt(600));
        const fraction = random.fraction();
        expect(fraction >= 0 && fraction < 1).toBe(true);
      }),
      { numRuns: 50 },
    );
  });
});
