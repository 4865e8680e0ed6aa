/**
 * Mixed precision: to each layer one of its candidates, the least sum of errors within a budget of size, or the least
 * size within a budget of error, exactly to a gap (`solveKnapsack`). Layers of one tie get the same bits and group
 * size: together they are one item, whose options are the candidates that all of them have. Pure.
 *
 * The same solver allocates group sizes (Q-DiT, Chen et al., https://arxiv.org/abs/2406.17343): under a mean group
 * size, an option takes up what its groups fall short of its item's largest.
 */
import { ArrowQuantError } from "../errors.js";
import type { QuantSpec } from "../tensor/layout.js";
import { type KnapsackOption, solveKnapsack } from "./knapsack.js";

export interface Candidate {
  readonly spec: QuantSpec;
  /** Of codes, scales and zero points. */
  readonly bytes: number;
  /** Squared; adds up over layers. One that is not finite is never chosen. */
  readonly error: number;
}

export interface AllocationLayer {
  readonly name: string;
  readonly parameterCount: number;
  /** What the layer's floor and ceiling leave; one of each bits, group size and storage. */
  readonly candidates: readonly Candidate[];
  /** Layers of the same tie get the same bits and group size; null: on its own. */
  readonly tie: string | null;
}

/**
 * What is kept within `value`: `bpw` bits per weight and `bytes`, both at most and of the layers given; `error` their
 * sum of errors, at most, for the least bytes; `mean-group` their group size averaged over parameters, at least.
 */
export interface Budget {
  readonly kind: "bpw" | "bytes" | "error" | "mean-group";
  readonly value: number;
}

/** Layers decided together, and one row of candidates per option. */
export interface AllocationSet {
  readonly layers: readonly AllocationLayer[];
  /** [option][layer] */
  readonly options: readonly (readonly Candidate[])[];
}

/** What a search over allocations works on: a gene for each set, its option. */
export interface AllocationItems {
  readonly sets: readonly AllocationSet[];
  /**
   * Of each set: what is limited as size, the error as cost. Sizes are bytes, for a mean group size parameters times
   * what their groups fall short of the largest.
   */
  readonly options: readonly (readonly KnapsackOption[])[];
  /** For sizes; for a budget of error, the bytes that were found for it. */
  readonly capacity: number;
  /** Option of each set in the allocation. */
  readonly genome: readonly number[];
}

/** An allocation's layers and what they come to. */
export interface AllocatedLayers {
  readonly specs: ReadonlyMap<string, Candidate>;
  readonly bytes: number;
  /** Sum over the layers. */
  readonly error: number;
}

export interface Allocation extends AllocatedLayers {
  /** No allocation within the budget has less error; where the budget is of error, fewer bytes. */
  readonly lowerBound: number;
  /** How much above the least this may be, relatively. */
  readonly gap: number;
  readonly items: AllocationItems;
}

/** What candidates can come to, in the terms of a budget. */
export interface ReachableRange {
  readonly least: number;
  readonly most: number;
}

/** Targets are read from decimals and multiplied: rounding must not lose the last byte. */
const TARGET_ROUNDING = 1 + 2 ** -50;

const TARGETS = {
  bpw: { unit: "bits per weight", bound: "most" },
  bytes: { unit: "bytes", bound: "most" },
  error: { unit: "sum of squared errors", bound: "most" },
  "mean-group": { unit: "weights per group on average", bound: "least" },
} as const satisfies Record<Budget["kind"], { unit: string; bound: "least" | "most" }>;

/**
 * The best allocation within a budget.
 * @param gap relative, of what is made least; 0: the optimum
 * @throws `E_TARGET` with the reachable range where nothing keeps within the budget, `E_CONFLICT` where a layer has no
 *   candidate or tied layers have none in common
 */
