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
  packRow(src: number, dst: number, n: number, bits: number): void;
  unpackRow(src: number, dst: number, n: number, bits: number): void;
  /** Adds the five error sums of one row of `n` float32. */
  addRowSums(weights: number, rebuilt: number, n: number, sums: number): void;
  convertRows(tilePtr: number, rowCount: number): void;
  rebuildRows(tilePtr: number, rowCount: number): void;
  /** −1, or the row of the slab that holds a weight which cannot be quantized. */
  compareRows(tilePtr: number, rowCount: number): number;
}

/** The part of a quantization method that works on rows. */
export interface RowQuantizer {
  /** Bytes of `tile.scratch` that the kernel needs for rows of `cols` elements. */
  scratchBytes(spec: QuantSpec, cols: number): number;
  quantizeRows(kernels: KernelExports, tilePtr: number, rowCount: number): number;
}
