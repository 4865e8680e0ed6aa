/** Turns one stored chunk back into weights, slab by slab, or compares it with its source. */
import { ArrowQuantError } from "../errors.js";
import { DTYPES, type Dtype } from "../tensor/dtype.js";
import { packedBytes } from "../tensor/layout.js";
import type { ErrorSums, OutputSums } from "../tensor/metrics.js";
import type { StoredChunk } from "../tensor/stored.js";
import { allocatedBytes } from "./arena.js";
import type { BadWeight } from "./chunk-quantizer.js";
import type { OutDtype } from "./converter.js";
import type { Kernels } from "./load.js";
import {
  clearOutputSums,
  copyImportance,
  OUTPUT_SUMS_BYTES,
  openScales,
  openSlab,
  readOutputSums,
  readSums,
  rowScratchSizes,
  type SlabInput,
  SOURCE_SCALE_MODES,
  type SourceScaleMode,
  SPARE_BYTES,
  slabSizes,
  sumSizes,
} from "./regions.js";
import { fillTile, readBadWeight, TILE_BYTES } from "./tile.js";

export interface RebuildOptions {
  /** Most rows of one slab. */
  readonly slabRows: number;
  /** Type of the source to compare with; nothing to compare with where it is left out. */
  readonly sourceDtype?: Dtype;
  readonly sourceScale?: SourceScaleMode;
  /** float32[cols], ≥ 0: what the squared errors of each column are also weighted with. */
  readonly importance?: Float32Array;
  /** Type that `rebuild` gives; without it there is only `compare`. */
  readonly outDtype?: OutDtype;
  /** Columns of a block that `decodeBlocks` gives; it divides the group size, or is a row or more. */
  readonly blockSize?: number;
}

/** Rows in blocks along their columns: views that are good until the next call. */
export interface DecodedBlocks {
  /** [rows, blocks, ceil(blockSize · bits / 8)], the last block of a row filled up with code 0. */
  readonly codes: Uint8Array;
  /** [rows, blocks], as are the others. */
  readonly scales: Float32Array;
  readonly zeroPoints: Float32Array;
  /** The zero points where they are whole numbers of a byte. */
  readonly zeroPointBytes: Uint8Array;
}

/** The arrays of a stored chunk, in the order of FORMAT.md's checksum. */
const PARTS = [
  "data",
  "scales",
  "zeroPoints",
  "scaleCodes",
  "zeroPointCodes",
  "residualScaleCodes",
  "equalizationScales",
] as const;
type Part = (typeof PARTS)[number];

function groupCounts(stored: StoredChunk) {
  const groupsPerRow = Math.ceil(stored.cols / stored.groupSize);
  const groupsPerSuper = Math.min(groupsPerRow, (stored.superGroupSize ?? Infinity) / stored.groupSize);
  return { groupsPerRow, groupsPerSuper, supersPerRow: Math.ceil(groupsPerRow / groupsPerSuper) };
}

/** Elements each array of a chunk must have; null: it must not be there. */
function partLengths(stored: StoredChunk): Record<Exclude<Part, "equalizationScales">, number | null> {
  const { rows, cols, storageBits, scaleBits, zeroPointBits, isR2q, zeroPoints } = stored;
  const { groupsPerRow, supersPerRow } = groupCounts(stored);
  const codes = (bits: number | null) => (bits === null ? null : rows * packedBytes(groupsPerRow, bits));
  return {
    data: rows * packedBytes(cols, storageBits),
    scales: rows * (scaleBits === null ? groupsPerRow : supersPerRow),
    zeroPoints: zeroPoints === null || isR2q || zeroPointBits !== null ? null : rows * groupsPerRow,
    scaleCodes: codes(scaleBits),
    zeroPointCodes: codes(isR2q ? null : zeroPointBits),
    residualScaleCodes: codes(isR2q ? scaleBits : null),
  };
}

