/**
 * Parquet's footer: what is in the file and where.
 * Spec: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
 *
 * Row groups are located at once but parsed one by one, so that a footer of many stays a buffer, not objects.
 */
import { THRIFT, ThriftReader, ThriftWriter } from "./thrift.js";

/** First and last four bytes of every Parquet file. */
export const MAGIC = Uint8Array.from([0x50, 0x41, 0x52, 0x31]);

/** Bytes after the footer: its length as uint32, then the magic. */
export const TRAILER_BYTES = 8;

/** `type` of a leaf in the schema and of its chunks. */
export const PHYSICAL_TYPES = [
  "boolean",
  "int32",
  "int64",
  "int96",
  "float32",
  "float64",
  "byte_array",
  "fixed_len_byte_array",
] as const;
export type PhysicalType = (typeof PHYSICAL_TYPES)[number];

/** `repetition_type` of a schema element. */
export const REQUIRED = 0;
export const OPTIONAL = 1;
export const REPEATED = 2;

/** `codec` of a chunk whose pages lie in the file as they are. */
export const UNCOMPRESSED = 0;

/** One column of the table with everything under it. */
export interface TopLevelColumn {
  readonly name: string;
  /**
   * Elements of the schema that describe it, in `Footer.schemaElements`: `from` inclusive, `to` exclusive.
   */
  readonly from: number;
  readonly to: number;
  /** Its leaves among the chunks of a row group. */
  readonly firstLeaf: number;
  readonly leafTypes: readonly PhysicalType[];
  /** Whether the column itself may be null. */
  readonly nullable: boolean;
}

export interface Footer {
  readonly version: number;
  readonly createdBy: string | null;
  readonly rowCount: number;
  readonly keyValues: ReadonlyMap<string, string>;
  /** Encoded elements of the schema without its root, in file order. */
  readonly schemaElements: readonly Uint8Array[];
  readonly columns: readonly TopLevelColumn[];
  /** Where each row group starts in `bytes`. */
  readonly rowGroupPositions: readonly number[];
  readonly bytes: Uint8Array;
  readonly what: string;
}

/** One column's pages in one row group. */
export interface ColumnChunk {
  readonly type: number;
  readonly encodings: readonly number[];
  readonly path: readonly string[];
  readonly codec: number;
  readonly valueCount: number;
  readonly uncompressedBytes: number;
  readonly compressedBytes: number;
  readonly dataPageOffset: number;
  readonly dictionaryPageOffset: number | null;
}

export interface RowGroup {
  readonly rowCount: number;
  readonly chunks: readonly ColumnChunk[];
}

/** Where a chunk's pages start in the file. */
export function chunkOffset(chunk: ColumnChunk): number {
  const { dataPageOffset, dictionaryPageOffset } = chunk;
  // Some writers put 0 where there is no dictionary page; nothing can start inside the magic.
  if (dictionaryPageOffset === null || dictionaryPageOffset < MAGIC.length) return dataPageOffset;
  return Math.min(dataPageOffset, dictionaryPageOffset);
}

interface SchemaElement {
  readonly name: string;
  readonly type: PhysicalType | null;
  readonly childCount: number;
  readonly repetition: number;
  readonly bytes: Uint8Array;
}

function readSchemaElement(reader: ThriftReader, bytes: Uint8Array): SchemaElement {
  const start = reader.position;
  let name = "";
  let type: PhysicalType | null = null;
  let childCount = 0;
  let repetition = REQUIRED;
  reader.struct((id, fieldType) => {
    if (id === 1 && fieldType === THRIFT.int32) {
      const code = reader.count();
      type = PHYSICAL_TYPES[code] ?? reader.fail(`physical type ${code} is unknown`);
    } else if (id === 3 && fieldType === THRIFT.int32) repetition = reader.count();
    else if (id === 4 && fieldType === THRIFT.binary) name = reader.string();
    else if (id === 5 && fieldType === THRIFT.int32) childCount = reader.count();
    else return false;
    return true;
  });
  return { name, type, childCount, repetition, bytes: bytes.subarray(start, reader.position) };
}

/** The schema is a tree in depth-first order; its root's children are the columns. */
function findColumns(reader: ThriftReader, elements: readonly SchemaElement[]): TopLevelColumn[] {
  const columns: TopLevelColumn[] = [];
  let next = 0;
  let leafCount = 0;
  while (next < elements.length) {
    const from = next;
    const leafTypes: PhysicalType[] = [];
    for (let pending = 1; pending > 0; pending--) {
      const element = elements[next] ?? reader.fail("the schema names more fields than it has");
      next += 1;
      pending += element.childCount;
      if (element.childCount === 0) {
        leafTypes.push(element.type ?? reader.fail(`schema field "${element.name}" has no type`));
      }
    }
    const { name, repetition } = elements[from] as SchemaElement;
    if (repetition === REPEATED) reader.fail(`column "${name}" repeats without being a list`);
    columns.push({
      name,
      from,
      to: next,
      firstLeaf: leafCount,
      leafTypes,
      nullable: repetition === OPTIONAL,
    });
    leafCount += leafTypes.length;
  }
  return columns;
}

