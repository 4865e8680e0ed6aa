/** Which column of the data feeds which input of the graph. */
import { ArrowQuantError } from "../../errors.js";
import { type Cells, convertValues } from "./cell.js";
import type { InputRole, SampleInput, SampleSpec } from "./sample.js";
import { fitShape, showShape } from "./shape.js";

/**
 * Names that data sets give to what fills an input, the surest first. A noised sample comes before a clean one: a
 * data set that has both has the clean one as a target.
 */
const ROLE_COLUMNS: Readonly<Record<InputRole, readonly string[]>> = {
  sample: ["sample", "noisy_latents", "x", "latents", "latent", "hidden_states", "input"],
  time: ["timestep", "timesteps", "t", "time", "sigma"],
  classLabels: ["class_labels", "class_label", "labels", "label", "y", "class"],
  encoderStates: ["encoder_hidden_states", "prompt_embeds", "text_embeds", "context"],
  other: [],
};

export interface ColumnMatch {
  /** Name of the graph's input. */
  readonly input: string;
  readonly role: InputRole;
  readonly column: string;
  /** The input's own name, a usual name of its role, or the only column of its shape. */
  readonly by: "name" | "role" | "shape";
}

/** `encoderHiddenStates`, `encoder_hidden_states` and `Encoder-Hidden States` are one name. */
function plainName(name: string): string {
  return name.toLowerCase().replaceAll(/[^\p{L}\p{N}]/gu, "");
}

/**
 * Matches by name where that does it; what is left over is matched by shape, with `peek` giving some rows. An input
 * without axes is never matched by shape: any number, a row's own index too, would fit it.
 *
 * @throws E_CALIBRATION where an input has no column, or more than one that it could be
 */
export async function matchColumns(
  spec: SampleSpec,
  columns: readonly string[],
  file: string,
  peek: () => Promise<readonly Cells[]>,
): Promise<readonly ColumnMatch[]> {
  const matches = new Map<SampleInput, ColumnMatch>();
  const match = (input: SampleInput, column: string, by: ColumnMatch["by"]): void => {
    matches.set(input, { input: input.name, role: input.role, column, by });
  };
  const open = (): SampleInput[] => spec.inputs.filter((input) => !matches.has(input));
  const free = (): string[] => {
    const taken = new Set([...matches.values()].map(({ column }) => column));
    return columns.filter((column) => !taken.has(column));
  };
  // Every input's own name goes before any usual name: a column may be the one and look like the other.
  for (const input of open()) {
    if (columns.includes(input.name)) match(input, input.name, "name");
  }
  for (const input of open()) {
    const column = findNamed(input, input.name, free(), file);
    if (column !== null) match(input, column, "name");
  }
  for (const input of open()) {
    for (const name of ROLE_COLUMNS[input.role]) {
      const column = findNamed(input, name, free(), file);
      if (column === null) continue;
      match(input, column, "role");
      break;
    }
  }
  const shaped = open().filter(({ shape }) => shape.length > 0);
  if (shaped.length > 0) matchShapes(shaped, free(), await peek(), file, match);
  const [missing] = open();
  if (missing !== undefined) throw noColumn(missing, columns, file);
  return spec.inputs.map((input) => matches.get(input) as ColumnMatch);
}

function findNamed(input: SampleInput, name: string, columns: readonly string[], file: string): string | null {
  const found = columns.filter((column) => plainName(column) === plainName(name));
  if (found.length > 1) throw ambiguous(input, found, file);
  return found[0] ?? null;
}

function matchShapes(
  inputs: readonly SampleInput[],
  columns: readonly string[],
  rows: readonly Cells[],
  file: string,
  match: (input: SampleInput, column: string, by: "shape") => void,
): void {
  const fits = (input: SampleInput, column: string): boolean => rows.some((cells) => fitsInput(input, cells, column));
  const found = inputs.map((input) => ({ input, columns: columns.filter((column) => fits(input, column)) }));
  for (const { input, columns: fitting } of found) {
    const [column] = fitting;
    if (column === undefined) continue;
    const rivals = found.filter((other) => other.columns.includes(column));
    if (fitting.length > 1 || rivals.length > 1) throw ambiguous(input, fitting, file);
    match(input, column, "shape");
  }
}

function fitsInput(input: SampleInput, cells: Cells, column: string): boolean {
  const cell = cells(column);
  if (typeof cell === "string" || fitShape(cell.shape, input.shape, new Map()) === null) return false;
  return typeof convertValues(cell.values, input.dtype) !== "string";
}

function describeInput({ name, role, dtype, shape }: SampleInput): string {
  return `"${name}" (${role === "other" ? "" : `${role}, `}${dtype} ${showShape(shape)})`;
}

function noColumn(input: SampleInput, columns: readonly string[], file: string): ArrowQuantError {
  const message = `"${file}" has no column for the graph's input ${describeInput(input)}`;
  return new ArrowQuantError("E_CALIBRATION", message, {
    hint: `its columns of numbers are: ${columns.join(", ") || "none"}; rename the right one to ${input.name}`,
    details: { file, input: input.name, columns },
  });
}

function ambiguous(input: SampleInput, columns: readonly string[], file: string): ArrowQuantError {
  const message = `"${file}": the graph's input ${describeInput(input)} could be column ${columns.join(" or ")}`;
  return new ArrowQuantError("E_CALIBRATION", message, {
    hint: `rename the right one to ${input.name}`,
    details: { file, input: input.name, columns },
  });
}
