/**
 * The multiple-choice knapsack: of each item one option, the sizes within a capacity, the least sum of costs. Pure.
 *
 * Items are decided one after the other. A state is a choice for the first of them; of two states the one that is
 * neither smaller nor cheaper is dropped (dynamic programming by dominance), and so is one whose bound shows that no
 * completion beats what is known already by more than the gap (branch and bound). The bound is the best Lagrangian
 * one: the linear relaxation over the items left, which takes the steps along the lower convex hulls of their options
 * by falling gain per size until the capacity is used up (Sinha and Zoltners, "The multiple-choice knapsack problem",
 * Operations Research 27, 1979; Pisinger, "A minimal algorithm for the multiple-choice knapsack problem", EJOR 83,
 * 1995). Without its last, fractional step it is a solution.
 *
 * Sums of floating-point sizes depend on their order. Here it is the order of the items, and states are sums of the
 * first of them: rounding is monotone, so that a state which is no larger stays so however it goes on, and what is
 * found fits where the caller adds up in the same order.
 */
import { type KnapsackStates, makeStates, mergeStates, pushState } from "./knapsack-states.js";
import { findFrontier, findHullSteps, type HullStep, type OptionFrontier } from "./option-frontier.js";

export interface KnapsackOption {
  /** Finite, at least 0. */
  readonly size: number;
  /** Finite, at least 0. */
  readonly cost: number;
}

export interface KnapsackSolution {
  /** Index of the option of each item. */
  readonly choice: readonly number[];
  readonly size: number;
  readonly cost: number;
  /** No choice that fits costs less, but for rounding (relatively 2^-52 per item). */
  readonly lowerBound: number;
  /** (cost − lowerBound)/cost; 0 is the optimum. */
  readonly gap: number;
}

/**
 * States kept after an item at most, times the number of items: eight bytes of each stay until the end, 16 MiB in
 * all. Hundreds of layers with dozens of candidates stay far below; past it the states with the worst bounds are dropped
 * and the gap says what that may have cost.
 */
const MAX_STATES = 2 ** 21;
/** States built, before dominance and bounds sort them out: what bounds the time, to a second or two. */
const MAX_BUILT_STATES = 2 ** 24;
/** Relative error of one addition, twice over. */
const ROUNDING = 2 ** -51;

/**
 * The choice of least cost that fits, to a relative gap.
 * @param items options of each; those that are not finite are never chosen
 * @param gap how much above the least cost is good enough, relative to the cost found; 0: the optimum
 * @returns null where nothing fits
 */
export function solveKnapsack(
  items: readonly (readonly KnapsackOption[])[],
  capacity: number,
  gap = 0.001,
): KnapsackSolution | null {
  const frontiers = items.map(findFrontier);
  if (frontiers.some(({ sizes }) => sizes.length === 0)) return null;
  const smallest = frontiers.reduce((sum, { sizes }) => sum + (sizes[0] as number), 0);
  return smallest <= capacity ? new Search(frontiers, capacity, gap).run() : null;
}

/**
 * A sum of numbers of very different sizes, some of them taken back later: what rounding leaves over is kept beside it
 * (Knuth's two-sum), so that a large cost does not swallow the small ones.
 */
class CarefulSum {
  #high = 0;
  #low = 0;

  add(value: number): void {
    const sum = this.#high + value;
    const part = sum - this.#high;
    this.#low += this.#high - (sum - part) + (value - part);
    this.#high = sum;
  }

  get value(): number {
    return this.#high + this.#low;
  }
}

class Search {
  #frontiers: readonly OptionFrontier[];
  readonly #capacity: number;
  readonly #gap: number;
  /** How far rounding may carry a sum of sizes; sums of whole numbers are exact. */
  readonly #tolerance: number;
  /** Of the items that are not decided yet. */
  #steps: readonly HullStep[];
  #best: Pick<KnapsackSolution, "choice" | "size" | "cost">;
  /** Least bound of what was dropped. */
  #dropped = Infinity;
  /** Parent and position of every state that others were made from. */
  #nodes = new Int32Array(1024);
  #nodeCount = 0;

  constructor(frontiers: readonly OptionFrontier[], capacity: number, gap: number) {
    this.#frontiers = frontiers;
    this.#capacity = capacity;
    this.#gap = gap;
    const largest = frontiers.reduce((sum, { sizes }) => sum + (sizes.at(-1) as number), 0);
    const isExact = largest <= Number.MAX_SAFE_INTEGER && frontiers.every(({ sizes }) => sizes.every(Number.isInteger));
    this.#tolerance = isExact ? 0 : ROUNDING * (frontiers.length + 4) * Math.min(capacity, largest);
    this.#steps = findHullSteps(frontiers);
    this.#best = this.#add(frontiers.map(() => 0));
  }