/** Throws `E_NATIVE` where the arrays do not fit the settings: the kernels trust both. */
function checkStored(stored: StoredChunk): void {
  const { bits, storageBits, scaleBits, zeroPointBits, groupSize, superGroupSize, cols } = stored;
  const integers = { bits, storageBits, scaleBits: scaleBits ?? 1, zeroPointBits: zeroPointBits ?? 1 };
  for (const [name, value] of Object.entries(integers)) {
    if (!Number.isInteger(value) || value < 1 || value > 8) fail(`${name} is ${value}, not 1 to 8`, { [name]: value });
  }
  if (storageBits < bits) fail(`${bits} bits are stored in ${storageBits}`, { bits, storageBits });
  if (!Number.isInteger(groupSize) || groupSize < 1) fail(`group size is ${groupSize}`, { groupSize });
  if ((superGroupSize === null) !== (scaleBits === null)) {
    fail("super-group size and scale bits: one is there, one is not", { superGroupSize, scaleBits });
  }
  if (superGroupSize !== null && !(superGroupSize >= groupSize && superGroupSize % groupSize === 0)) {
    fail(`super-group size ${superGroupSize} is not a multiple of group size ${groupSize}`, {
      superGroupSize,
      groupSize,
    });
  }
  if (stored.isR2q && (bits !== 2 || scaleBits === null)) {
    fail(`r2q with ${bits} bits and ${scaleBits ?? "no"} scale bits`, { bits, scaleBits });
  }
  for (const [part, expected] of Object.entries(partLengths(stored)) as [
    Exclude<Part, "equalizationScales">,
    number | null,
  ][]) {
    const found = stored[part]?.length ?? null;
    if (found !== expected) {
      fail(`${part} has ${found ?? "no"} elements, ${expected ?? "none"} belong there`, {
        part,
        found,
        expected,
      });
    }
  }
  const channels = stored.equalizationScales?.length ?? null;
  if (channels !== null && (channels === 0 || cols % channels !== 0)) {
    fail(`${channels} equalization scales for ${cols} columns`, { channels, cols });
  }
}

function fail(message: string, details: Record<string, unknown>): never {
  throw new ArrowQuantError("E_NATIVE", `a stored chunk is inconsistent: ${message}`, {
    hint: "the file was not written by this program, or is damaged",
    details,
  });
}

function regionSizes(stored: StoredChunk, options: RebuildOptions) {
  const { rows, cols } = stored;
  const { groupsPerRow, supersPerRow } = groupCounts(stored);
  const { sourceDtype, sourceScale = "none", importance, outDtype, blockSize } = options;
  const slabRows = Math.min(options.slabRows, rows);
  const blocks = blockSize === undefined ? 0 : slabRows * Math.ceil(cols / blockSize);
  const noSlab = { source: 0, sourceScales: 0 };
  const part = (name: Part) => stored[name]?.byteLength ?? 0;
  return {
    tile: TILE_BYTES,
    ...sumSizes(),
    outputSums: OUTPUT_SUMS_BYTES,
    ...(sourceDtype === undefined ? noSlab : slabSizes(slabRows, cols, sourceDtype, sourceScale)),
    importance: importance === undefined ? 0 : 4 * cols + SPARE_BYTES,
    ...rowScratchSizes(cols, groupsPerRow, supersPerRow),
    out: outDtype === undefined ? 0 : (slabRows * cols * DTYPES[outDtype].bits) / 8,
    blockCodes: blocks * packedBytes(blockSize ?? 0, stored.bits),
    blockScales: 4 * blocks,
    blockZeroPoints: 4 * blocks,
    blockZeroPointBytes: blocks,
    data: part("data"),
    storedScales: part("scales"),
    storedZeroPoints: part("zeroPoints"),
    storedScaleCodes: part("scaleCodes"),
    storedZeroPointCodes: part("zeroPointCodes"),
    storedResidualScaleCodes: part("residualScaleCodes"),
    equalizationScales: part("equalizationScales"),
  };
}

const PART_REGIONS = {
  data: "data",
  scales: "storedScales",
  zeroPoints: "storedZeroPoints",
  scaleCodes: "storedScaleCodes",
  zeroPointCodes: "storedZeroPointCodes",
  residualScaleCodes: "storedResidualScaleCodes",
  equalizationScales: "equalizationScales",
} as const satisfies Record<Part, keyof ReturnType<typeof regionSizes>>;

export class ChunkRebuilder implements SlabInput {
  readonly #kernels: Kernels;
  readonly #cols: number;
  readonly #bits: number;
  readonly #isR2q: boolean;
  readonly #options: RebuildOptions;
  readonly #slabRows: number;
  readonly #ptr: Record<keyof ReturnType<typeof regionSizes>, number>;
  #rowsDone = 0;

  /** Arena bytes for that chunk, exactly. */
  static bytesNeeded(stored: StoredChunk, options: RebuildOptions): number {
    return Object.values(regionSizes(stored, options)).reduce((sum, size) => sum + allocatedBytes(size), 0);
  }

