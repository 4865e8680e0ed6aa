/** How genomes of a search are drawn, crossed, mutated and made to fit. Pure. */
import { ArrowQuantError } from "../errors.js";
import type { KnapsackOption } from "./knapsack.js";
import { findFrontier, type OptionFrontier } from "./option-frontier.js";
import type { RandomSource } from "./random.js";

/** Index of the option of each item. */
export type Genome = readonly number[];

interface GeneStep {
  readonly item: number;
  readonly option: number;
  readonly addedSize: number;
  /** Additive cost per size, of a step down what it loses, of a step up what it gains. */
  readonly slope: number;
}

export class GenePool {
  readonly #items: readonly (readonly KnapsackOption[])[];
  readonly #capacity: number;
  readonly #random: RandomSource;
  readonly #frontiers: readonly OptionFrontier[];
  /** [item][option]: the largest undominated option that is smaller, the smallest that is larger; null: none. */
  readonly #down: readonly (readonly (number | null)[])[];
  readonly #up: readonly (readonly (number | null)[])[];

  constructor(items: readonly (readonly KnapsackOption[])[], capacity: number, random: RandomSource) {
    this.#items = items;
    this.#capacity = capacity;
    this.#random = random;
    this.#frontiers = items.map(findFrontier);
    this.#down = items.map((options, item) => {
      const { sizes, indices } = this.#frontiers[item] as OptionFrontier;
      return options.map(({ size }) => indices[sizes.findLastIndex((other) => other < size)] ?? null);
    });
    this.#up = items.map((options, item) => {
      const { sizes, indices } = this.#frontiers[item] as OptionFrontier;
      return options.map(({ size }) => indices[sizes.findIndex((other) => other > size)] ?? null);
    });
  }

  sizeOf(genome: Genome): number {
    return genome.reduce((sum, option, item) => sum + this.#option(item, option).size, 0);
  }

  /** Every gene at random, made to fit. */
  draw(): Genome {
    return this.fit(this.#frontiers.map(({ indices }) => indices[this.#random.below(indices.length)] as number));
  }

  /** Each gene from one of the two, by the toss of a coin; not made to fit. */
  cross(one: Genome, other: Genome): Genome {
    return one.map((option, item) => (this.#random.below(2) === 0 ? option : (other[item] as number)));
  }

  /** Moves genes to their next larger or smaller option, each with chance `rate`, and makes the genome fit. */
  mutate(genome: Genome, rate: number): Genome {
    const mutated = genome.map((option, item) => {
      if (this.#random.fraction() >= rate) return option;
      const next = [this.#down, this.#up].flatMap((options) => options[item]?.[option] ?? []);
      return next.length === 0 ? option : (next[this.#random.below(next.length)] as number);
    });
    return this.fit(mutated);
  }

  /**
   * Steps down until the genome fits, at the least additive cost per size, and up with what room is left, for the most.
   * That undoes some of a mutation, and still finds better plans than sparing what has just mutated, as than leaving
   * room unused or moving genes to any option: measured on sums whose terms weigh and interact otherwise than the
   * additive model has it.
   * @throws `E_TARGET` where the smallest options do not fit
   */
  fit(genome: Genome): Genome {
    const fitted = [...genome];
    while (this.sizeOf(fitted) > this.#capacity) {
      const steps = this.#findSteps(fitted, this.#down);
      if (steps.length === 0) throw this.#refuse();
      const { item, option } = steps.reduce((least, step) => (step.slope < least.slope ? step : least));
      fitted[item] = option;
    }
    for (;;) {
      const room = this.#capacity - this.sizeOf(fitted);
      const step = this.#findSteps(fitted, this.#up)
        .filter(({ addedSize, slope }) => addedSize <= room && slope > 0)
        .sort((a, b) => b.slope - a.slope)
        // Sums that end at the capacity may round to either side of it.
        .find(({ item, option }) => this.sizeOf(fitted.with(item, option)) <= this.#capacity);
      if (step === undefined) return fitted;
      fitted[step.item] = step.option;
    }
  }

  #findSteps(genome: Genome, next: readonly (readonly (number | null)[])[]): GeneStep[] {
    return genome.flatMap((from, item) => {
      const to = next[item]?.[from] ?? null;
      if (to === null) return [];
      const [before, after] = [this.#option(item, from), this.#option(item, to)];
      const addedSize = after.size - before.size;
      return [{ item, option: to, addedSize, slope: (before.cost - after.cost) / addedSize }];
    });
  }

  #option(item: number, option: number): KnapsackOption {
    return this.#items[item]?.[option] as KnapsackOption;
  }

  #refuse(): ArrowQuantError {
    const smallest = this.#frontiers.reduce((sum, { sizes }) => sum + (sizes[0] as number), 0);
    return new ArrowQuantError(
      "E_TARGET",
      `the smallest options come to ${smallest}, the capacity is ${this.#capacity}`,
      {
        hint: "raise the target or allow smaller options",
        details: { smallest, capacity: this.#capacity },
      },
    );
  }
}
