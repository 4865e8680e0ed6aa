/** Numbers out of Arrow data that parquet-wasm has checked. Loads apache-arrow: import it where something is read. */
import { type Data, DataType, Precision, tableFromIPC, util, type Vector } from "apache-arrow";
import { type Cell, type Cells, MAX_RANK } from "./cell.js";

/** The rows of an Arrow IPC stream: cells by row index, and the columns whose types hold numbers. */
export interface ArrowRows {
  readonly rowCount: number;
  readonly numericColumns: readonly string[];
  cells(index: number): Cells;
}

export function decodeArrowRows(ipc: Uint8Array): ArrowRows {
  const table = tableFromIPC(ipc);
  const vectors = new Map<string, Vector>();
  for (const [index, { name }] of table.schema.fields.entries()) {
    // Of two columns of one name neither is the right one: both are left out below.
    if (vectors.has(name)) vectors.delete(name);
    else vectors.set(name, table.getChildAt(index) as Vector);
  }
  return {
    rowCount: table.numRows,
    numericColumns: [...vectors].filter(([, { type }]) => isNumeric(type)).map(([name]) => name),
    cells: (index) => (column) => {
      const vector = vectors.get(column);
      return vector === undefined ? "is missing" : readVector(vector, index);
    },
  };
}

function isNumeric(type: DataType): boolean {
  let inner = type;
  for (let rank = 0; rank <= MAX_RANK && isListType(inner); rank++)
    inner = (inner.children[0] as { type: DataType }).type;
  return DataType.isFloat(inner) || DataType.isInt(inner) || DataType.isBool(inner);
}

function isListType(type: DataType): type is DataType & { children: readonly { type: DataType }[] } {
  return DataType.isList(type) || DataType.isLargeList(type) || DataType.isFixedSizeList(type);
}

function readVector(vector: Vector, index: number): Cell | string {
  let at = index;
  for (const data of vector.data) {
    if (at < data.length) return readData(data, at);
    at -= data.length;
  }
  return "is missing";
}

/** Goes down from one row through the lists; the elements of a row lie side by side at every level. */
function readData(root: Data, index: number): Cell | string {
  let data = root;
  let from = index;
  let to = index + 1;
  const shape: number[] = [];
  while (isListType(data.type)) {
    if (shape.length === MAX_RANK) return `is nested deeper than ${MAX_RANK} lists`;
    if (hasNull(data, from, to)) return from === index && shape.length === 0 ? "is null" : "holds a null";
    const size = DataType.isFixedSizeList(data.type) ? data.type.listSize : listLength(data, from, to);
    if (typeof size === "string") return size;
    shape.push(size);
    [from, to] = DataType.isFixedSizeList(data.type)
      ? [from * size, to * size]
      : [offsetAt(data, from), offsetAt(data, to)];
    data = data.children[0] as Data;
  }
  if (hasNull(data, from, to)) return shape.length === 0 ? "is null" : "holds a null";
  const values = leafValues(data, from, to);
  return typeof values === "string" ? values : { values, shape };
}

function offsetAt(data: Data, index: number): number {
  // 64-bit offsets of large lists are in memory, so they are exact.
  return Number((data.valueOffsets as ArrayLike<number | bigint>)[index] ?? 0);
}

/** The length that all lists from `from` to `to` have; a text where they differ. */
function listLength(data: Data, from: number, to: number): number | string {
  if (from === to) return 0;
  const length = offsetAt(data, from + 1) - offsetAt(data, from);
  for (let index = from + 1; index < to; index++) {
    const other = offsetAt(data, index + 1) - offsetAt(data, index);
    if (other !== length) return `is ragged: a list of ${other} beside lists of ${length}`;
  }
  return length;
}

function hasNull(data: Data, from: number, to: number): boolean {
  if (data.nullCount === 0) return false;
  for (let index = from; index < to; index++) if (!data.getValid(index)) return true;
  return false;
}

function leafValues(data: Data, from: number, to: number): ArrayLike<number | bigint> | string {
  const { type } = data;
  if (DataType.isBool(type)) {
    const bits = data.values as Uint8Array;
    return Uint8Array.from({ length: to - from }, (_, index) => bitAt(bits, from + index));
  }
  if (!DataType.isFloat(type) && !DataType.isInt(type)) return `holds ${String(type)}, not numbers`;
  const values = (data.values as Float32Array).subarray(from, to);
  if (values.length !== to - from) return "ends before its values do";
  if (!DataType.isFloat(type) || type.precision !== Precision.HALF) return values;
  return Float32Array.from(values, util.uint16ToFloat64);
}

function bitAt(bits: Uint8Array, index: number): number {
  return ((bits[index >> 3] ?? 0) >> (index & 7)) & 1;
}
