/** The graph's inputs as parts of a calibration sample, and batches of samples as what the runtime is fed. */
import { ArrowQuantError } from "../errors.js";
import { TensorProto_DataType } from "../formats/onnx/onnx-pb.js";
import type { GraphRoles } from "../graph/roles.js";
import { describeValue, type GraphValue } from "../graph/value.js";
import type { RunArray, RunTensor } from "../runtime/runtime.js";
import { DTYPES, type Dtype } from "../tensor/dtype.js";
import { toFloat16Bits } from "../tensor/float16.js";
import type { InputRole, SampleArray, SampleInput } from "./data/sample.js";

export interface GraphInput extends SampleInput {
  /** Whether its first axis is the batch; one value serves the whole batch where not. */
  readonly isBatched: boolean;
}

export interface GraphInputs {
  readonly inputs: readonly GraphInput[];
  /** Size of the batch where the graph fixes it. */
  readonly fixedBatch: number | null;
}

/** The inputs of one sample, as the spool gives them. */
export interface SampleInputs {
  readonly time: number;
  readonly inputs: ReadonlyMap<string, SampleArray>;
  readonly shapes: ReadonlyMap<string, readonly number[]>;
}

/** Types of inputs that the runtime can be fed, by `TensorProto.data_type`. */
const FED_TYPES: Readonly<Record<number, Dtype>> = {
  [TensorProto_DataType.FLOAT]: "F32",
  [TensorProto_DataType.DOUBLE]: "F64",
  [TensorProto_DataType.FLOAT16]: "F16",
  [TensorProto_DataType.INT64]: "I64",
  [TensorProto_DataType.INT32]: "I32",
  [TensorProto_DataType.UINT8]: "U8",
  [TensorProto_DataType.UINT16]: "U16",
  [TensorProto_DataType.BOOL]: "BOOL",
};

/**
 * The batch is the sample's first axis; another input has it where its first axis has the same size, or is as open.
 * Throws `E_GRAPH` for inputs of unknown rank or of a type that cannot be fed.
 */
export function describeInputs(values: readonly GraphValue[], roles: GraphRoles): GraphInputs {
  const batchAxis = values.find(({ name }) => name === roles.sample)?.shape?.[0];
  const fixedBatch = typeof batchAxis === "number" ? batchAxis : null;
  const inputs = values.map((value): GraphInput => {
    const { name, elemType, shape } = value;
    const dtype = FED_TYPES[elemType];
    if (shape === null || dtype === undefined) {
      throw new ArrowQuantError("E_GRAPH", `the graph's input ${describeValue(value)} cannot be fed`, {
        hint: `inputs need a rank and one of the types ${Object.values(FED_TYPES).join(", ")}`,
        details: { input: name, elemType, shape },
      });
    }
    const isBatched = name === roles.sample || isSameAxis(shape[0], batchAxis);
    const axes = shape.map((size, axis) => size ?? `${name}.${axis}`);
    return { role: roleOf(name, roles), name, dtype, shape: axes.slice(isBatched ? 1 : 0), isBatched };
  });
  return { inputs, fixedBatch };
}

type Axis = number | string | null | undefined;

/** Exporters name the batch of different inputs differently; an axis without a fixed size is one, though. */
function isSameAxis(axis: Axis, batchAxis: Axis): boolean {
  if (axis === undefined) return false;
  return typeof batchAxis === "number" ? axis === batchAxis : typeof axis !== "number";
}

function roleOf(name: string, roles: GraphRoles): InputRole {
  const named = (["sample", "time", "classLabels", "encoderStates"] as const).find((role) => roles[role] === name);
  return named ?? "other";
}

/** The time that the graph sees for one of the scheduler's: whole where its input is an integer, else a float32. */
export function timeAsFed(time: number, { inputs }: GraphInputs): number {
  const dtype = inputs.find(({ role }) => role === "time")?.dtype ?? "F32";
  return DTYPES[dtype].kind === "integer" ? Math.round(time) : Math.fround(time);
}

/**
 * What the runtime is fed for samples that share their layout and, where an input has no batch axis, its value.
 * @param rows size of the batch: the last sample is repeated where there are fewer
 */
export function feedBatch(
  { inputs }: GraphInputs,
  samples: readonly SampleInputs[],
  rows: number,
): Record<string, RunTensor> {
  const feeds: Record<string, RunTensor> = Object.create(null);
  const [first] = samples as readonly [SampleInputs];
  for (const input of inputs) {
    const shape = first.shapes.get(input.name) ?? [];
    const parts = input.isBatched
      ? Array.from({ length: rows }, (_, row) =>
          partOf(samples[Math.min(row, samples.length - 1)] as SampleInputs, input),
        )
      : [partOf(first, input)];
    feeds[input.name] = {
      dtype: input.dtype,
      shape: input.isBatched ? [rows, ...shape] : shape,
      data: joinParts(parts, input),
    };
  }
  return feeds;
}

function partOf({ inputs, time }: SampleInputs, { name, role }: GraphInput): SampleArray {
  const given = inputs.get(name) ?? (role === "time" ? Float32Array.of(time) : undefined);
  if (given !== undefined) return given;
  throw new ArrowQuantError("E_INTERNAL", `a calibration sample has nothing for input "${name}"`);
}

type Joiner = (parts: readonly SampleArray[], length: number) => RunArray;

function gather<T extends Float32Array | Int32Array | Float64Array>(into: T, parts: readonly SampleArray[]): T {
  let at = 0;
  for (const part of parts) {
    into.set(part as Float32Array, at);
    at += part.length;
  }
  return into;
}

/** How elements of samples become those of each type that the runtime takes. */
const JOINERS: Readonly<Partial<Record<Dtype, Joiner>>> = {
  F32: (parts, length) => gather(new Float32Array(length), parts),
  F64: (parts, length) => gather(new Float64Array(length), parts),
  F16: (parts, length) => toFloat16Bits(gather(new Float32Array(length), parts)),
  I32: (parts, length) => gather(new Int32Array(length), parts),
  I64: (parts, length) => {
    const joined = new BigInt64Array(length);
    let at = 0;
    for (const part of parts) {
      for (const value of part) joined[at++] = typeof value === "bigint" ? value : BigInt(Math.round(value));
    }
    return joined;
  },
  U8: (parts, length) => Uint8Array.from(gather(new Int32Array(length), parts)),
  BOOL: (parts, length) => Uint8Array.from(gather(new Int32Array(length), parts)),
  U16: (parts, length) => Uint16Array.from(gather(new Int32Array(length), parts)),
};

function joinParts(parts: readonly SampleArray[], { name, dtype }: GraphInput): RunArray {
  const join = JOINERS[dtype];
  if (join === undefined) {
    throw new ArrowQuantError("E_GRAPH", `input "${name}" is of type ${dtype}, which cannot be fed`, {
      details: { input: name, dtype },
    });
  }
  return join(
    parts,
    parts.reduce((sum, part) => sum + part.length, 0),
  );
}
