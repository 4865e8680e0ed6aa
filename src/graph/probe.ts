/** A weight by some of its values, at positions that depend on its size alone: enough to tell weights apart. */
import { type OpenFile, readExactly } from "../io/read.js";
import { DTYPES } from "../tensor/dtype.js";
import { type FloatDtype, readElement, roundingOfDtype } from "../tensor/element.js";

/** A matrix [rows, cols] as it is stored. */
export interface StoredWeight {
  readonly dtype: FloatDtype;
  readonly rows: number;
  readonly cols: number;
  /** Whether it is stored [cols, rows]. */
  readonly transposed: boolean;
  readonly bytes: { readonly file: OpenFile; readonly byteOffset: number } | Uint8Array;
  /** What the stored numbers are multiplied with: one, or one per row. */
  readonly scales: Float32Array | null;
}

export interface WeightProbe {
  readonly values: Float64Array;
  /** Error that the storage may have made: see tensor/element.ts. */
  readonly rounding: { readonly relative: number; readonly absolute: number };
}

/** The pair of values that differ most beyond what storage explains. */
export interface ProbeDifference {
  readonly difference: number;
  readonly a: number;
  readonly b: number;
}

interface Block {
  readonly row: number;
  readonly col: number;
  readonly rowCount: number;
  readonly colCount: number;
}

/** Weights up to this many elements are compared whole. */
const MAX_WHOLE = 256;

/** Blocks rather than single positions: their lines are single reads, whichever way the weight is stored. */
const BLOCKS = 8;
const BLOCK_ELEMENTS = 16;
const BLOCK_SIDE = 4;

/** Steps of columns from block to block, prime to their number: the blocks do not lie on the diagonal. */
const COL_STEP = 3;

/** Reads the values at the positions for a matrix of that size. Throws `E_READ`, `E_TRUNCATED`. */
export async function probeWeight(weight: StoredWeight): Promise<WeightProbe> {
  const blocks = chooseBlocks(weight.rows, weight.cols);
  const values = (await Promise.all(blocks.map((block) => readBlock(weight, block)))).flat();
  const { relative, absolute } = roundingOfDtype(weight.dtype);
  const largestScale = weight.scales?.reduce((largest, scale) => Math.max(largest, Math.abs(scale)), 0) ?? 1;
  return { values: Float64Array.from(values), rounding: { relative, absolute: absolute * largestScale } };
}

/** null where the values, of one size of matrix, can be those of one weight, each stored in its own type. */
export function compareProbes(a: WeightProbe, b: WeightProbe): ProbeDifference | null {
  const relative = a.rounding.relative + b.rounding.relative;
  const absolute = a.rounding.absolute + b.rounding.absolute;
  let worst: ProbeDifference | null = null;
  for (const [i, x] of a.values.entries()) {
    const y = b.values[i] as number;
    const difference = Math.abs(x - y);
    const isSame = Object.is(x, y) || difference <= relative * Math.max(Math.abs(x), Math.abs(y)) + absolute;
    if (!isSame && !(worst !== null && difference <= worst.difference)) worst = { difference, a: x, b: y };
  }
  return worst;
}

function chooseBlocks(rows: number, cols: number): Block[] {
  if (rows * cols <= MAX_WHOLE) return [{ row: 0, col: 0, rowCount: rows, colCount: cols }];
  // Of a narrow matrix the blocks are long instead.
  const colCount = Math.min(cols, Math.max(BLOCK_SIDE, Math.ceil(BLOCK_ELEMENTS / Math.min(rows, BLOCK_SIDE))));
  const rowCount = Math.min(rows, Math.ceil(BLOCK_ELEMENTS / colCount));
  return Array.from({ length: BLOCKS }, (_, i) => ({
    row: Math.floor(((rows - rowCount) * i) / (BLOCKS - 1)),
    col: Math.floor(((cols - colCount) * ((i * COL_STEP) % BLOCKS)) / (BLOCKS - 1)),
    rowCount,
    colCount,
  }));
}

/** Row by row of the matrix, however it is stored. */
async function readBlock(weight: StoredWeight, { row, col, rowCount, colCount }: Block): Promise<number[]> {
  const { rows, cols, transposed, scales } = weight;
  const [lineCount, lineLength] = transposed ? [colCount, rowCount] : [rowCount, colCount];
  const lines = await Promise.all(
    Array.from({ length: lineCount }, (_, line) =>
      readElements(weight, transposed ? (col + line) * rows + row : (row + line) * cols + col, lineLength),
    ),
  );
  return Array.from({ length: rowCount * colCount }, (_, i) => {
    const r = Math.floor(i / colCount);
    const c = i % colCount;
    const stored = (transposed ? lines[c]?.[r] : lines[r]?.[c]) as number;
    return scales === null ? stored : stored * (scales[scales.length === 1 ? 0 : row + r] as number);
  });
}

async function readElements({ dtype, bytes }: StoredWeight, first: number, count: number): Promise<number[]> {
  const elementBytes = DTYPES[dtype].bits / 8;
  const byteLength = count * elementBytes;
  let run: Uint8Array;
  if (bytes instanceof Uint8Array) {
    run = bytes.subarray(first * elementBytes, first * elementBytes + byteLength);
  } else {
    run = new Uint8Array(byteLength);
    await readExactly(bytes.file, run, bytes.byteOffset + first * elementBytes);
  }
  const view = new DataView(run.buffer, run.byteOffset, run.byteLength);
  return Array.from({ length: count }, (_, i) => readElement(view, i, dtype));
}
