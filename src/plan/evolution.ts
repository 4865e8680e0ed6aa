/**
 * Evolutionary search over allocations (Q-DiT, Chen et al., https://arxiv.org/abs/2406.17343): where errors of layers
 * do not simply add up, plans are judged by what the whole model makes of them. Pure but for the fitness it is given,
 * and deterministic for a seed: the same fitness gives the same search, so that one with a journal of what it has
 * measured goes on where it was stopped.
 *
 * A genome has a gene per item, the index of its option. A new one has its genes from one parent or, each by the toss
 * of a coin, from two; some move to the next larger or smaller option. What does not fit the capacity is repaired, and
 * room that is left is used, by the steps that the additive model has for best.
 */
import { GenePool, type Genome } from "./gene-pool.js";
import type { KnapsackOption } from "./knapsack.js";
import { type RandomSource, seedRandom } from "./random.js";

export type { Genome };

export interface EvolutionSettings {
  /** Genomes alive at a time, at least 2. */
  readonly population: number;
  /** After the first. */
  readonly generations: number;
  /** Chance of each gene of a new genome to mutate. */
  readonly mutation: number;
  /** Chance of a new genome to have two parents. */
  readonly crossover: number;
  /** Part of the population that lives on. */
  readonly elite: number;
  /** Genomes evaluated at most, at least 1. */
  readonly evaluations: number;
  /** A whole number from 0 to 2^53 − 1. */
  readonly seed: number;
}

/** A genome whose fitness is known. Less is fitter. */
export interface EvaluatedGenome {
  readonly genome: Genome;
  readonly size: number;
  readonly fitness: number;
}

export interface GenerationReport {
  /** 0: the seeds and what the first population was filled up with. */
  readonly generation: number;
  readonly evaluations: number;
  readonly best: EvaluatedGenome;
}

export interface EvolutionResult {
  readonly best: Genome;
  readonly fitness: number;
  /** Of all that was evaluated, what nothing else beats in size and fitness both; by rising size. */
  readonly front: readonly EvaluatedGenome[];
  readonly evaluations: number;
  /** After the first; the last may have been cut short by the limit of evaluations. */
  readonly generations: number;
  /** Best fitness so far at the end of each generation, the first included. */
  readonly history: readonly number[];
}

export interface EvolutionInput {
  /** Costs are those of the additive model, which repairs go by. */
  readonly items: readonly (readonly KnapsackOption[])[];
  readonly capacity: number;
  /** Evaluated first, in this order; those above the capacity are repaired. */
  readonly seeds: readonly Genome[];
  /** Called once per genome, one after the other. NaN counts as Infinity. */
  readonly evaluate: (genome: Genome) => Promise<number>;
  readonly settings: EvolutionSettings;
  readonly signal?: AbortSignal;
  readonly onGeneration?: (report: GenerationReport) => void;
}

/** Genomes drawn for each parent, of which the fittest becomes it. */
const TOURNAMENT_SIZE = 3;
/** Mutations tried for a genome that is not known yet, before a known one is put up with. */
const NOVELTY_ATTEMPTS = 10;

/**
 * The fittest genome that fits. It is never less fit than a seed that fits and was evaluated before the limit.
 * @throws `E_TARGET` where nothing fits, the signal's reason, whatever `evaluate` throws
 */
