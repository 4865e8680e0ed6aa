/** Parquet files of any schema, row group by row group, through parquet-wasm. */
import { ArrowQuantError } from "../../errors.js";
import { type Footer, type PhysicalType, parseRowGroup } from "../../formats/parquet/footer.js";
import { withParquetLibrary } from "../../formats/parquet/library.js";
import { type FooterPlace, readFooter } from "../../formats/parquet/reader.js";
import { readRowGroupParts } from "../../formats/parquet/row-group-file.js";
import type { ArrowRows } from "./arrow-cell.js";
import { type LocalFile, withLocalFile } from "./local-file.js";
import { asMalformed, renameError } from "./malformed.js";
import type { NextRow, Row, RowSource } from "./row-source.js";

/** Stored types that may hold numbers; float16 is stored as two bytes. */
const NUMERIC_TYPES: ReadonlySet<PhysicalType> = new Set<PhysicalType>([
  "boolean",
  "int32",
  "int64",
  "float32",
  "float64",
  "fixed_len_byte_array",
]);

export async function openParquet(file: LocalFile): Promise<RowSource> {
  const place = await withLocalFile(file, readFooter).catch((thrown) => {
    throw renameError(thrown);
  });
  const { footer } = place;
  const rowCounts = asMalformed(() =>
    footer.rowGroupPositions.map((_, index) => parseRowGroup(footer, index).rowCount),
  );
  return {
    file: file.path,
    unit: "row",
    rowCount: rowCounts.reduce((sum, count) => sum + count, 0),
    columns: numericColumns(footer),
    rows: (next, columns) => readRows(file, place, rowCounts, next, new Set(columns)),
  };
}

/** Names that stand once in the file and hold one leaf of a type for numbers. */
function numericColumns({ columns }: Footer): string[] {
  const names = columns.map(({ name }) => name);
  return columns
    .filter(({ name, leafTypes: [type, ...others] }) => {
      const isNumeric = type !== undefined && others.length === 0 && NUMERIC_TYPES.has(type);
      return isNumeric && names.indexOf(name) === names.lastIndexOf(name);
    })
    .map(({ name }) => name);
}

async function* readRows(
  file: LocalFile,
  place: FooterPlace,
  rowCounts: readonly number[],
  next: NextRow,
  columns: ReadonlySet<string>,
): AsyncGenerator<Row> {
  let wanted = next(0);
  let firstRow = 0;
  for (const [rowGroup, rowCount] of rowCounts.entries()) {
    const end = firstRow + rowCount;
    if (wanted === null) return;
    if (wanted < end) {
      const rows = await decode(file, place, rowGroup, rowCount, columns);
      while (wanted !== null && wanted < end) {
        yield { index: wanted, number: wanted, cells: rows.cells(wanted - firstRow) };
        wanted = next(wanted + 1);
      }
    }
    firstRow = end;
  }
}

async function decode(
  file: LocalFile,
  { footer, dataEnd }: FooterPlace,
  rowGroup: number,
  rowCount: number,
  columns: ReadonlySet<string>,
): Promise<ArrowRows> {
  const what = `"${file.path}", row group ${rowGroup}`;
  const allocate = (byteLength: number): Uint8Array => new Uint8Array(byteLength);
  const parts = await withLocalFile(file, (open) =>
    readRowGroupParts({ file: open, footer, dataEnd }, rowGroup, columns, allocate, allocate),
  ).catch((thrown) => {
    throw renameError(thrown);
  });
  const { decodeArrowRows } = await import("./arrow-cell.js");
  // `intoIPCStream` consumes the table, which so needs no freeing.
  const rows = asMalformed(() =>
    decodeArrowRows(withParquetLibrary(what, (library) => library.readParquet(parts.file).intoIPCStream())),
  );
  if (rows.rowCount === rowCount) return rows;
  throw new ArrowQuantError("E_CALIBRATION", `${what} has ${rows.rowCount} rows, its footer says ${rowCount}`, {
    details: { path: file.path, rowGroup, rowCount: rows.rowCount, expected: rowCount },
  });
}
