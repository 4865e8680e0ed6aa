/** JSON lines: one object per line, its keys the columns; blank lines are no rows. */
import { ArrowQuantError } from "../../errors.js";
import { type Cell, type Cells, jsonCell } from "./cell.js";
import { splitLines } from "./lines.js";
import { type LocalFile, readChunks } from "./local-file.js";
import type { NextRow, Row, RowSource } from "./row-source.js";

/**
 * Longest line that is parsed. A sample of 2.4 million numbers (the latents and text states of a 12-billion model) in
 * 20 digits each fits; what JSON.parse makes of a line this long stays within V8's default heap.
 */
export const MAX_LINE_BYTES = 64 * 1024 * 1024;

/**
 * In a line longer than this, lists and objects are counted before it is parsed: each takes up to 50 bytes. A sample
 * has one list for each row of pixels or tokens.
 */
const SMALL_LINE_BYTES = 1024 * 1024;
const MAX_CONTAINERS = 256 * 1024;
/** Brackets and braces. */
const OPENINGS: readonly number[] = [0x5b, 0x7b];

/** A file up to this size is read through once, to know how many rows it has and to take some evenly from all over. */
export const COUNTED_BYTES = 256 * 1024 * 1024;

/** Keys of so many rows make the columns: later rows that lack one of them are malformed, not the file. */
const COLUMN_ROWS = 16;

const MAX_REASON_LENGTH = 200;

/** Where the bytes of a JSONL file come from; each call starts at its beginning. */
export interface LineBytes {
  readonly file: string;
  readonly chunks: () => AsyncIterable<Uint8Array>;
}

export async function openJsonl(file: LocalFile, signal: AbortSignal): Promise<RowSource> {
  const bytes = { file: file.path, chunks: () => readChunks(file, signal) };
  return openJsonlBytes(bytes, file.byteLength <= COUNTED_BYTES ? await countRows(bytes) : null);
}

/** @param rowCount null where it is not known */
export async function openJsonlBytes(bytes: LineBytes, rowCount: number | null): Promise<RowSource> {
  const columns = new Set<string>();
  const problems: string[] = [];
  for await (const row of readRows(bytes, (from) => (from < COLUMN_ROWS ? from : null))) {
    if (row.object !== null) for (const key of Object.keys(row.object)) columns.add(key);
    else problems.push(`line ${row.number}: ${String(row.cells)}`);
  }
  if (columns.size === 0 && problems.length > 0) {
    throw new ArrowQuantError("E_CALIBRATION", `"${bytes.file}" does not begin as JSON lines: ${problems[0]}`, {
      hint: "write one object per line",
      details: { file: bytes.file, problems },
    });
  }
  return {
    file: bytes.file,
    unit: "line",
    rowCount,
    columns: [...columns],
    rows: (next) => readRows(bytes, next),
  };
}

interface JsonRow extends Row {
  readonly object: Readonly<Record<string, unknown>> | null;
}

async function* readRows(bytes: LineBytes, next: NextRow): AsyncGenerator<JsonRow> {
  let wanted = next(0);
  if (wanted === null) return;
  let index = -1;
  for await (const line of splitLines(bytes.chunks(), MAX_LINE_BYTES)) {
    index += 1;
    if (index < wanted) continue;
    const parsed = parseLine(line.bytes, line.number === 1);
    const isText = typeof parsed === "string";
    yield {
      index,
      number: line.number,
      cells: isText ? parsed : cellsOf(parsed),
      object: isText ? null : parsed,
    };
    wanted = next(index + 1);
    if (wanted === null) return;
  }
}

async function countRows(bytes: LineBytes): Promise<number> {
  let count = 0;
  for await (const _ of splitLines(bytes.chunks(), MAX_LINE_BYTES)) count += 1;
  return count;
}

/** @returns a text where the line is no object: what is wrong with it */
function parseLine(line: Buffer | null, isFirst: boolean): Readonly<Record<string, unknown>> | string {
  if (line === null) return `longer than ${MAX_LINE_BYTES} bytes`;
  if (line.length > SMALL_LINE_BYTES && hasManyContainers(line)) {
    return `more than ${MAX_CONTAINERS} lists and objects`;
  }
  const hasMark = isFirst && line[0] === 0xef && line[1] === 0xbb && line[2] === 0xbf;
  let value: unknown;
  try {
    value = JSON.parse(line.toString("utf8", hasMark ? 3 : 0));
  } catch (thrown) {
    return `not JSON: ${(thrown as Error).message.slice(0, MAX_REASON_LENGTH)}`;
  }
  const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
  return isObject ? (value as Record<string, unknown>) : "JSON, but no object";
}

function hasManyContainers(line: Buffer): boolean {
  let count = 0;
  for (const opening of OPENINGS) {
    for (let at = line.indexOf(opening); at !== -1; at = line.indexOf(opening, at + 1)) {
      count += 1;
      if (count > MAX_CONTAINERS) return true;
    }
  }
  return false;
}

function cellsOf(object: Readonly<Record<string, unknown>>): Cells {
  return (column): Cell | string => (Object.hasOwn(object, column) ? jsonCell(object[column]) : "is missing");
}
