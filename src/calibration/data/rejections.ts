/** Malformed rows: recorded up to a limit, beyond which the data is what is malformed. */
import { ArrowQuantError } from "../../errors.js";

/** Rows that may be malformed where nobody said how many. */
const DEFAULT_MAX_REJECTED = 100;

/** More of them are counted but not kept. */
const MAX_KEPT = 1000;

/** Reasons that an error message shows. */
const MAX_SHOWN = 5;

const MAX_REASON_LENGTH = 300;

export interface Rejection {
  readonly file: string;
  readonly unit: "line" | "row";
  /** Lines count from 1, rows from 0. */
  readonly row: number;
  readonly reason: string;
}

export class Rejections {
  readonly #limit: number;
  readonly #isDefault: boolean;
  /** The same array for as long as the data is open. */
  readonly kept: Rejection[] = [];
  #count = 0;

  /** @param limit null: DEFAULT_MAX_REJECTED, and no more rows than are sound */
  constructor(limit: number | null) {
    this.#limit = limit ?? DEFAULT_MAX_REJECTED;
    this.#isDefault = limit === null;
  }

  get count(): number {
    return this.#count;
  }

  /** Forgets what an earlier reading of the same rows found. */
  clear(): void {
    this.kept.length = 0;
    this.#count = 0;
  }

  /** @throws E_CALIBRATION where there are more than the limit allows */
  add({ reason, ...place }: Rejection): void {
    this.#count += 1;
    // Reasons quote the file, and end up on terminals.
    const printable = reason.replaceAll(/\p{Cc}/gu, "?").slice(0, MAX_REASON_LENGTH);
    if (this.kept.length < MAX_KEPT) this.kept.push({ ...place, reason: printable });
    if (this.#count > this.#limit) throw this.#tooMany(`the limit is ${this.#limit}`);
  }

  /** @throws E_CALIBRATION where most rows are malformed and nobody allowed for that */
  finish(soundCount: number): void {
    if (this.#isDefault && this.#count > soundCount) throw this.#tooMany(`${soundCount} are sound`);
  }

  #tooMany(measure: string): ArrowQuantError {
    return new ArrowQuantError(
      "E_CALIBRATION",
      `${this.#count} rows of the calibration data are malformed, ${measure}: ${this.summary()}`,
      {
        hint: "mend the data, or allow more malformed rows",
        details: { rejected: this.#count, limit: this.#limit, rows: this.kept.slice(0, MAX_SHOWN) },
      },
    );
  }

  /** The first reasons, for a message. */
  summary(): string {
    const shown = this.kept
      .slice(0, MAX_SHOWN)
      .map(({ file, unit, row, reason }) => `"${file}", ${unit} ${row}: ${reason}`);
    const rest = this.#count - shown.length;
    return `${shown.join("; ")}${rest > 0 ? `; and ${rest} more` : ""}`;
  }
}