  run(): KnapsackSolution {
    let states = makeStates(1);
    pushState(states, 0, 0, -1, -1);
    for (let decided = 0; ; decided++) {
      states = this.#keepPromising(states, this.#boundStates(states, decided), decided);
      if (states.count === 0 || decided === this.#frontiers.length) break;
      if (decided === 0 && !this.#dropOptions()) break;
      states = this.#decide(states, decided);
      this.#steps = this.#steps.filter(({ item }) => item > decided);
    }
    const { cost } = this.#best;
    const rounding = this.#roundingOf(cost);
    const lowerBound = this.#dropped >= cost - rounding ? cost : Math.max(0, this.#dropped - rounding);
    return { ...this.#best, lowerBound, gap: cost === 0 ? 0 : (cost - lowerBound) / cost };
  }

  /** How far rounding may carry a sum of costs. */
  #roundingOf(cost: number): number {
    return ROUNDING * (this.#frontiers.length + 4) * cost;
  }

  /** What a bound must stay below for its state to be worth going on: better by more than the gap and rounding. */
  get #threshold(): number {
    const { cost } = this.#best;
    const rounding = this.#roundingOf(cost);
    return Math.min(cost - rounding, cost * (1 - this.#gap) + 2 * rounding);
  }

  /** @param positions in the frontiers, of all items */
  #add(positions: readonly number[]): Pick<KnapsackSolution, "choice" | "size" | "cost"> {
    const choice: number[] = [];
    let size = 0;
    let cost = 0;
    for (const [item, { sizes, costs, indices }] of this.#frontiers.entries()) {
      const position = positions[item] as number;
      choice.push(indices[position] as number);
      size += sizes[position] as number;
      cost += costs[position] as number;
    }
    return { choice, size, cost };
  }

  /** Takes a choice that is better than the best and fits. */
  #offer(positions: readonly number[]): void {
    const solution = this.#add(positions);
    if (solution.size <= this.#capacity && solution.cost < this.#best.cost) this.#best = solution;
  }

  /**
   * The least that each state can come to; Infinity where nothing that it can go on with fits. On the way, the
   * completion by the whole steps of the relaxation is offered.
   */
  #boundStates(states: KnapsackStates, decided: number): Float64Array {
    const { sizes, costs } = states;
    const steps = this.#steps;
    const saved = new CarefulSum();
    let restSize = 0;
    for (const frontier of this.#frontiers.slice(decided)) {
      restSize += frontier.sizes[0] as number;
      saved.add(frontier.costs[0] as number);
    }
    /** Cost of the items left with the steps taken, and with the one after them as well. */
    let restCost = saved.value;
    let nextCost = restCost;
    let taken = -1;
    let takenSize = 0;
    let nextSize = 0;
    const advance = (): void => {
      taken++;
      takenSize = nextSize;
      restCost = nextCost;
      const step = steps[taken];
      if (step === undefined) return;
      const frontier = this.#frontiers[step.item] as OptionFrontier;
      nextSize = takenSize + (frontier.sizes[step.to] as number) - (frontier.sizes[step.from] as number);
      saved.add(-(frontier.costs[step.from] as number));
      saved.add(frontier.costs[step.to] as number);
      nextCost = saved.value;
    };
    advance();
    const bounds = new Float64Array(states.count);
    let leastBound = Infinity;
    let leastState = -1;
    // By rising room, so that the steps taken only grow.
    for (let state = states.count - 1; state >= 0; state--) {
      const room = this.#capacity + this.#tolerance - ((sizes[state] as number) + restSize);
      if (room < 0) {
        bounds[state] = Infinity;
        continue;
      }
      while (taken < steps.length && nextSize <= room) advance();
      const cost = costs[state] as number;
      if (cost + restCost < this.#best.cost) {
        const positions = this.#trace(states, state, decided);
        for (const { item, to } of steps.slice(0, taken)) positions[item] = to;
        this.#offer(positions);
      }
      const step = steps[taken];
      // What is left to pay of the step that does not fit; a slope may be infinite, the step's whole saving is not.
      const fraction = step === undefined ? 0 : Math.min(step.slope * (nextSize - room), restCost - nextCost);
      const bound = cost + nextCost + fraction;
      bounds[state] = bound;
      if (bound < leastBound) {
        leastBound = bound;
        leastState = state;
      }
    }
    if (leastState >= 0) this.#fill(states, leastState, decided);
    return bounds;
  }

  /** Offers the completion of a state by all steps that still fit when their turn comes. */
  #fill(states: KnapsackStates, state: number, decided: number): void {
    const positions = this.#trace(states, state, decided);
    let room = this.#capacity - this.#add(positions).size;
    for (const { item, to } of this.#steps) {
      const { sizes } = this.#frontiers[item] as OptionFrontier;
      const added = (sizes[to] as number) - (sizes[positions[item] as number] as number);
      if (added > room) continue;
      room -= added;
      positions[item] = to;
    }
    this.#offer(positions);
  }

  /** Positions of the items decided, the smallest options of the others. */
  #trace(states: KnapsackStates, state: number, decided: number): number[] {
    const chosen: number[] = this.#frontiers.map(() => 0);
    if (decided === 0) return chosen;
    chosen[decided - 1] = states.positions[state] as number;
    let node = states.parents[state] as number;
    for (let item = decided - 2; item >= 0; item--) {
      chosen[item] = this.#nodes[2 * node + 1] as number;
      node = this.#nodes[2 * node] as number;
    }
    return chosen;
  }

