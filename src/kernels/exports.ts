/** What the kernels export, and what ChunkQuantizer needs of a method. */
import type { QuantSpec } from "../tensor/layout.js";
import type { KernelMemory } from "./webassembly.js";

/** Quantizes rows of the slab by the settings of the tile: −1, or the row with a weight that cannot be. */
export type QuantizeRows = (tilePtr: number, rowCount: number) => number;

export interface KernelExports {
  readonly memory: KernelMemory;
  heapBase(): number;
  hasSimd(): number;
  tileBytes(): number;
  readonly quantizeRowsRtn: QuantizeRows;
  readonly quantizeRowsHqq: QuantizeRows;
  readonly quantizeRowsMse: QuantizeRows;
  readonly quantizeRowsR2q: QuantizeRows;
  readonly quantizeRowsGptq: QuantizeRows;
  /** As QuantizeRows, to blocks of a type of ggml's (`kernelCode` of tensor/dtype.ts). */
  quantizeRowsGgml(tilePtr: number, rowCount: number, type: number): number;
  packRow(src: number, dst: number, n: number, bits: number): void;
  unpackRow(src: number, dst: number, n: number, bits: number): void;
  /** Adds the five error sums of one row of `n` float32. */
  addRowSums(weights: number, rebuilt: number, n: number, sums: number): void;
  convertRows(tilePtr: number, rowCount: number): void;
  /** Element (r, c) of 4 bytes to (c, r); `srcCols` and `dstCols` are elements of a row of the whole matrices. */
  transposeBlock(src: number, srcCols: number, dst: number, dstCols: number, rows: number, cols: number): void;
  /** The same for elements of 1, 2, 4 or 8 bytes. */
  transposeElements(
    src: number,
    srcCols: number,
    dst: number,
    dstCols: number,
    rows: number,
    cols: number,
    elementBytes: number,
  ): void;
  rebuildRows(tilePtr: number, rowCount: number): void;
  /** Stored rows as block-quantized tensors hold them (assembly/blocks.ts). */
  decodeBlocks(
    tilePtr: number,
    rowCount: number,
    blockSize: number,
    codes: number,
    scales: number,
    zeroPoints: number,
    zeroPointBytes: number,
  ): void;
  /** −1, or the row of the slab that holds a weight which cannot be quantized. */
  compareRows(tilePtr: number, rowCount: number): number;
  /** Raises `cols` float32 to the magnitudes of the slab; −1, or the row that holds a weight which cannot be read. */
  raiseColumnMaxima(tilePtr: number, rowCount: number, maxima: number): number;
  /** Widens float32[2], least and largest weight; −1, or the row that holds a weight which cannot be read. */
  widenWeightRange(tilePtr: number, rowCount: number, range: number): number;
  /** Adds weights to i64[bins] (assembly/weight-histogram.ts); −1, or the row that holds one which cannot be read. */
  countWeights(tilePtr: number, rowCount: number, counts: number, bins: number, least: number, factor: number): number;
  /** Up to eight held-back inputs of `cols` float32 to a panel. */
  packHeldBack(from: number, rows: number, cols: number, panel: number): void;
  /** A held-back input as quantized activations have it, in place. */
  quantizeInput(
    input: number,
    cols: number,
    equalizationScales: number,
    colsPerChannel: number,
    scale: number,
    zeroPoint: number,
    largest: number,
  ): void;
  /** Adds the outputs of rows that still wait to be eight. */
  flushOutputErrors(tilePtr: number): void;
  /** `n` elements of a type (`kernelCode` of tensor/dtype.ts) to float32. */
  convertFloats(src: number, dst: number, n: number, dtype: number): void;
  copyFloats(dst: number, src: number, n: number): void;
  /** Bits of the largest magnitude; from 0x7f800000 on one of the floats is NaN or infinite. */
  largestMagnitudeBits(x: number, n: number): number;
  /** Statistics of [rows, channels] floats: float32 least and most, float64 sums and squares of each channel. */
  addRowStats(
    x: number,
    rows: number,
    channels: number,
    least: number,
    most: number,
    sums: number,
    squares: number,
  ): void;
  /** The same of [channels, positions] floats. */
  addChannelStats(
    x: number,
    channels: number,
    positions: number,
    least: number,
    most: number,
    sums: number,
    squares: number,
  ): void;
  /** Counts floats of magnitude below half/factor in u32[2·half]. */
  addToHistogram(x: number, n: number, histogram: number, half: number, factor: number): void;
  /** Doubles the range of u32[2·half]. */
  widenHistogram(histogram: number, half: number, times: number): void;
  /** im2col of chosen output positions (assembly/image-rows.ts). */
  copyImageRows(
    image: number,
    channels: number,
    geometry: number,
    positions: number,
    count: number,
    to: number,
    rowStride: number,
  ): void;
  /** Adds XᵀX of float32 [rows, cols] to a padded matrix (assembly/gram.ts). */
  addGram(x: number, rows: number, cols: number, gram: number, panels: number): void;
  readGramRow(gram: number, cols: number, row: number, factor: number, to: number): void;
  /** Steps of `HessianFactor.factor` (assembly/factor.ts). */
  completeHessian(hessian: number, cols: number, scales: number, colsPerChannel: number): void;
  permuteHessian(hessian: number, cols: number, order: number, row: number, moved: number): void;
  padHessian(hessian: number, cols: number, padded: number, deadCount: number, damp: number): void;
  /** 1 where the matrix is positive definite. */
  factorHessian(
    hessian: number,
    padded: number,
    live: number,
    isPivoted: number,
    order: number,
    scratch: number,
  ): number;
  packFactorPanel(hessian: number, padded: number, panelIndex: number, panel: number): void;
}

/** The part of a quantization method that works on rows. */
export interface RowQuantizer {
  /** Bytes of `tile.scratch` that the kernel needs for rows of `cols` elements, slabs of `slabRows`. */
  scratchBytes(spec: QuantSpec, cols: number, slabRows: number): number;
  quantizeRows(kernels: KernelExports, tilePtr: number, rowCount: number): number;
}
