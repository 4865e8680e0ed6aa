/** The accumulators of one value during a pass. */
import { ArrowQuantError } from "../../errors.js";
import { ActivationStats } from "../../kernels/activation-stats.js";
import { Gram } from "../../kernels/gram.js";
import type { Kernels } from "../../kernels/load.js";
import { RowBlock } from "../../kernels/row-block.js";
import { Staging } from "../../kernels/staging.js";
import { CHANNEL_STATISTICS, HISTOGRAM_BINS } from "../statistics-info.js";
import { viewImages } from "../value-shape.js";
import type { ColumnBlock, Request, UnitShape, UnitSpec, ValueUse } from "./message.js";
import type { ResultFile } from "./result-file.js";

type AddRequest = Extract<Request, { kind: "add" }>;

/** What all units of a thread share, one after the other. */
export interface SharedRegions {
  readonly staging: Staging;
  readonly block: RowBlock;
  /** Rows of the columns of a part of a Hessian; null: every unit takes its Hessian whole. */
  readonly partBlock: RowBlock | null;
}

/** Columns of a unit's Gram matrix; 0: it has none. */
function gramCols({ cols, hessian }: UnitShape): number {
  if (hessian === "none") return 0;
  return hessian === "whole" ? cols : hessian.reduce((sum, { begin, end }) => sum + end - begin, 0);
}

/** Arena bytes of a unit alone, exactly. */
export function unitBytes(spec: UnitShape): number {
  const cols = gramCols(spec);
  return (
    (spec.keepsStatistics ? ActivationStats.bytesNeeded(statisticsShape(spec)) : 0) +
    (cols === 0 ? 0 : Gram.bytesNeeded(cols))
  );
}

/** Arena bytes of what the units of a thread share, exactly. */
export function sharedBytes(shapes: readonly UnitShape[]): number {
  const { cols, partCols, channelElements } = sharedExtents(shapes);
  return (
    Staging.bytesNeeded(channelElements) +
    RowBlock.bytesNeeded(cols) +
    (partCols === 0 ? 0 : RowBlock.bytesNeeded(partCols))
  );
}

/** The largest of everything. */
function sharedExtents(shapes: readonly UnitShape[]) {
  const largest = (sizes: readonly number[]) => sizes.reduce((most, size) => Math.max(most, size), 0);
  const withRows = shapes.filter(({ hessian, takesHeldBack }) => hessian !== "none" || takesHeldBack);
  return {
    cols: largest(withRows.map(({ cols }) => cols)),
    partCols: largest(shapes.filter(({ hessian }) => hessian !== "whole").map(gramCols)),
    channelElements: largest(withRows.map(({ channelElements }) => channelElements)),
  };
}

/** Allocates what the units share; the arena must be empty. */
export function allocateShared(kernels: Kernels, shapes: readonly UnitShape[]): SharedRegions {
  const { cols, partCols, channelElements } = sharedExtents(shapes);
  const staging = new Staging(kernels, channelElements);
  return {
    staging,
    block: new RowBlock(kernels, staging, cols),
    partBlock: partCols === 0 ? null : new RowBlock(kernels, staging, partCols),
  };
}

/** One bin at a time: what is over is written out. */
function statisticsShape({ channels }: UnitShape) {
  return { channels, bins: 1, histogramBins: HISTOGRAM_BINS };
}

export class Unit {
  readonly #spec: UnitSpec;
  readonly #shared: SharedRegions;
  readonly #kernels: Kernels;
  readonly #file: ResultFile;
  readonly #stats: ActivationStats | null;
  readonly #gram: Gram | null;
  #bin = -1;

  /** Allocates after `allocateShared`. */
  constructor(kernels: Kernels, shared: SharedRegions, spec: UnitSpec, file: ResultFile) {
    const cols = gramCols(spec);
    this.#kernels = kernels;
    this.#shared = shared;
    this.#spec = spec;
    this.#file = file;
    this.#stats = spec.keepsStatistics ? new ActivationStats(kernels, shared.staging, statisticsShape(spec)) : null;
    this.#gram = cols === 0 ? null : new Gram(kernels, cols);
  }

