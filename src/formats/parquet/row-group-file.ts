/**
 * One row group of a file as a Parquet file of its own, in memory: what parquet-wasm can decode
 * synchronously, so that its panics can be caught, without the other row groups and with the asked columns
 * only.
 *
 * The bulk of a native file, the column of packed codes, need not take that way: where its pages are plain,
 * its values are views of the pages. Through the library they would be copied several times.
 */
import { ArrowQuantError } from "../../errors.js";
import { type OpenFile, readExactly } from "../../io/read.js";
import {
  type ColumnChunk,
  chunkOffset,
  encodeFooter,
  type Footer,
  MAGIC,
  parseRowGroup,
  type TopLevelColumn,
  writeRowGroup,
} from "./footer.js";
import { checkPages, isPlain, splitBinaries } from "./pages.js";
import { ThriftWriter } from "./thrift.js";

/**
 * Largest row group that is decoded, stored and decoded bytes each. Files written here stay at 4 MiB or one
 * row; beyond this, decoding would need several GiB at once.
 */
const MAX_ROW_GROUP_BYTES = 512 * 1024 * 1024;

/** More rows than any model has tensors and chunks; a few bytes of a hostile file can claim any number. */
const MAX_ROW_GROUP_ROWS = 1024 * 1024;

/** Which columns of the file to take, in file order. */
function selectColumns(footer: Footer, names: ReadonlySet<string>): TopLevelColumn[] {
  return footer.columns.filter((column) => names.has(column.name));
}

function encodeSelection(
  footer: Footer,
  columns: readonly TopLevelColumn[],
  rowCount: number,
  rowGroups: readonly Uint8Array[],
): Uint8Array {
  return encodeFooter({
    version: footer.version,
    schemaElements: columns.flatMap(({ from, to }) => footer.schemaElements.slice(from, to)),
    columnCount: columns.length,
    leafCount: columns.reduce((sum, column) => sum + column.leafTypes.length, 0),
    rowCount,
    rowGroupCount: rowGroups.length,
    rowGroups: Buffer.concat(rowGroups),
    // Without the writer's Arrow schema, types are those that Parquet's own schema says.
    keyValues: new Map(),
    createdBy: footer.createdBy ?? "",
  });
}

/** A file of no rows, from which the library tells the types of the columns. */
export function buildSchemaFile(footer: Footer, names: ReadonlySet<string>): Uint8Array {
  return Buffer.concat([MAGIC, encodeSelection(footer, selectColumns(footer, names), 0, [])]);
}

/** Column that holds the codes. */
export const BULK_COLUMN = "data";

interface PlacedChunk {
  readonly chunk: ColumnChunk;
  /** Where its pages start in the file, and where in the file that is being built. */
  readonly source: number;
  readonly target: number;
}

function limitExceeded(what: string, quantity: string, found: number, limit: number): ArrowQuantError {
  return new ArrowQuantError("E_LIMIT", `${what} has ${found} ${quantity}, the limit is ${limit}`, {
    hint: "write the file again with smaller row groups, for instance one row each",
    details: { found, limit },
  });
}

/** Where a chunk starts in the file, which must hold all of it. */
function locateChunk(chunk: ColumnChunk, source: RowGroupSource, what: string): number {
  const start = chunkOffset(chunk);
  const end = start + chunk.compressedBytes;
  if (chunk.compressedBytes > MAX_ROW_GROUP_BYTES) {
    throw limitExceeded(what, "stored bytes", chunk.compressedBytes, MAX_ROW_GROUP_BYTES);
  }
  if (start >= MAGIC.length && end <= source.dataEnd) return start;
  const name = chunk.path.join(".");
  throw new ArrowQuantError(
    end > source.file.byteLength ? "E_TRUNCATED" : "E_NATIVE",
    `${what}: column "${name}" lies at bytes ${start} to ${end}, the file's pages end at ${source.dataEnd}`,
    { details: { column: name, start, end, dataEnd: source.dataEnd } },
  );
}

function placeChunks(
  chunks: readonly ColumnChunk[],
  source: RowGroupSource,
  what: string,
): { placed: PlacedChunk[]; end: number } {
  const placed: PlacedChunk[] = [];
  let end: number = MAGIC.length;
  for (const chunk of chunks) {
    placed.push({ chunk, source: locateChunk(chunk, source, what), target: end });
    end += chunk.compressedBytes;
    if (end > MAX_ROW_GROUP_BYTES) throw limitExceeded(what, "stored bytes", end, MAX_ROW_GROUP_BYTES);
  }
  return { placed, end };
}

