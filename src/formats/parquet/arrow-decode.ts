/** Arrow data as rows. Loads apache-arrow, so it is imported only by what is about to read. */
import { DataType, type Field, Precision, tableFromIPC, type Vector } from "apache-arrow";
import { ArrowQuantError } from "../../errors.js";
import type { Column, ColumnType, ScalarType } from "./columns.js";

function isInt(type: DataType, bits: number, isSigned: boolean): boolean {
  return DataType.isInt(type) && type.bitWidth === bits && type.isSigned === isSigned;
}

function isFloat(type: DataType, precision: Precision): boolean {
  return DataType.isFloat(type) && type.precision === precision;
}

const SCALAR_CHECKS: Readonly<Record<ScalarType, (type: DataType) => boolean>> = {
  utf8: DataType.isUtf8,
  binary: DataType.isBinary,
  bool: DataType.isBool,
  int32: (type) => isInt(type, 32, true),
  uint32: (type) => isInt(type, 32, false),
  int64: (type) => isInt(type, 64, true),
  float32: (type) => isFloat(type, Precision.SINGLE),
  float64: (type) => isFloat(type, Precision.DOUBLE),
};

/** What kinds of file allow besides the table's types: plain V2 files may hold scales in float64. */
export interface TypeOptions {
  readonly allowFloat64Lists: boolean;
}

function matches(expected: ColumnType, found: DataType, options: TypeOptions): boolean {
  if (typeof expected === "string") return SCALAR_CHECKS[expected](found);
  if ("list" in expected) {
    if (!DataType.isList(found)) return false;
    const itemType = (found.children[0] as Field).type;
    if (expected.list === "float32" && options.allowFloat64Lists && isFloat(itemType, Precision.DOUBLE)) return true;
    return matches(expected.list, itemType, options);
  }
  if (!DataType.isStruct(found)) return false;
  return expected.struct.every(({ name, type }) => {
    const field = found.children.find((child) => child.name === name);
    return field !== undefined && matches(type, field.type, options);
  });
}

function describe(type: ColumnType): string {
  if (typeof type === "string") return type;
  if ("list" in type) return `list<${describe(type.list)}>`;
  return `struct<${type.struct.map((field) => `${field.name}: ${describe(field.type)}`).join(", ")}>`;
}

/**
 * Checks the types of a file's columns; names of list children and nullability are the writer's affair.
 * @param ipc an Arrow IPC stream with the file's schema
 * @throws E_NATIVE naming the first column that differs
 */
export function checkColumnTypes(
  ipc: Uint8Array,
  columns: readonly Column[],
  what: string,
  options: TypeOptions,
): void {
  const { schema } = tableFromIPC(ipc);
  for (const { name, type } of columns) {
    const field = schema.fields.find((candidate) => candidate.name === name);
    if (field !== undefined && matches(type, field.type, options)) continue;
    const found = field === undefined ? "missing" : String(field.type);
    throw new ArrowQuantError("E_NATIVE", `${what}: column "${name}" is ${found}, expected ${describe(type)}`, {
      details: { column: name, found, expected: describe(type) },
    });
  }
}

/** Value of one place of a column; null where there is none. */
type ValueReader = (index: number) => unknown;

/** Reads the columns of one batch; `what` names the file in errors. */
class ColumnReaders {
  readonly #what: string;

  constructor(what: string) {
    this.#what = what;
  }

  #fail(column: string, problem: string): never {
    throw new ArrowQuantError("E_NATIVE", `${this.#what}: column "${column}" ${problem}`, {
      details: { column },
    });
  }

  #number(value: bigint | null, column: string): number | null {
    if (value === null) return null;
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : this.#fail(column, `holds ${value}, which is beyond 2^53 - 1`);
  }

  #floats(list: Vector | null, column: string): Float32Array | null {
    if (list === null) return null;
    if (list.nullCount > 0) this.#fail(column, "holds a list with nulls");
    const values: unknown = list.toArray();
    return values instanceof Float32Array ? values : Float32Array.from(values as Float64Array);
  }

  #reader(type: ColumnType, vector: Vector, column: string): ValueReader {
    if (type === "int64") return (index) => this.#number(vector.get(index) as bigint | null, column);
    if (typeof type === "string") return (index) => vector.get(index) as unknown;
    if ("list" in type) {
      const itemType = type.list;
      if (itemType === "float32") return (index) => this.#floats(vector.get(index) as Vector | null, column);
      return (index) => {
        const list = vector.get(index) as Vector | null;
        return list === null ? null : this.#items(itemType, list, column);
      };
    }
    const readFields = this.fields(type.struct, (name) => vector.getChild(name), `${column}.`);
    return (index) => (vector.isValid(index) ? readFields(index) : null);
  }

  #items(itemType: ColumnType, list: Vector, column: string): unknown[] {
    const read = this.#reader(itemType, list, column);
    return Array.from(
      { length: list.length },
      (_, index) => read(index) ?? this.#fail(column, "holds a list with nulls"),
    );
  }

  /** Reads one place of several columns as an object with their keys. */
  fields(
    columns: readonly Column[],
    child: (name: string) => Vector | null,
    prefix: string,
  ): (index: number) => Record<string, unknown> {
    const readers = columns.map((column) => {
      const name = prefix + column.name;
      const vector = child(column.name) ?? this.#fail(name, "is missing");
      return { ...column, name, read: this.#reader(column.type, vector, name) };
    });
    return (index) => {
      const values: Record<string, unknown> = {};
      for (const { name, key, nullable, read } of readers) {
        const value = read(index);
        if (value === null && !nullable) this.#fail(name, `is null in row ${index}`);
        values[key] = value;
      }
      return values;
    };
  }
}

/**
 * Reads the rows of an Arrow IPC stream as objects with the columns' keys. Binaries and float32 lists are
 * views of the stream's bytes.
 * @throws E_NATIVE where a required value is null or an integer is beyond 2^53
 */
export function decodeIpc(ipc: Uint8Array, columns: readonly Column[], what: string): Record<string, unknown>[] {
  const table = tableFromIPC(ipc);
  const readRow = new ColumnReaders(what).fields(columns, (name) => table.getChild(name), "");
  return Array.from({ length: table.numRows }, (_, index) => readRow(index));
}
