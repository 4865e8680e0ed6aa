/**
 * The table's columns as Parquet sees them: a tree whose leaves are the stored columns, each with the
 * greatest repetition and definition level it can have, and the schema elements that a footer holds. Spec:
 * https://github.com/apache/parquet-format/blob/master/LogicalTypes.md (lists), Dremel (levels)
 */
import type { Column, ColumnType, ScalarType } from "./columns.js";
import { OPTIONAL, PHYSICAL_TYPES, type PhysicalType, REPEATED, REQUIRED } from "./footer.js";
import { THRIFT, ThriftWriter } from "./thrift.js";

const PHYSICAL: Readonly<Record<ScalarType, PhysicalType>> = {
  utf8: "byte_array",
  binary: "byte_array",
  bool: "boolean",
  int32: "int32",
  uint32: "int32",
  int64: "int64",
  float32: "float32",
  float64: "float64",
};

/** `converted_type` of a schema element. */
const CONVERTED_UTF8 = 0;
const CONVERTED_LIST = 3;
const CONVERTED_UINT32 = 13;

/** Members of the union `LogicalType`. */
const LOGICAL_STRING = 1;
const LOGICAL_LIST = 3;
const LOGICAL_INTEGER = 10;

/** Names that Parquet's three-level lists need; the child's is Arrow's. */
const LIST_GROUP = "list";
const LIST_CHILD = "item";

/** One stored column. */
export interface Leaf {
  readonly path: readonly string[];
  readonly type: ScalarType;
  readonly physicalType: number;
  readonly maxRepetition: number;
  readonly maxDefinition: number;
}

/** A node of the tree, with the leaves under it: `firstLeaf` inclusive, `endLeaf` exclusive. */
export interface SchemaNode {
  /** Property of the owner that holds the value; the child of a list has none. */
  readonly key: string;
  readonly nullable: boolean;
  /** Repetition level of what repeats here: a list's own, its parent's for the rest. */
  readonly repetition: number;
  readonly firstLeaf: number;
  readonly endLeaf: number;
  readonly type: ScalarType | "list" | "struct";
  readonly children: readonly SchemaNode[];
}

export interface ParquetSchema {
  readonly roots: readonly SchemaNode[];
  readonly leaves: readonly Leaf[];
  /** Encoded elements, the root's without. */
  readonly elements: readonly Uint8Array[];
}

interface ElementParts {
  readonly name: string;
  readonly repetition: number;
  readonly type: ScalarType | "list" | "group";
  readonly childCount: number;
}

function encodeElement({ name, repetition, type, childCount }: ElementParts): Uint8Array {
  const writer = new ThriftWriter();
  const annotate = (converted: number, logical: number, parameters: () => void): void => {
    writer.integer(6, THRIFT.int32, converted);
    writer.field(10, THRIFT.struct);
    writer.struct(() => {
      writer.field(logical, THRIFT.struct);
      writer.struct(parameters);
    });
  };
  writer.struct(() => {
    const isLeaf = type !== "list" && type !== "group";
    if (isLeaf) writer.integer(1, THRIFT.int32, PHYSICAL_TYPES.indexOf(PHYSICAL[type]));
    writer.integer(3, THRIFT.int32, repetition);
    writer.field(4, THRIFT.binary);
    writer.text(name);
    if (!isLeaf) writer.integer(5, THRIFT.int32, childCount);
    if (type === "utf8") annotate(CONVERTED_UTF8, LOGICAL_STRING, () => {});
    else if (type === "list") annotate(CONVERTED_LIST, LOGICAL_LIST, () => {});
    else if (type === "uint32") {
      annotate(CONVERTED_UINT32, LOGICAL_INTEGER, () => {
        writer.field(1, THRIFT.int8);
        writer.raw(Uint8Array.of(32));
        writer.field(2, THRIFT.false);
      });
    }
  });
  return writer.bytes.slice();
}

/** Builds the tree for a table of columns. */
export function buildSchema(columns: readonly Column[]): ParquetSchema {
  const leaves: Leaf[] = [];
  const elements: Uint8Array[] = [];

  const addNode = (
    column: Column,
    parentPath: readonly string[],
    parentRepetition: number,
    parentDefinition: number,
  ): SchemaNode => {
    const { name, key, nullable, type } = column;
    const path = [...parentPath, name];
    const ownRepetition = nullable ? OPTIONAL : REQUIRED;
    const definition = parentDefinition + (nullable ? 1 : 0);
    const firstLeaf = leaves.length;
    const finish = (kind: SchemaNode["type"], repetition: number, children: readonly SchemaNode[]): SchemaNode => ({
      key,
      nullable,
      repetition,
      firstLeaf,
      endLeaf: leaves.length,
      type: kind,
      children,
    });

    if (typeof type === "string") {
      elements.push(encodeElement({ name, repetition: ownRepetition, type, childCount: 0 }));
      const physicalType = PHYSICAL_TYPES.indexOf(PHYSICAL[type]);
      leaves.push({ path, type, physicalType, maxRepetition: parentRepetition, maxDefinition: definition });
      return finish(type, parentRepetition, []);
    }
    if ("list" in type) {
      const repetition = parentRepetition + 1;
      elements.push(
        encodeElement({ name, repetition: ownRepetition, type: "list", childCount: 1 }),
        encodeElement({ name: LIST_GROUP, repetition: REPEATED, type: "group", childCount: 1 }),
      );
      const child = listChild(type.list);
      return finish("list", repetition, [addNode(child, [...path, LIST_GROUP], repetition, definition + 1)]);
    }
    const childCount = type.struct.length;
    elements.push(encodeElement({ name, repetition: ownRepetition, type: "group", childCount }));
    const children = type.struct.map((child) => addNode(child, path, parentRepetition, definition));
    return finish("struct", parentRepetition, children);
  };

  const roots = columns.map((column) => addNode(column, [], 0, 0));
  return { roots, leaves, elements };
}

function listChild(type: ColumnType): Column {
  return { name: LIST_CHILD, key: "", type, nullable: false };
}
