/** The options of a knapsack's item that can be in a best choice, and the steps of its linear relaxation. Pure. */

/** The options of an item that no other dominates: sizes rise, costs fall. */
export interface OptionFrontier {
  readonly sizes: readonly number[];
  readonly costs: readonly number[];
  /** Index among all options of the item. */
  readonly indices: readonly number[];
}

/** A step along the lower convex hull of an item's frontier. */
export interface HullStep {
  readonly item: number;
  /** Positions in the frontier. */
  readonly from: number;
  readonly to: number;
  /** Cost saved per size added. */
  readonly slope: number;
}

export function findFrontier(options: readonly { readonly size: number; readonly cost: number }[]): OptionFrontier {
  const order = options.flatMap(({ size, cost }, index) =>
    Number.isFinite(size) && Number.isFinite(cost) ? [{ size, cost, index }] : [],
  );
  order.sort((a, b) => a.size - b.size || a.cost - b.cost);
  const kept: typeof order = [];
  for (const option of order) {
    const last = kept.at(-1);
    if (last === undefined || option.cost < last.cost) kept.push(option);
  }
  return {
    sizes: kept.map(({ size }) => size),
    costs: kept.map(({ cost }) => cost),
    indices: kept.map(({ index }) => index),
  };
}

/** By falling slope; those of an item in their order, points on a line included. */
export function findHullSteps(frontiers: readonly OptionFrontier[]): HullStep[] {
  const steps: HullStep[] = [];
  for (const [item, { sizes, costs }] of frontiers.entries()) {
    const slopeOf = (from: number, to: number): number =>
      ((costs[from] as number) - (costs[to] as number)) / ((sizes[to] as number) - (sizes[from] as number));
    const hull = [0];
    for (let option = 1; option < sizes.length; option++) {
      while (hull.length > 1) {
        const last = hull.at(-1) as number;
        if (slopeOf(hull.at(-2) as number, last) >= slopeOf(last, option)) break;
        hull.pop();
      }
      hull.push(option);
    }
    for (let at = 1; at < hull.length; at++) {
      const from = hull[at - 1] as number;
      const to = hull[at] as number;
      steps.push({ item, from, to, slope: slopeOf(from, to) });
    }
  }
  return steps.sort((a, b) => b.slope - a.slope || a.item - b.item || a.to - b.to);
}
