/** Rows of a source that holds its matrix transposed, turned by an instance of the kernels of their own. */
import { readExactlySync } from "../io/read.js";
import { loadKernels } from "../kernels/load.js";
import { StripTurner } from "../kernels/strip-turner.js";
import { DTYPES } from "../tensor/dtype.js";
import type { SourceRows } from "./messages.js";

/** The strip that is in memory, with those that the next slabs are likely to come from. */
interface Strip {
  readonly source: SourceRows;
  readonly slabRows: number;
  readonly turner: StripTurner;
  firstRow: number;
  rowCount: number;
}

const kernels = { instance: null as ReturnType<typeof loadKernels> | null };
let strip: Strip | null = null;

/**
 * Fills `into` with rows from `firstRow` of the run on. Fast where they are asked for in order and in equal slabs.
 * @throws E_TRUNCATED, E_READ
 */
export function readTransposedRows(source: SourceRows, firstRow: number, into: Uint8Array): void {
  const elementBytes = DTYPES[source.dtype].bits / 8;
  const rowCount = into.byteLength / (source.cols * elementBytes);
  if (rowCount === 0) return;
  if (strip === null || strip.source !== source || rowCount > strip.slabRows) {
    kernels.instance ??= loadKernels();
    const shape = { cols: source.cols, slabRows: rowCount, elementBytes };
    strip = { source, slabRows: rowCount, turner: new StripTurner(kernels.instance, shape), firstRow: 0, rowCount: 0 };
  }
  if (firstRow < strip.firstRow || firstRow + rowCount > strip.firstRow + strip.rowCount) {
    strip.firstRow = firstRow;
    strip.rowCount = Math.min(strip.turner.stripRows, source.rows - firstRow);
    readStrip(strip, elementBytes);
  }
  into.set(strip.turner.turn(strip.rowCount, firstRow - strip.firstRow, rowCount));
}

/** Column by column: each is a line of the file. */
function readStrip({ source, turner, firstRow, rowCount }: Strip, elementBytes: number): void {
  const { fd, path, byteOffset, cols, storedRows } = source;
  const bytes = turner.strip(rowCount);
  const begin = byteOffset + firstRow * elementBytes;
  if (rowCount === storedRows) {
    readExactlySync(fd, path, bytes, begin);
    return;
  }
  const lineBytes = rowCount * elementBytes;
  for (let col = 0; col < cols; col += 1) {
    const line = bytes.subarray(col * lineBytes, (col + 1) * lineBytes);
    readExactlySync(fd, path, line, begin + col * (storedRows as number) * elementBytes);
  }
}