  /** @throws E_NONFINITE, E_WRITE */
  add(request: AddRequest, use: ValueUse): void {
    this.#addStatistics(request, use);
    const { firstHeldBackRow } = use;
    if (firstHeldBackRow === null && this.#gram === null) return;
    if (firstHeldBackRow !== null) this.#checkFinite(request);
    let done = 0;
    this.#forEachBlock(request.data, use, (block) => {
      if (firstHeldBackRow === null) {
        this.#addToGram(block);
      } else {
        this.#file.write(block.rows(), this.#placeOf("heldback") + 4 * this.#spec.cols * (firstHeldBackRow + done));
      }
      done += block.rowCount;
    });
  }

  /** Writes what is still to be written. @throws E_WRITE */
  close(): void {
    this.#writeBin();
    this.#writeHessian();
  }

  #addStatistics(request: AddRequest, { inner }: ValueUse): void {
    if (this.#stats === null) return;
    const { data, segments } = request;
    for (const { bin, begin, end } of segments) {
      if (bin !== this.#bin) {
        if (bin < this.#bin) throw new ArrowQuantError("E_INTERNAL", `time bin ${bin} after bin ${this.#bin}`);
        this.#writeBin();
        this.#bin = bin;
      }
      const x = data.subarray(begin, end);
      const layout =
        inner === 1
          ? ({ layout: "channels-last", positions: x.length / this.#spec.channels } as const)
          : ({ layout: "channels-first", positions: inner } as const);
      if (!this.#stats.add(x, layout, 0)) throw this.#nonFinite(request);
    }
  }

  #writeBin(): void {
    if (this.#stats === null || this.#bin < 0) return;
    const result = this.#stats.result();
    for (const part of CHANNEL_STATISTICS) this.#writeRow(part, result[part]);
    this.#writeRow("count", BigInt64Array.from(result.count, BigInt));
    this.#writeRow("histogram", result.histogram);
    this.#writeRow("histogram_exponent", result.histogramExponent);
    this.#stats.clear();
  }

  /** What belongs to the bin under way, of a tensor with as much per bin. */
  #writeRow(part: string, row: Float32Array | Uint32Array | Int32Array | BigInt64Array): void {
    this.#file.write(row, this.#placeOf(part) + row.byteLength * this.#bin);
  }

  /** Calls `work` with blocks of the chosen rows. */
  #forEachBlock(data: Float32Array, use: ValueUse, work: (block: RowBlock) => void): void {
    const { block } = this.#shared;
    const { conv, cols } = this.#spec;
    const { rows } = use;
    const isImages = conv !== null || use.inner > 1;
    block.start(cols);
    for (let done = 0; done < rows.length; ) {
      const free = rows.subarray(done, done + block.freeRows);
      const taken = isImages ? this.#addImage(data, use, free, block) : free.length;
      if (!isImages) block.addRows(data, "F32", free);
      done += taken;
      if (block.freeRows > 0 && done < rows.length) continue;
      work(block);
      block.start(cols);
    }
  }

  /** Adds those of the rows that lie in the first one's image; returns how many. */
  #addImage(data: Float32Array, { height, width }: ValueUse, rows: Int32Array, block: RowBlock): number {
    const { channels, conv } = this.#spec;
    const geometry = conv ?? POINTWISE;
    const { outHeight, outWidth } = viewImages(geometry, [1, channels, height, width]);
    const positions = outHeight * outWidth;
    const image = Math.floor((rows[0] as number) / positions);
    const next = rows.findIndex((row) => Math.floor(row / positions) !== image);
    const inImage = next < 0 ? rows : rows.subarray(0, next);
    block.addImageRows(
      data,
      "F32",
      image * channels * height * width,
      { channels, height, width, ...geometry },
      inImage.map((row) => row - image * positions),
    );
    return inImage.length;
  }

  #addToGram(block: RowBlock): void {
    const gram = this.#gram as Gram;
    const { hessian: blocks } = this.#spec;
    if (blocks === "whole" || blocks === "none") {
      gram.add(block);
      return;
    }
    const part = this.#shared.partBlock as RowBlock;
    const cols = gramCols(this.#spec);
    const columns = new Float32Array(block.rowCount * cols);
    const rows = block.rows();
    for (let row = 0; row < block.rowCount; row++) {
      let at = row * cols;
      for (const { begin, end } of blocks) {
        columns.set(rows.subarray(row * this.#spec.cols + begin, row * this.#spec.cols + end), at);
        at += end - begin;
      }
    }
    part.start(cols);
    part.addRows(
      columns,
      "F32",
      Int32Array.from({ length: block.rowCount }, (_, row) => row),
    );
    gram.add(part);
  }

  #writeHessian(): void {
    const { hessian, cols } = this.#spec;
    if (this.#gram === null || hessian === "none") return;
    const byteOffset = this.#placeOf("hessian");
    const blocks: readonly ColumnBlock[] = hessian === "whole" ? [{ begin: 0, end: cols }] : hessian;
    const columns = blocks.flatMap(({ begin, end }) => Array.from({ length: end - begin }, (_, i) => begin + i));
    let done = 0;
    this.#gram.forEachBand((band) => {
      const rows = columns.slice(done, done + band.length / columns.length);
      done += rows.length;
      if (hessian === "whole") {
        this.#file.write(band, byteOffset + 4 * cols * (rows[0] as number));
        return;
      }
      let from = 0;
      for (const row of rows) {
        for (const { begin, end } of blocks) {
          this.#file.write(band.subarray(from, from + end - begin), byteOffset + 4 * (row * cols + begin));
          from += end - begin;
        }
      }
    });
  }

  #placeOf(part: string): number {
    const byteOffset = this.#spec.byteOffsets.get(part);
    if (byteOffset !== undefined) return byteOffset;
    throw new ArrowQuantError("E_INTERNAL", `the statistics file has no place for ${part} of "${this.#spec.key}"`);
  }

  #checkFinite(request: AddRequest): void {
    const { data } = request;
    const { staging } = this.#shared;
    for (let first = 0; first < data.length; first += staging.capacity) {
      const end = Math.min(data.length, first + staging.capacity);
      const at = staging.load(data, "F32", first, end);
      if (this.#kernels.exports.largestMagnitudeBits(at, end - first) >= INFINITY_BITS) throw this.#nonFinite(request);
    }
  }

  #nonFinite({ samples }: AddRequest): ArrowQuantError {
    return new ArrowQuantError(
      "E_NONFINITE",
      `the layer input "${this.#spec.key}" holds NaN or infinity at ${samples}`,
      {
        hint: "the model overflows on these inputs: check the calibration data, or use a graph in float32",
        details: { value: this.#spec.key, samples },
      },
    );
  }
}

/** Bits of the least float32 that is no number. */
const INFINITY_BITS = 0x7f800000;

/** What takes channels-first positions as rows. */
const POINTWISE: NonNullable<UnitShape["conv"]> = {
  kernel: [1, 1],
  strides: [1, 1],
  pads: [0, 0, 0, 0],
  dilations: [1, 1],
  groups: 1,
};
