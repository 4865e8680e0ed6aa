/** Arrow IPC files and streams, record batch by record batch. */
import { ArrowQuantError } from "../../errors.js";
import { withParquetLibrary } from "../../formats/parquet/library.js";
import { readExactly } from "../../io/read.js";
import type { ArrowRows } from "./arrow-cell.js";
import { CONTINUATION } from "./arrow-header.js";
import { type ArrowMessages, type BatchPlace, findMessages, type MessagePlace } from "./arrow-messages.js";
import { type LocalFile, withLocalFile } from "./local-file.js";
import { asMalformed } from "./malformed.js";
import type { NextRow, Row, RowSource } from "./row-source.js";

/** Largest record batch, with the dictionaries, that is decoded; that takes four times as much. */
const MAX_BATCH_BYTES = 512 * 1024 * 1024;

/** The end of an IPC stream. */
const END_MARK = Buffer.alloc(8);
END_MARK.writeUInt32LE(CONTINUATION);

export async function openArrow(file: LocalFile, kind: "file" | "stream"): Promise<RowSource> {
  const messages = await withLocalFile(file, (open) => findMessages(open, kind));
  const { numericColumns } = await decode(file, messages, null);
  return {
    file: file.path,
    unit: "row",
    rowCount: messages.rowCount,
    columns: numericColumns,
    rows: (next) => readRows(file, messages, next),
  };
}

async function* readRows(file: LocalFile, messages: ArrowMessages, next: NextRow): AsyncGenerator<Row> {
  let wanted = next(0);
  for (const batch of messages.batches) {
    const end = batch.firstRow + batch.rowCount;
    if (wanted === null) return;
    if (wanted >= end) continue;
    const rows = await decode(file, messages, batch);
    while (wanted !== null && wanted < end) {
      yield { index: wanted, number: wanted, cells: rows.cells(wanted - batch.firstRow) };
      wanted = next(wanted + 1);
    }
  }
}

/** One batch, or none, as a stream of its own: what parquet-wasm can check, and apache-arrow then read. */
async function decode(file: LocalFile, messages: ArrowMessages, batch: BatchPlace | null): Promise<ArrowRows> {
  const { schema, dictionaries } = messages;
  const places: readonly MessagePlace[] =
    batch === null ? [] : [...dictionaries.slice(0, batch.dictionaryCount), batch];
  const what =
    batch === null ? `schema of "${file.path}"` : `"${file.path}", record batch from row ${batch.firstRow} on`;
  const byteLength = places.reduce((sum, place) => sum + place.byteLength, schema.length + END_MARK.length);
  if (byteLength > MAX_BATCH_BYTES) {
    throw new ArrowQuantError("E_LIMIT", `${what} has ${byteLength} bytes, the limit is ${MAX_BATCH_BYTES}`, {
      hint: "write the file again with fewer rows per record batch",
      details: { path: file.path, byteLength, limit: MAX_BATCH_BYTES },
    });
  }
  const stream = new Uint8Array(byteLength);
  stream.set(schema);
  stream.set(END_MARK, byteLength - END_MARK.length);
  await withLocalFile(file, async (open) => {
    let filled = schema.length;
    for (const place of places) {
      await readExactly(open, stream.subarray(filled, filled + place.byteLength), place.byteOffset);
      filled += place.byteLength;
    }
  });
  const { decodeArrowRows } = await import("./arrow-cell.js");
  const rows = asMalformed(() =>
    decodeArrowRows(withParquetLibrary(what, (library) => library.Table.fromIPCStream(stream).intoIPCStream())),
  );
  if (batch === null || rows.rowCount === batch.rowCount) return rows;
  throw new ArrowQuantError("E_CALIBRATION", `${what} has ${rows.rowCount} rows, its header says ${batch.rowCount}`, {
    details: { path: file.path, rowCount: rows.rowCount, expected: batch.rowCount },
  });
}