/** Reads the chunks, those that lie side by side in one go. */
async function readChunks(file: OpenFile, placed: readonly PlacedChunk[], target: Uint8Array): Promise<void> {
  for (let first = 0; first < placed.length; ) {
    const { source, target: at } = placed[first] as PlacedChunk;
    let next = first;
    let byteLength = 0;
    while (placed[next]?.source === source + byteLength) {
      byteLength += (placed[next] as PlacedChunk).chunk.compressedBytes;
      next += 1;
    }
    await readExactly(file, target.subarray(at, at + byteLength), source);
    first = next;
  }
}

/** A file that is open while one of its row groups is read. */
export interface RowGroupSource {
  readonly file: OpenFile;
  readonly footer: Footer;
  /** Where the pages end and the footer starts. */
  readonly dataEnd: number;
}

/** A row group, read but not decoded. */
export interface RowGroupParts {
  /** A Parquet file of the columns that the library is to decode, in memory from `allocate`. */
  readonly file: Uint8Array;
  /** Values of the bulk column, in memory of their own; null where it is in `file` or was not asked for. */
  readonly bulkValues: readonly Uint8Array[] | null;
}

async function readBulk(
  column: TopLevelColumn,
  chunk: ColumnChunk,
  rowCount: number,
  source: RowGroupSource,
  what: string,
  allocate: (byteLength: number) => Uint8Array,
): Promise<Uint8Array[]> {
  const start = locateChunk(chunk, source, what);
  const pages = allocate(chunk.compressedBytes).subarray(0, chunk.compressedBytes);
  await readExactly(source.file, pages, start);
  const values = splitBinaries(pages, chunk, column.nullable, what);
  if (values.length !== rowCount) {
    throw new ArrowQuantError(
      "E_NATIVE",
      `${what}: column "${column.name}" has ${values.length} of ${rowCount} values`,
      {
        details: { column: column.name, valueCount: values.length, rowCount },
      },
    );
  }
  return values;
}

/**
 * Reads the columns `names` of row group `index`.
 * @param allocate gives at least so many bytes, with any content
 * @param allocateBulk the same for the values of the bulk column, which are views of what it gives
 * @throws E_NATIVE, E_TRUNCATED where the parts do not fit together, E_LIMIT where they are too large
 */
export async function readRowGroupParts(
  source: RowGroupSource,
  index: number,
  names: ReadonlySet<string>,
  allocate: (byteLength: number) => Uint8Array,
  allocateBulk: (byteLength: number) => Uint8Array,
): Promise<RowGroupParts> {
  const { file, footer } = source;
  const what = `"${file.path}", row group ${index}`;
  const { rowCount, chunks } = parseRowGroup(footer, index);
  if (rowCount > MAX_ROW_GROUP_ROWS) throw limitExceeded(what, "rows", rowCount, MAX_ROW_GROUP_ROWS);
  const asked = selectColumns(footer, names);
  const chunksOf = ({ firstLeaf, leafTypes }: TopLevelColumn): ColumnChunk[] =>
    chunks.slice(firstLeaf, firstLeaf + leafTypes.length);
  const bulk = asked.find((column) => column.name === BULK_COLUMN && chunksOf(column).every(isPlain));
  const bulkValues =
    bulk === undefined
      ? null
      : await readBulk(bulk, chunksOf(bulk)[0] as ColumnChunk, rowCount, source, what, allocateBulk);

  const columns = asked.filter((column) => column !== bulk);
  const { placed, end } = placeChunks(columns.flatMap(chunksOf), source, what);
  const rowGroup = new ThriftWriter();
  writeRowGroup(rowGroup, { rowCount, chunks: placed.map(moveChunk) });
  const tail = encodeSelection(footer, columns, rowCount, [rowGroup.bytes]);
  const bytes = allocate(end + tail.length).subarray(0, end + tail.length);
  bytes.set(MAGIC);
  bytes.set(tail, end);
  await readChunks(file, placed, bytes);
  let decodedBytes = 0;
  for (const { chunk, target } of placed) {
    decodedBytes += checkPages(bytes.subarray(target, target + chunk.compressedBytes), chunk, what);
  }
  if (decodedBytes > MAX_ROW_GROUP_BYTES) {
    throw limitExceeded(what, "decoded bytes", decodedBytes, MAX_ROW_GROUP_BYTES);
  }
  return { file: bytes, bulkValues };
}

/** The chunk as it will lie in the file that is built. */
function moveChunk({ chunk, source, target }: PlacedChunk): ColumnChunk {
  const { dataPageOffset, dictionaryPageOffset } = chunk;
  const hasDictionary = dictionaryPageOffset !== null && dictionaryPageOffset >= MAGIC.length;
  return {
    ...chunk,
    dataPageOffset: dataPageOffset - source + target,
    dictionaryPageOffset: hasDictionary ? dictionaryPageOffset - source + target : null,
  };
}
