import fc from "fast-check";
import { expect, it } from "vitest";
import { RowSelection } from "../../../dist/calibration/data/selection.js";

/** Goes through the rows as readers do; `isSound` says which are samples. */
function select(rowCount: number, isKnown: boolean, limit: number, isSound: (row: number) => boolean) {
  const selection = new RowSelection(isKnown ? rowCount : null, limit);
  const taken: number[] = [];
  const tried: number[] = [];
  do {
    for (let row = selection.next(0); row !== null && row < rowCount; row = selection.next(row + 1)) {
      selection.look(row);
      tried.push(row);
      if (!isSound(row)) continue;
      selection.take();
      taken.push(row);
    }
  } while (selection.startSecondRound());
  return { taken, tried };
}

const cases = fc.record({
  rowCount: fc.integer({ min: 1, max: 300 }),
  limit: fc.integer({ min: 1, max: 350 }),
  isKnown: fc.boolean(),
  bad: fc.uniqueArray(fc.nat(299), { maxLength: 200 }),
});

it("takes as many sound rows as there are and as are wanted, none twice", () => {
  fc.assert(
    fc.property(cases, ({ rowCount, limit, isKnown, bad }) => {
      const sound = rowCount - bad.filter((row) => row < rowCount).length;
      const { taken, tried } = select(rowCount, isKnown, limit, (row) => !bad.includes(row));
      expect(taken).toHaveLength(Math.min(limit, sound));
      expect(new Set(tried).size).toBe(tried.length);
    }),
    { numRuns: 500 },
  );
});

it("takes one row of each of as many equal runs where all are sound, and the first ones where none knows how many", () => {
  fc.assert(
    fc.property(cases, ({ rowCount, limit }) => {
      const count = Math.min(rowCount, limit);
      const { taken, tried } = select(rowCount, true, limit, () => true);
      expect(tried).toEqual(taken);
      for (const [run, row] of taken.entries()) {
        expect(row).toBeGreaterThanOrEqual(Math.floor((run * rowCount) / count));
        expect(row).toBeLessThan(Math.floor(((run + 1) * rowCount) / count));
      }
      const { taken: first } = select(rowCount, false, limit, () => true);
      expect(first).toEqual(Array.from({ length: count }, (_, row) => row));
    }),
  );
});

it("falls into step with no trajectory: of trajectories of n steps every part of the steps is met alike", () => {
  for (const steps of [10, 20, 50]) {
    const { taken } = select(steps * 200, true, 200, () => true);
    const thirds = [0, 0, 0];
    for (const row of taken)
      thirds[Math.floor(((row % steps) * 3) / steps)] = (thirds[Math.floor(((row % steps) * 3) / steps)] as number) + 1;
    for (const met of thirds) expect(met).toBeGreaterThan(50);
  }
});