export function allocateBits(layers: readonly AllocationLayer[], budget: Budget, gap: number): Allocation {
  const sets = tieSets(layers);
  const sizes = sumOptions(sets, ({ bytes }) => bytes);
  const errors = sumOptions(sets, ({ error }) => error);
  const parameterCount = countParameters(layers);
  let solved: { readonly options: AllocationItems["options"]; readonly capacity: number };
  if (budget.kind === "error") {
    solved = { options: pairUp(errors, sizes), capacity: budget.value };
  } else if (budget.kind === "mean-group") {
    const largest = largestGroup(layers);
    const shortfalls = sumOptions(
      sets,
      (candidate, layer) => layer.parameterCount * (largest - candidate.spec.groupSize),
    );
    const capacity = parameterCount * (largest - budget.value / TARGET_ROUNDING);
    solved = { options: pairUp(shortfalls, errors), capacity };
  } else {
    const bytes = budget.kind === "bytes" ? budget.value : (parameterCount * budget.value) / 8;
    solved = { options: pairUp(sizes, errors), capacity: bytes * TARGET_ROUNDING };
  }
  const solution = solveKnapsack(solved.options, solved.capacity, gap);
  if (solution === null) throw refuseTarget(layers, budget);
  const genome = solution.choice;
  const allocated = applyGenome(sets, genome);
  const searched = budget.kind === "error" ? { options: pairUp(sizes, errors), capacity: allocated.bytes } : solved;
  return {
    ...allocated,
    lowerBound: solution.lowerBound,
    gap: solution.gap,
    items: { sets, ...searched, genome },
  };
}

/** The layers of a genome and what they come to. */
export function applyGenome(sets: readonly AllocationSet[], genome: readonly number[]): AllocatedLayers {
  const specs = new Map<string, Candidate>();
  let bytes = 0;
  let error = 0;
  for (const [index, { layers, options }] of sets.entries()) {
    const option = options[genome[index] as number] as readonly Candidate[];
    for (const [at, { name }] of layers.entries()) specs.set(name, option[at] as Candidate);
    bytes += option.reduce((sum, candidate) => sum + candidate.bytes, 0);
    // In the order of the solver's sums, so that an error reported can be asked for again.
    error += option.reduce((sum, candidate) => sum + candidate.error, 0);
  }
  return { specs, bytes, error };
}

/**
 * A genome for each bits, group size and storage among the candidates: all layers alike, those whose candidates lack
 * it by the nearest that they have. Whether it keeps to a budget is not looked at.
 */
export function uniformGenomes(sets: readonly AllocationSet[]): (readonly number[])[] {
  const wanted = new Map<string, QuantSpec>();
  for (const { options } of sets) {
    for (const [first] of options) if (first !== undefined) wanted.set(keyOf(first.spec), first.spec);
  }
  const genomes = [...wanted.values()].map((spec) => sets.map(({ options }) => nearestOption(options, spec)));
  return [...new Map(genomes.map((genome) => [genome.join(), genome])).values()];
}

/** From the least to the most that the candidates can come to, whatever else. */
export function findReachableRange(layers: readonly AllocationLayer[], kind: Budget["kind"]): ReachableRange {
  const sets = tieSets(layers);
  const parameterCount = countParameters(layers);
  const sums = sumOptions(sets, ({ spec, bytes, error }, layer) => {
    if (kind === "error") return error;
    return kind === "mean-group" ? layer.parameterCount * spec.groupSize : bytes;
  });
  const unit = { bpw: 8 / parameterCount, bytes: 1, error: 1, "mean-group": 1 / parameterCount }[kind];
  return {
    least: unit * sums.reduce((sum, options) => sum + Math.min(...options), 0),
    most: unit * sums.reduce((sum, options) => sum + Math.max(...options), 0),
  };
}

function refuseTarget(layers: readonly AllocationLayer[], { kind, value }: Budget): ArrowQuantError {
  const { least, most } = findReachableRange(layers, kind);
  const { unit, bound } = TARGETS[kind];
  const range = `${roundUp(least)} to ${-roundUp(-most)}`;
  return new ArrowQuantError(
    "E_TARGET",
    `target of at ${bound} ${value} ${unit} is out of reach: candidates of ${layers.length} layers come to ${range}`,
    {
      hint: `choose a target from ${range}, or allow other candidates (bits, group sizes, floors and ceilings)`,
      details: { kind, value, least, most, layerCount: layers.length },
    },
  );
}

