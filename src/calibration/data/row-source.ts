/** A file of rows, whatever its format. */
import type { Cells } from "./cell.js";

export interface Row {
  /** Among the rows of the file, from 0. */
  readonly index: number;
  /** As messages name it: the line from 1, or the row from 0. */
  readonly number: number;
  /** A text where the row cannot be read at all: what is wrong with it. */
  readonly cells: Cells | string;
}

/** The first row from `from` on that is wanted; null: none. Asked again after each row, so it may change its mind. */
export type NextRow = (from: number) => number | null;

export interface RowSource {
  readonly file: string;
  readonly unit: "line" | "row";
  /** null where only reading the whole file would tell. */
  readonly rowCount: number | null;
  /** Columns that may hold numbers. */
  readonly columns: readonly string[];
  /** Rows in order; only `columns` of them need be readable. */
  rows(next: NextRow, columns: readonly string[]): AsyncIterable<Row>;
}