  /** Drops states that cannot lead to anything better by more than the gap, and the worst where there are too many. */
  #keepPromising(states: KnapsackStates, bounds: Float64Array, decided: number): KnapsackStates {
    const threshold = this.#threshold;
    const options = this.#frontiers[decided]?.sizes.length ?? 1;
    const most = Math.floor(Math.min(MAX_STATES, MAX_BUILT_STATES / options) / Math.max(1, this.#frontiers.length));
    const promising = bounds.filter((bound) => bound < threshold);
    const worst = promising.length > most ? (promising.sort()[most - 1] as number) : threshold;
    const kept = makeStates(Math.min(promising.length, most));
    for (let state = 0; state < states.count; state++) {
      const bound = bounds[state] as number;
      if (bound < threshold && bound <= worst && kept.count < most) {
        pushState(
          kept,
          states.sizes[state] as number,
          states.costs[state] as number,
          states.parents[state] as number,
          states.positions[state] as number,
        );
      } else {
        this.#dropped = Math.min(this.#dropped, bound);
      }
    }
    return kept;
  }

  /**
   * Drops options that no choice holds which is better than the best by more than the gap. Where sizes have a price,
   * the sum of each item's least cost and price, less the price of the capacity, bounds all choices (Lagrange), and an
   * option adds what it comes to above its item's least.
   * @returns whether all items have options left; if not, the best there is cannot be beaten by more
   */
  #dropOptions(): boolean {
    const threshold = this.#threshold;
    const capacity = this.#capacity + this.#tolerance;
    let used = this.#frontiers.reduce((sum, { sizes }) => sum + (sizes[0] as number), 0);
    // The slope of the step that the relaxation breaks at gives the best bound.
    const price = this.#steps.find(({ item, from, to }) => {
      const { sizes } = this.#frontiers[item] as OptionFrontier;
      used += (sizes[to] as number) - (sizes[from] as number);
      return used > capacity;
    })?.slope;
    if (price === undefined || !Number.isFinite(price)) return true;
    const totals = this.#frontiers.map(({ sizes, costs }) =>
      sizes.map((size, option) => (costs[option] as number) + price * size),
    );
    const leasts = totals.map((ofItem) => Math.min(...ofItem));
    const least = leasts.reduce((sum, ofItem) => sum + ofItem, 0);
    const bound = least - price * capacity - 2 * this.#roundingOf(least);
    this.#frontiers = this.#frontiers.map(({ sizes, costs, indices }, item) => {
      const kept = sizes.flatMap((_, option) => {
        const total = totals[item]?.[option] as number;
        const boundOfOption = bound + (total - (leasts[item] as number)) - this.#roundingOf(total);
        if (boundOfOption < threshold) return [option];
        this.#dropped = Math.min(this.#dropped, boundOfOption);
        return [];
      });
      return {
        sizes: kept.map((option) => sizes[option] as number),
        costs: kept.map((option) => costs[option] as number),
        indices: kept.map((option) => indices[option] as number),
      };
    });
    if (this.#frontiers.some(({ sizes }) => sizes.length === 0)) return false;
    this.#steps = findHullSteps(this.#frontiers);
    return true;
  }

  /** All choices for one more item. */
  #decide(states: KnapsackStates, item: number): KnapsackStates {
    const { sizes, costs } = this.#frontiers[item] as OptionFrontier;
    const firstNode = this.#keepNodes(states);
    let rest = 0;
    for (const frontier of this.#frontiers.slice(item + 1)) rest += frontier.sizes[0] as number;
    const most = this.#capacity + this.#tolerance - rest;
    let lists = sizes.map((added, position) => {
      const list = makeStates(states.count);
      for (let state = 0; state < states.count; state++) {
        const size = (states.sizes[state] as number) + added;
        if (size > most) break;
        pushState(
          list,
          size,
          (states.costs[state] as number) + (costs[position] as number),
          firstNode + state,
          position,
        );
      }
      return list;
    });
    // In pairs, so that each state is merged as few times as there are doublings.
    while (lists.length > 1) {
      lists = lists.flatMap((list, index) =>
        index % 2 === 1 ? [] : [mergeStates(list, lists[index + 1] ?? makeStates(0))],
      );
    }
    return lists[0] as KnapsackStates;
  }

  /** @returns node of the first state; the others follow */
  #keepNodes(states: KnapsackStates): number {
    const first = this.#nodeCount;
    this.#nodeCount += states.count;
    if (2 * this.#nodeCount > this.#nodes.length) {
      const grown = new Int32Array(Math.max(2 * this.#nodeCount, 2 * this.#nodes.length));
      grown.set(this.#nodes);
      this.#nodes = grown;
    }
    for (let state = 0; state < states.count; state++) {
      this.#nodes[2 * (first + state)] = states.parents[state] as number;
      this.#nodes[2 * (first + state) + 1] = states.positions[state] as number;
    }
    return first;
  }
}