  /**
   * Resets the arena and copies the chunk into it; throws `E_NATIVE` where its arrays do not fit together.
   */
  constructor(kernels: Kernels, stored: StoredChunk, options: RebuildOptions) {
    checkStored(stored);
    this.#kernels = kernels;
    this.#cols = stored.cols;
    this.#bits = stored.bits;
    this.#isR2q = stored.isR2q;
    this.#options = options;
    this.#slabRows = Math.min(options.slabRows, stored.rows);
    const { arena } = kernels;
    const { cols, bits, storageBits, groupSize, isR2q, equalizationScales } = stored;
    const { sourceDtype, sourceScale = "none", importance, outDtype } = options;
    this.#ptr = arena.allocateAll(regionSizes(stored, options));
    for (const part of PARTS) {
      const array = stored[part];
      if (array === null) continue;
      const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
      arena.bytes(this.#ptr[PART_REGIONS[part]], bytes.length).set(bytes);
    }
    const { tile, ...regions } = this.#ptr;
    arena.doubles(regions.sums, 5).fill(0);
    clearOutputSums(arena, regions.outputSums);
    if (importance !== undefined) copyImportance(arena, regions.importance, importance);
    fillTile(arena, tile, {
      ...regions,
      originals: regions.weights,
      ...groupCounts(stored),
      cols,
      bits,
      storageBits,
      groupSize,
      symmetric: !isR2q && stored.zeroPoints === null && stored.zeroPointBits === null ? 1 : 0,
      isR2q: isR2q ? 1 : 0,
      scaleBits: stored.scaleBits ?? 0,
      zeroPointBits: stored.zeroPointBits ?? 0,
      colsPerChannel: equalizationScales === null ? 0 : cols / equalizationScales.length,
      sourceDtype: sourceDtype === undefined ? 0 : DTYPES[sourceDtype].kernelCode,
      sourceScaleMode: SOURCE_SCALE_MODES.indexOf(sourceScale),
      outDtype: outDtype === undefined ? 0 : DTYPES[outDtype].kernelCode,
    });
  }

  /** The next rows, in the options' `outDtype`: a view that is good until the next call. */
  rebuild(rowCount: number): Uint8Array {
    const { outDtype } = this.#options;
    if (outDtype === undefined) throw new ArrowQuantError("E_INTERNAL", "rebuild without an outDtype");
    this.#kernels.exports.rebuildRows(this.#ptr.tile, rowCount);
    this.#rowsDone += rowCount;
    return this.#kernels.arena.bytes(this.#ptr.out, (rowCount * this.#cols * DTYPES[outDtype].bits) / 8);
  }

  /** The next rows in blocks of the options' `blockSize`. r2q, which has no zero points, is none of its kind. */
  decodeBlocks(rowCount: number): DecodedBlocks {
    const { blockSize } = this.#options;
    if (blockSize === undefined || this.#isR2q) throw new ArrowQuantError("E_INTERNAL", "no blocks to decode to");
    const { tile, blockCodes, blockScales, blockZeroPoints, blockZeroPointBytes } = this.#ptr;
    const { arena, exports } = this.#kernels;
    exports.decodeBlocks(tile, rowCount, blockSize, blockCodes, blockScales, blockZeroPoints, blockZeroPointBytes);
    this.#rowsDone += rowCount;
    const count = rowCount * Math.ceil(this.#cols / blockSize);
    return {
      codes: arena.bytes(blockCodes, count * packedBytes(blockSize, this.#bits)),
      scales: arena.floats(blockScales, count),
      zeroPoints: arena.floats(blockZeroPoints, count),
      zeroPointBytes: arena.bytes(blockZeroPointBytes, count),
    };
  }

  source(rowCount: number, skip = 0): Uint8Array {
    const { sourceDtype } = this.#options;
    if (sourceDtype === undefined) throw new ArrowQuantError("E_INTERNAL", "compare without a sourceDtype");
    return openSlab(this.#kernels.arena, this.#ptr, sourceDtype, rowCount * this.#cols, skip);
  }

  sourceScales(): Float32Array {
    const { sourceScale = "none" } = this.#options;
    return openScales(this.#kernels.arena, this.#ptr, sourceScale, this.#slabRows);
  }

  /**
   * Rebuilds the next rows and adds their errors against `source`; the sums are those that `ChunkQuantizer`
   * measured, to the bit. Non-null: the first weight that is not finite.
   */
  compare(rowCount: number): BadWeight | null {
    const stopped = this.#kernels.exports.compareRows(this.#ptr.tile, rowCount);
    if (stopped >= 0) {
      return { row: this.#rowsDone + stopped, ...readBadWeight(this.#kernels.arena, this.#ptr.tile) };
    }
    this.#rowsDone += rowCount;
    return null;
  }

  /** Error sums over the rows compared so far. */
  sums(): ErrorSums {
    return readSums(this.#kernels.arena, this.#ptr.sums);
  }

  /** The same weighted by importance; zeros where there is none. */
  importanceSums(): OutputSums {
    return readOutputSums(this.#kernels.arena, this.#ptr.outputSums);
  }
}