function readKeyValue(reader: ThriftReader, keyValues: Map<string, string>): void {
  let key = "";
  let value = "";
  reader.struct((id, type) => {
    if (type !== THRIFT.binary) return false;
    if (id === 1) key = reader.string();
    else if (id === 2) value = reader.string();
    else return false;
    return true;
  });
  keyValues.set(key, value);
}

/**
 * @param bytes the footer alone, without its length and magic; kept, not copied.
 * @param what names it in errors.
 * @throws E_NATIVE where it is malformed.
 */
export function parseFooter(bytes: Uint8Array, what: string): Footer {
  const reader = new ThriftReader(bytes, what);
  let version = 0;
  let createdBy: string | null = null;
  let rowCount = -1;
  const keyValues = new Map<string, string>();
  const elements: SchemaElement[] = [];
  const rowGroupPositions: number[] = [];
  reader.struct((id, type) => {
    if (id === 1 && type === THRIFT.int32) version = reader.integer();
    else if (id === 2 && type === THRIFT.list) {
      const length = reader.list(THRIFT.struct);
      for (let index = 0; index < length; index++) elements.push(readSchemaElement(reader, bytes));
    } else if (id === 3 && type === THRIFT.int64) rowCount = reader.count();
    else if (id === 4 && type === THRIFT.list) {
      const length = reader.list(THRIFT.struct);
      for (let index = 0; index < length; index++) {
        rowGroupPositions.push(reader.position);
        reader.skip(THRIFT.struct);
      }
    } else if (id === 5 && type === THRIFT.list) {
      const length = reader.list(THRIFT.struct);
      for (let index = 0; index < length; index++) readKeyValue(reader, keyValues);
    } else if (id === 6 && type === THRIFT.binary) createdBy = reader.string();
    else if (id === 8) reader.fail("the file is encrypted");
    else return false;
    return true;
  });
  const [root = reader.fail("the schema is missing"), ...fields] = elements;
  if (rowCount < 0) reader.fail("the row count is missing");
  const columns = findColumns(reader, fields);
  if (columns.length !== root.childCount) {
    reader.fail(`the schema has ${columns.length} columns, its root says ${root.childCount}`);
  }
  const schemaElements = fields.map((element) => element.bytes);
  return { version, createdBy, rowCount, keyValues, schemaElements, columns, rowGroupPositions, bytes, what };
}

function readColumnMetaData(reader: ThriftReader): ColumnChunk {
  const path: string[] = [];
  const encodings: number[] = [];
  const numbers = new Map<number, number>();
  reader.struct((id, type) => {
    if (id === 2 && type === THRIFT.list) {
      const length = reader.list(THRIFT.int32);
      for (let index = 0; index < length; index++) encodings.push(reader.count());
    } else if (id === 3 && type === THRIFT.list) {
      const length = reader.list(THRIFT.binary);
      for (let index = 0; index < length; index++) path.push(reader.string());
    } else if (type === THRIFT.int32 || type === THRIFT.int64) {
      if (id > 11) return false;
      numbers.set(id, reader.count());
    } else return false;
    return true;
  });
  const required = (id: number, name: string): number =>
    numbers.get(id) ?? reader.fail(`column "${path.join(".")}" has no ${name}`);
  return {
    path,
    encodings,
    type: required(1, "type"),
    codec: required(4, "codec"),
    valueCount: required(5, "value count"),
    uncompressedBytes: required(6, "uncompressed size"),
    compressedBytes: required(7, "compressed size"),
    dataPageOffset: required(9, "data page offset"),
    dictionaryPageOffset: numbers.get(11) ?? null,
  };
}

function readColumnChunk(reader: ThriftReader): ColumnChunk {
  const chunks: ColumnChunk[] = [];
  reader.struct((id, type) => {
    if (id === 1) reader.fail("a column lies in another file");
    if (id !== 3 || type !== THRIFT.struct) return false;
    chunks.push(readColumnMetaData(reader));
    return true;
  });
  return chunks[0] ?? reader.fail("a column has no metadata");
}

/** @throws E_NATIVE where the row group's description is malformed. */
export function parseRowGroup(footer: Footer, index: number): RowGroup {
  const position = footer.rowGroupPositions[index];
  if (position === undefined) throw new RangeError(`row group ${index} of ${footer.rowGroupPositions.length}`);
  const reader = new ThriftReader(footer.bytes, `${footer.what}, row group ${index}`, position);
  const chunks: ColumnChunk[] = [];
  let rowCount = -1;
  reader.struct((id, type) => {
    if (id === 1 && type === THRIFT.list) {
      const length = reader.list(THRIFT.struct);
      for (let column = 0; column < length; column++) chunks.push(readColumnChunk(reader));
    } else if (id === 3 && type === THRIFT.int64) rowCount = reader.count();
    else return false;
    return true;
  });
  if (rowCount < 0) reader.fail("the row count is missing");
  const leafTypes = footer.columns.flatMap((column) => column.leafTypes);
  if (chunks.length !== leafTypes.length) {
    reader.fail(`the row group has ${chunks.length} column chunks, the schema ${leafTypes.length} leaves`);
  }
  for (const [leaf, chunk] of chunks.entries()) {
    const [expected, found] = [leafTypes[leaf], PHYSICAL_TYPES[chunk.type]];
    if (expected !== found) {
      reader.fail(`column "${chunk.path.join(".")}" holds ${found ?? chunk.type}, the schema says ${expected}`);
    }
  }
  return { rowCount, chunks };
}

