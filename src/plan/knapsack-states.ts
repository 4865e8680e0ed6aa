/** States of the knapsack's dynamic programming. Pure. */

/** Choices for the first items, by rising size and falling cost. */
export interface KnapsackStates {
  readonly sizes: Float64Array;
  readonly costs: Float64Array;
  /** Node of the state each was made from, −1 of none, and its last item's position in the frontier. */
  readonly parents: Int32Array;
  readonly positions: Int32Array;
  count: number;
}

export function makeStates(capacity: number): KnapsackStates {
  return {
    sizes: new Float64Array(capacity),
    costs: new Float64Array(capacity),
    parents: new Int32Array(capacity),
    positions: new Int32Array(capacity),
    count: 0,
  };
}

export function pushState(states: KnapsackStates, size: number, cost: number, parent: number, position: number): void {
  const at = states.count++;
  states.sizes[at] = size;
  states.costs[at] = cost;
  states.parents[at] = parent;
  states.positions[at] = position;
}

/** Both in one, without those that another is no larger and no dearer than. */
export function mergeStates(a: KnapsackStates, b: KnapsackStates): KnapsackStates {
  const merged = makeStates(a.count + b.count);
  let atA = 0;
  let atB = 0;
  let least = Infinity;
  while (atA < a.count || atB < b.count) {
    const sizeA = atA < a.count ? (a.sizes[atA] as number) : Infinity;
    const sizeB = atB < b.count ? (b.sizes[atB] as number) : Infinity;
    const isFromA =
      sizeA < sizeB || (sizeA === sizeB && atA < a.count && (a.costs[atA] as number) <= (b.costs[atB] as number));
    const from = isFromA ? a : b;
    const at = isFromA ? atA++ : atB++;
    const cost = from.costs[at] as number;
    if (cost >= least) continue;
    least = cost;
    pushState(merged, from.sizes[at] as number, cost, from.parents[at] as number, from.positions[at] as number);
  }
  return merged;
}