/** To six digits: the limits of a range are rounded inwards, so that what is printed can be reached. */
function roundUp(value: number): number {
  if (Number.isInteger(value) || !Number.isFinite(value)) return value;
  const unit = 10 ** (Math.floor(Math.log10(Math.abs(value))) - 5);
  return Number((Math.ceil(value / unit) * unit).toPrecision(6));
}

function tieSets(layers: readonly AllocationLayer[]): AllocationSet[] {
  const members = new Map<string | AllocationLayer, AllocationLayer[]>();
  for (const layer of layers) {
    const key = layer.tie ?? layer;
    members.set(key, [...(members.get(key) ?? []), layer]);
  }
  return [...members.values()].map((tied) => ({ layers: tied, options: commonOptions(tied) }));
}

function commonOptions(layers: readonly AllocationLayer[]): (readonly Candidate[])[] {
  const byKey = layers.map(({ name, candidates }) => {
    const usable = candidates.filter(({ error }) => Number.isFinite(error));
    if (usable.length > 0) return new Map(usable.map((candidate) => [keyOf(candidate.spec), candidate]));
    throw new ArrowQuantError("E_CONFLICT", `no candidate is left for "${name}" of ${candidates.length}`, {
      hint: "its floor of bits may lie above its ceiling or above all candidate bits",
      details: { layer: name, candidateCount: candidates.length },
    });
  });
  const keys = [...(byKey[0] as Map<string, Candidate>).keys()].filter((key) => byKey.every((keyed) => keyed.has(key)));
  if (keys.length > 0) return keys.map((key) => byKey.map((keyed) => keyed.get(key) as Candidate));
  const names = layers.map(({ name }) => name);
  throw new ArrowQuantError("E_CONFLICT", `tied layers have no candidate in common: ${names.join(", ")}`, {
    hint: "give them floors and ceilings that overlap, or untie them (tie_layers, tie_patterns)",
    details: { layers: names, candidates: byKey.map((keyed) => [...keyed.keys()]) },
  });
}

/** Bits, group size and storage. The method may differ between layers. */
function keyOf({ bits, groupSize, scaleBits, zeroPointBits }: QuantSpec): string {
  return `${bits} bits, group ${groupSize}, storage ${scaleBits ?? "float"}/${zeroPointBits ?? "float"}`;
}

/** Of the nearest bits, then the nearest group size (by ratio), then the same storage; of equals the larger. */
function nearestOption(options: AllocationSet["options"], wanted: QuantSpec): number {
  const ranks = options.map(([first]) => {
    const { spec } = first as Candidate;
    const groupRatio = Math.max(spec.groupSize / wanted.groupSize, wanted.groupSize / spec.groupSize);
    return [Math.abs(spec.bits - wanted.bits), -spec.bits, groupRatio, keyOf(spec) === keyOf(wanted) ? 0 : 1];
  });
  return ranks.reduce((best, rank, option) => (isBefore(rank, ranks[best] as number[]) ? option : best), 0);
}

function isBefore(a: readonly number[], b: readonly number[]): boolean {
  const at = a.findIndex((value, index) => value !== b[index]);
  return at >= 0 && (a[at] as number) < (b[at] as number);
}

/** [set][option]: sums over the set's layers. */
function sumOptions(
  sets: readonly AllocationSet[],
  sumOf: (candidate: Candidate, layer: AllocationLayer) => number,
): number[][] {
  return sets.map(({ layers, options }) =>
    options.map((option) =>
      option.reduce((sum, candidate, at) => sum + sumOf(candidate, layers[at] as AllocationLayer), 0),
    ),
  );
}

function pairUp(sizes: readonly (readonly number[])[], costs: readonly (readonly number[])[]): KnapsackOption[][] {
  return sizes.map((options, set) => options.map((size, option) => ({ size, cost: costs[set]?.[option] as number })));
}

function countParameters(layers: readonly AllocationLayer[]): number {
  return layers.reduce((sum, { parameterCount }) => sum + parameterCount, 0);
}

function largestGroup(layers: readonly AllocationLayer[]): number {
  return Math.max(...layers.flatMap(({ candidates }) => candidates.map(({ spec }) => spec.groupSize)));
}
