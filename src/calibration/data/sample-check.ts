/** A row of the data as a sample, or what is wrong with it. */
import { ArrowQuantError } from "../../errors.js";
import { type Cells, convertValues } from "./cell.js";
import type { ColumnMatch } from "./columns.js";
import type { CalibrationSample, SampleArray, SampleInput, SampleSpec } from "./sample.js";
import { type AxisSizes, fitShape, showShape } from "./shape.js";

/** Times that the model was trained on: `start` inclusive, `end` exclusive. */
export interface TimeRange {
  readonly start: number;
  readonly end: number;
}

/** Checks one row after another; a text is the reason why a row is no sample. */
export type SampleCheck = (cells: Cells | string) => CalibrationSample | string;

/** @param range null: any time is taken */
export function createCheck(spec: SampleSpec, columns: readonly ColumnMatch[], range: TimeRange | null): SampleCheck {
  const pairs = spec.inputs.map((input, index) => ({ input, column: (columns[index] as ColumnMatch).column }));
  const time = spec.inputs.find(({ role }) => role === "time");
  if (time === undefined) throw new ArrowQuantError("E_INTERNAL", "the graph's inputs have none for the time");
  return (cells) => {
    if (typeof cells === "string") return cells;
    const inputs = new Map<string, SampleArray>();
    const shapes = new Map<string, readonly number[]>();
    const sizes: AxisSizes = new Map();
    for (const { input, column } of pairs) {
      const problem = fillInput(input, cells(column), sizes, inputs, shapes);
      if (problem !== null) return `column "${column}" ${problem}`;
    }
    const value = Number((inputs.get(time.name) as SampleArray)[0]);
    if (range !== null && !(value >= range.start && value < range.end)) {
      return `time ${value} lies outside the scheduler's range, ${range.start} to below ${range.end}`;
    }
    return { time: value, inputs, shapes };
  };
}

function fillInput(
  input: SampleInput,
  cell: ReturnType<Cells>,
  sizes: AxisSizes,
  inputs: Map<string, SampleArray>,
  shapes: Map<string, readonly number[]>,
): string | null {
  if (typeof cell === "string") return cell;
  const shape = fitShape(cell.shape, input.shape, sizes);
  if (shape === null) return `has shape ${showShape(cell.shape)}, "${input.name}" needs ${showShape(input.shape)}`;
  const values = convertValues(cell.values, input.dtype);
  if (typeof values === "string") return values;
  if (values.length === 0) return "is empty";
  inputs.set(input.name, values);
  shapes.set(input.name, shape);
  return null;
}
