/** Evolution of an allocation by the prediction error of the whole quantized model, where it can be run. */
import { defaultCacheFolder } from "../calibration/cache.js";
import { ProgressMeter } from "../engine/meter.js";
import {
  type AllocatedLayers,
  type Allocation,
  type AllocationItems,
  type AllocationLayer,
  allocateBits,
  applyGenome,
  type Budget,
  uniformGenomes,
} from "../plan/allocation.js";
import { evolve, type Genome } from "../plan/evolution.js";
import type { MixedSearch } from "../plan/plan.js";
import { SENSITIVITY_KINDS } from "../plan/plan.js";
import {
  allocationLayers,
  type MeasuredComponent,
  type MeasuredOptions,
  type PrecisionInput,
  qualifiedName,
} from "./measured-options.js";
import { openFitness } from "./sensitivity/fitness.js";

export interface SearchedPrecision {
  readonly search: MixedSearch;
  /** Every plan that no other beats in both size and error, by rising error. */
  readonly candidates: readonly { readonly allocated: AllocatedLayers; readonly error: number }[];
}

interface Fitness {
  readonly what: MixedSearch["fitness"];
  /** Not squared. */
  error(allocated: AllocatedLayers): Promise<number>;
  close(): Promise<void>;
}

/**
 * Searches from the allocation, the uniform plans and the allocations by the other measures.
 * @throws what measuring the model does, the signal's reason
 */
export async function searchPrecision(
  input: PrecisionInput,
  measured: MeasuredOptions,
  { items }: Allocation,
  budget: Budget,
): Promise<SearchedPrecision> {
  const { job, config, place } = input;
  const { values } = config;
  const settings = {
    population: values["evolution.population"],
    generations: values["evolution.generations"],
    mutation: values["evolution.mutation"],
    crossover: values["evolution.crossover"],
    elite: values["evolution.elite"],
    evaluations: values["evolution.evaluations"],
    seed: values.seed,
  };
  const name = measured.components[0]?.plan.component ?? "";
  const names = new Set(items.sets.flatMap(({ layers }) => layers.map((layer) => layer.name)));
  const runBytes = measured.components
    .flatMap(({ plan }) => plan.layers.filter(({ tensor }) => names.has(qualifiedName(plan.component, tensor.name))))
    .reduce((sum, { tensor }) => sum + tensor.location.byteLength, 0);
  const meter = new ProgressMeter(
    "search",
    { layers: settings.evaluations, bytes: settings.evaluations * runBytes },
    job.onProgress,
    place.abort,
  );
  const fitness = await openSearchFitness(input, measured);
  try {
    const found = await evolve({
      items: items.options,
      capacity: items.capacity,
      seeds: [items.genome, ...otherGenomes(measured, config, items, budget), ...uniformGenomes(items.sets)],
      evaluate: async (genome: Genome) => {
        const error = await fitness.error(applyGenome(items.sets, genome));
        meter.add(name, "", runBytes, 1);
        return error;
      },
      settings,
      signal: place.signal,
    });
    const seedError = await fitness.error(applyGenome(items.sets, items.genome));
    return {
      search: {
        fitness: fitness.what,
        generations: found.generations,
        evaluations: found.evaluations,
        seedError,
        error: found.fitness,
        history: found.history,
      },
      candidates: [{ genome: found.best, fitness: found.fitness }, ...found.front]
        .map(({ genome, fitness: error }) => ({ allocated: applyGenome(items.sets, genome), error }))
        .sort((a, b) => a.error - b.error),
    };
  } finally {
    await fitness.close();
  }
}

/** The optima by the measures that were not asked for and are known of all layers. */
function otherGenomes(
  { components, kind }: MeasuredOptions,
  config: PrecisionInput["config"],
  { sets }: AllocationItems,
  budget: Budget,
): Genome[] {
  if (budget.kind === "error") return [];
  const order = sets.map(({ layers }) => layers.map((layer) => layer.name).join("\n")).join("\n\n");
  const others = SENSITIVITY_KINDS.filter(
    (other) => other !== kind && components.every(({ table }) => table.kinds.includes(other)),
  );
  return others.flatMap((other) => {
    const layers: AllocationLayer[] = allocationLayers(components, other, config);
    const { items } = allocateBits(layers, budget, config.values.knapsack_gap);
    const isSame = items.sets.map((set) => set.layers.map((layer) => layer.name).join("\n")).join("\n\n") === order;
    return isSame ? [items.genome] : [];
  });
}

async function openSearchFitness({ place, session }: PrecisionInput, measured: MeasuredOptions): Promise<Fitness> {
  const { runner, components } = measured;
  if (runner === null) {
    return { what: "sum", error: async ({ error }) => Math.sqrt(error), close: async () => undefined };
  }
  const [{ component, plan, statistics, store }] = components as readonly [MeasuredComponent];
  const fitness = await openFitness({
    component,
    plan,
    statistics,
    store,
    runner,
    cacheFolder: defaultCacheFolder(process.env),
    session,
    signal: place.signal,
  });
  const names = new Map(plan.layers.map(({ tensor }) => [qualifiedName(plan.component, tensor.name), tensor.name]));
  return {
    what: "model",
    error: ({ specs }) =>
      fitness.error(new Map([...specs].map(([name, candidate]) => [names.get(name) as string, candidate]))),
    close: () => fitness.close(),
  };
}
