/** Whether a value of a file fills an input of the graph. */

/** Sizes that axes of open size have in one sample, by their names. */
export type AxisSizes = Map<string, number>;

/**
 * The shape that a value takes as an input, or null where it does not fit. Taken are
 * - the same shape, axes of size 1 in front of it aside: a batch of one;
 * - a flat list of as many elements, where at most one axis is open;
 * - a shape that differs in axes of size 1 only: the elements then lie in the same order.
 *
 * @param found the value's shape
 * @param wanted the input's, without the batch axis
 * @param sizes axes bound by other inputs of the sample; those bound here are added where the value fits
 */
export function fitShape(
  found: readonly number[],
  wanted: readonly (number | string)[],
  sizes: AxisSizes,
): readonly number[] | null {
  const extra = found.length - wanted.length;
  const isBatchOfOne = extra >= 0 && found.slice(0, extra).every((size) => size === 1);
  const nested = isBatchOfOne ? bindNested(found.slice(extra), wanted, sizes) : null;
  if (nested !== null) return nested;
  const known = wanted.map((axis) => (typeof axis === "number" ? axis : (sizes.get(axis) ?? axis)));
  if (found.length === 1) return bindFlat(found[0] as number, known, sizes);
  const sized = known.filter((axis) => typeof axis === "number");
  if (sized.length < known.length) return null;
  const [left, right] = [found, sized].map((shape) => shape.filter((size) => size !== 1).join());
  return left === right ? sized : null;
}

function bindNested(
  found: readonly number[],
  wanted: readonly (number | string)[],
  sizes: AxisSizes,
): readonly number[] | null {
  const bound: AxisSizes = new Map();
  for (const [index, axis] of wanted.entries()) {
    const size = found[index] as number;
    const expected = typeof axis === "number" ? axis : (sizes.get(axis) ?? bound.get(axis) ?? size);
    if (size !== expected) return null;
    if (typeof axis === "string") bound.set(axis, size);
  }
  for (const [axis, size] of bound) sizes.set(axis, size);
  return found;
}

function bindFlat(count: number, known: readonly (number | string)[], sizes: AxisSizes): readonly number[] | null {
  const open = known.filter((axis) => typeof axis === "string");
  const rest = known.reduce<number>((product, axis) => (typeof axis === "number" ? product * axis : product), 1);
  const [axis] = open;
  if (axis === undefined) return rest === count ? (known as readonly number[]) : null;
  if (open.length > 1 || count === 0 || count % rest !== 0) return null;
  sizes.set(axis, count / rest);
  return known.map((size) => (typeof size === "number" ? size : count / rest));
}

/** `[1, 16, w]`. */
export function showShape(shape: readonly (number | string)[]): string {
  return `[${shape.join(", ")}]`;
}