function writeColumnChunk(writer: ThriftWriter, chunk: ColumnChunk): void {
  writer.struct(() => {
    // file_offset, deprecated: 0 as parquet-rs writes it.
    writer.integer(2, THRIFT.int64, 0);
    writer.field(3, THRIFT.struct);
    writer.struct(() => {
      writer.integer(1, THRIFT.int32, chunk.type);
      writer.field(2, THRIFT.list);
      writer.list(THRIFT.int32, chunk.encodings.length);
      for (const encoding of chunk.encodings) writer.element(encoding);
      writer.field(3, THRIFT.list);
      writer.list(THRIFT.binary, chunk.path.length);
      for (const part of chunk.path) writer.text(part);
      writer.integer(4, THRIFT.int32, chunk.codec);
      writer.integer(5, THRIFT.int64, chunk.valueCount);
      writer.integer(6, THRIFT.int64, chunk.uncompressedBytes);
      writer.integer(7, THRIFT.int64, chunk.compressedBytes);
      writer.integer(9, THRIFT.int64, chunk.dataPageOffset);
      if (chunk.dictionaryPageOffset !== null) writer.integer(11, THRIFT.int64, chunk.dictionaryPageOffset);
    });
  });
}

export function writeRowGroup(writer: ThriftWriter, rowGroup: RowGroup): void {
  const { chunks, rowCount } = rowGroup;
  const first = chunks[0];
  writer.struct(() => {
    writer.field(1, THRIFT.list);
    writer.list(THRIFT.struct, chunks.length);
    for (const chunk of chunks) writeColumnChunk(writer, chunk);
    const uncompressedBytes = chunks.reduce((sum, chunk) => sum + chunk.uncompressedBytes, 0);
    writer.integer(2, THRIFT.int64, uncompressedBytes);
    writer.integer(3, THRIFT.int64, rowCount);
    if (first !== undefined) writer.integer(5, THRIFT.int64, chunkOffset(first));
    const compressedBytes = chunks.reduce((sum, chunk) => sum + chunk.compressedBytes, 0);
    writer.integer(6, THRIFT.int64, compressedBytes);
  });
}

export interface FooterParts {
  readonly version: number;
  /** Encoded elements of the schema without its root. */
  readonly schemaElements: readonly Uint8Array[];
  readonly columnCount: number;
  readonly leafCount: number;
  readonly rowCount: number;
  readonly rowGroupCount: number;
  /** The row groups, each written by `writeRowGroup`, end to end. */
  readonly rowGroups: Uint8Array;
  readonly keyValues: ReadonlyMap<string, string>;
  readonly createdBy: string;
}

/** The footer with its length and the closing magic: everything after the last page of a file. */
export function encodeFooter(parts: FooterParts): Uint8Array {
  const writer = new ThriftWriter();
  writer.struct(() => {
    writer.integer(1, THRIFT.int32, parts.version);
    writer.field(2, THRIFT.list);
    writer.list(THRIFT.struct, parts.schemaElements.length + 1);
    writer.struct(() => {
      writer.field(4, THRIFT.binary);
      writer.text("schema");
      writer.integer(5, THRIFT.int32, parts.columnCount);
    });
    for (const element of parts.schemaElements) writer.raw(element);
    writer.integer(3, THRIFT.int64, parts.rowCount);
    writer.field(4, THRIFT.list);
    writer.list(THRIFT.struct, parts.rowGroupCount);
    writer.raw(parts.rowGroups);
    writer.field(5, THRIFT.list);
    writer.list(THRIFT.struct, parts.keyValues.size);
    for (const [key, value] of parts.keyValues) {
      writer.struct(() => {
        writer.field(1, THRIFT.binary);
        writer.text(key);
        writer.field(2, THRIFT.binary);
        writer.text(value);
      });
    }
    writer.field(6, THRIFT.binary);
    writer.text(parts.createdBy);
    // column_orders: every leaf in the order its type defines.
    writer.field(7, THRIFT.list);
    writer.list(THRIFT.struct, parts.leafCount);
    for (let leaf = 0; leaf < parts.leafCount; leaf++) {
      writer.struct(() => {
        writer.field(1, THRIFT.struct);
        writer.struct(() => {});
      });
    }
  });
  const footerLength = writer.bytes.length;
  const trailer = new Uint8Array(TRAILER_BYTES);
  new DataView(trailer.buffer).setUint32(0, footerLength, true);
  trailer.set(MAGIC, 4);
  writer.raw(trailer);
  return writer.bytes;
}
