/** Inputs and outputs of a graph as it declares them. */
import { quoteName } from "../formats/json.js";
import { TensorProto_DataType, type ValueInfoProto } from "../formats/onnx/onnx-pb.js";
import type { OnnxFile } from "../formats/onnx/read.js";

export interface GraphValue {
  readonly name: string;
  /** A number of `TensorProto_DataType`; 0 where the graph does not say. */
  readonly elemType: number;
  /** null: of any rank. An axis: its size, its symbolic name, or null. */
  readonly shape: readonly (number | string | null)[] | null;
}

const FLOAT_TYPES: readonly number[] = [
  TensorProto_DataType.FLOAT,
  TensorProto_DataType.FLOAT16,
  TensorProto_DataType.BFLOAT16,
  TensorProto_DataType.DOUBLE,
];

const INTEGER_TYPES: readonly number[] = [TensorProto_DataType.INT64, TensorProto_DataType.INT32];

const TYPE_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(TensorProto_DataType).map(([name, type]) => [type, name.toLowerCase()]),
);

/** What has to be fed: before IR version 4 initializers are listed among the inputs too, as values that may be. */
export function listInputs(file: OnnxFile): GraphValue[] {
  const { input = [], initializer = [] } = file.model.graph ?? {};
  const initialized = new Set(initializer.map(({ name }) => name));
  return input.filter(({ name }) => !initialized.has(name)).map(readValue);
}

export function listOutputs(file: OnnxFile): GraphValue[] {
  return (file.model.graph?.output ?? []).map(readValue);
}

function readValue({ name, type }: ValueInfoProto): GraphValue {
  if (type?.value.case !== "tensorType") return { name, elemType: TensorProto_DataType.UNDEFINED, shape: null };
  const { elemType, shape } = type.value.value;
  const axes = shape?.dim.map(({ value }) =>
    value.case === "dimValue" ? Number(value.value) : value.case === "dimParam" ? value.value : null,
  );
  return { name, elemType, shape: axes ?? null };
}

export function isFloatValue({ elemType }: GraphValue): boolean {
  return FLOAT_TYPES.includes(elemType);
}

export function isIntegerValue({ elemType }: GraphValue): boolean {
  return INTEGER_TYPES.includes(elemType);
}

/** Whether two shapes are of one rank and differ in no axis that both fix. */
export function canShareShape(a: GraphValue, b: GraphValue): boolean {
  if (a.shape === null || b.shape === null || a.shape.length !== b.shape.length) return false;
  return a.shape.every((size, axis) => {
    const other = b.shape?.[axis];
    return typeof size !== "number" || typeof other !== "number" || size === other;
  });
}

/** `"sample" (float [batch,1,16,16])`. */
export function describeValue({ name, elemType, shape }: GraphValue): string {
  const type = TYPE_NAMES.get(elemType) ?? `type ${elemType}`;
  return `${quoteName(name)} (${type} ${shape === null ? "of any rank" : `[${shape.map((size) => size ?? "?").join(",")}]`})`;
}
