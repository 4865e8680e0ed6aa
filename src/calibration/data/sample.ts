/** What a calibration sample is: one value for every input of the graph, without the batch axis. */
import type { Dtype } from "../../tensor/dtype.js";

export type InputRole = "sample" | "time" | "classLabels" | "encoderStates" | "other";

export interface SampleInput {
  readonly role: InputRole;
  /** Name of the graph's input. */
  readonly name: string;
  readonly dtype: Dtype;
  /** Without the batch axis; a text is an axis of any size, the same within a sample wherever its name stands. */
  readonly shape: readonly (number | string)[];
}

export interface SampleSpec {
  readonly inputs: readonly SampleInput[];
}

/** Float inputs are float32, 64-bit integers BigInt64Array, all other integers and booleans Int32Array. */
export type SampleArray = Float32Array | BigInt64Array | Int32Array;

export interface CalibrationSample {
  /** First element of the time input, in the scheduler's own units. */
  readonly time: number;
  /** By name of the graph's input; each array owns its memory. */
  readonly inputs: ReadonlyMap<string, SampleArray>;
  readonly shapes: ReadonlyMap<string, readonly number[]>;
}