export async function evolve(input: EvolutionInput): Promise<EvolutionResult> {
  const { settings, signal, onGeneration } = input;
  const random = seedRandom(settings.seed);
  const genePool = new GenePool(input.items, input.capacity, random);
  const known = new Map<string, EvaluatedGenome>();
  const history: number[] = [];
  let best: EvaluatedGenome | undefined;

  /** null: it is not known, and the limit of evaluations is reached. */
  const evaluate = async (genome: Genome): Promise<EvaluatedGenome | null> => {
    const key = genome.join();
    const before = known.get(key);
    if (before !== undefined) return before;
    if (known.size >= settings.evaluations) return null;
    signal?.throwIfAborted();
    const measured = await input.evaluate(genome);
    signal?.throwIfAborted();
    const evaluated = { genome, size: genePool.sizeOf(genome), fitness: Number.isNaN(measured) ? Infinity : measured };
    known.set(key, evaluated);
    if (best === undefined || compareFitness(evaluated, best) < 0) best = evaluated;
    return evaluated;
  };
  const evaluateAll = async (genomes: Iterable<Genome>): Promise<EvaluatedGenome[]> => {
    const evaluated: EvaluatedGenome[] = [];
    for (const genome of genomes) {
      const one = await evaluate(genome);
      if (one === null) break;
      evaluated.push(one);
    }
    return evaluated;
  };
  const endGeneration = (): void => {
    const fittest = best as EvaluatedGenome;
    history.push(fittest.fitness);
    onGeneration?.({ generation: history.length - 1, evaluations: known.size, best: fittest });
  };
  const isNew = (genome: Genome): boolean => !known.has(genome.join());

  const seeds = input.seeds.length > 0 ? input.seeds : [genePool.draw()];
  const repaired = seeds.map((seed) => (genePool.sizeOf(seed) <= input.capacity ? seed : genePool.fit(seed)));
  let population = await evaluateAll(repaired);
  function* fillPopulation(): Generator<Genome> {
    for (let count = population.length; count < settings.population; count++) {
      const seed = repaired[count % repaired.length] as Genome;
      yield breed(() => genePool.mutate(seed, settings.mutation), isNew);
    }
  }
  population.push(...(await evaluateAll(fillPopulation())));
  population = selectFittest(population, settings.population);
  endGeneration();

  const eliteCount = Math.min(settings.population, Math.ceil(settings.elite * settings.population));
  function* bearChildren(): Generator<Genome> {
    for (let count = eliteCount; count < settings.population; count++) {
      const parents = [drawParent(population, random), drawParent(population, random)] as const;
      const hasTwo = random.fraction() < settings.crossover;
      const child = hasTwo ? genePool.cross(parents[0].genome, parents[1].genome) : parents[0].genome;
      yield breed(() => genePool.mutate(child, settings.mutation), isNew);
    }
  }
  while (history.length <= settings.generations && known.size < settings.evaluations) {
    const children = await evaluateAll(bearChildren());
    population = [...selectFittest(population, eliteCount), ...children];
    endGeneration();
  }
  const fittest = best as unknown as EvaluatedGenome;
  return {
    best: fittest.genome,
    fitness: fittest.fitness,
    front: findFront([...known.values()]),
    evaluations: known.size,
    generations: history.length - 1,
    history,
  };
}

function breed(mutate: () => Genome, isNew: (genome: Genome) => boolean): Genome {
  let genome = mutate();
  for (let attempt = 1; attempt < NOVELTY_ATTEMPTS && !isNew(genome); attempt++) genome = mutate();
  return genome;
}

/** By fitness, then size. */
function compareFitness(a: EvaluatedGenome, b: EvaluatedGenome): number {
  if (a.fitness !== b.fitness) return a.fitness < b.fitness ? -1 : 1;
  return a.size - b.size;
}

function selectFittest(population: readonly EvaluatedGenome[], count: number): EvaluatedGenome[] {
  return [...new Set(population)].sort(compareFitness).slice(0, count);
}

function drawParent(population: readonly EvaluatedGenome[], random: RandomSource): EvaluatedGenome {
  let fittest = population[random.below(population.length)] as EvaluatedGenome;
  for (let drawn = 1; drawn < TOURNAMENT_SIZE; drawn++) {
    const other = population[random.below(population.length)] as EvaluatedGenome;
    if (compareFitness(other, fittest) < 0) fittest = other;
  }
  return fittest;
}

function findFront(evaluated: readonly EvaluatedGenome[]): EvaluatedGenome[] {
  const front: EvaluatedGenome[] = [];
  for (const one of [...evaluated].sort((a, b) => a.size - b.size || compareFitness(a, b))) {
    const last = front.at(-1);
    if (last === undefined || one.fitness < last.fitness) front.push(one);
  }
  return front;
}
