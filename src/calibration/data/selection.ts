/** Which rows of the data become samples. */

/** Fractional part of the golden ratio: its multiples spread evenly, and fall into step with no period of the data. */
const GOLDEN = 0.6180339887498949;

/**
 * Takes up to `limit` rows of `rowCount`, one from each of as many equal runs of rows, at a place that varies from
 * run to run: data sets often hold one trajectory after the other, and every n-th row would always be the same time
 * step of it. A run whose row turns out malformed gives the next one instead. Where the row count is not known, the
 * first sound rows are taken.
 */
export class RowSelection {
  readonly #rowCount: number | null;
  readonly #limit: number;
  /** Rows looked at, while not all are; they are no more than taken and rejected ones together. */
  readonly #tried = new Set<number>();
  #triedCount = 0;
  #takenCount = 0;
  #isSecondRound = false;

  constructor(rowCount: number | null, limit: number) {
    this.#rowCount = rowCount;
    this.#limit = limit;
  }

  get takenCount(): number {
    return this.#takenCount;
  }

  /** How the rows are taken, for the report. */
  static describe(rowCount: number | null, limit: number): "all" | "evenly" | "first" {
    if (rowCount === null) return "first";
    return limit < rowCount ? "evenly" : "all";
  }

  /** The next row to look at, from `from` on. */
  next(from: number): number | null {
    const { rowCount, limit } = { rowCount: this.#rowCount, limit: this.#limit };
    if (this.#takenCount >= limit) return null;
    if (rowCount === null) return from;
    let row = from;
    if (this.#isSecondRound) while (this.#tried.has(row)) row += 1;
    else if (limit < rowCount) row = Math.max(from, this.#placeOf(this.#takenCount, rowCount));
    return row < rowCount ? row : null;
  }

  look(row: number): void {
    this.#triedCount += 1;
    if (this.#rowCount !== null && this.#limit < this.#rowCount) this.#tried.add(row);
  }

  take(): void {
    this.#takenCount += 1;
  }

  /** Whether there are rows left to look at after a first round, which then begins again with them. */
  startSecondRound(): boolean {
    if (this.#isSecondRound || this.#rowCount === null || this.#takenCount >= this.#limit) return false;
    this.#isSecondRound = true;
    return this.#triedCount < this.#rowCount;
  }

  #placeOf(run: number, rowCount: number): number {
    const start = Math.floor((run * rowCount) / this.#limit);
    const end = Math.floor(((run + 1) * rowCount) / this.#limit);
    return start + Math.floor(((run * GOLDEN) % 1) * (end - start));
  }
}
