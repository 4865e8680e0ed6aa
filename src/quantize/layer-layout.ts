/** How a layer is cut into chunks and slabs, and what memory each way of storing it takes. */
import { MAX_HELD_BACK_ROWS } from "../calibration/statistics-info.js";
import { type ChunkExtent, ChunkQuantizer } from "../kernels/chunk-quantizer.js";
import { ColumnMaxima } from "../kernels/column-maxima.js";
import { Converter } from "../kernels/converter.js";
import { HessianFactor } from "../kernels/factor.js";
import { StripTurner } from "../kernels/strip-turner.js";
import { nextSpec } from "../plan/fallback.js";
import type { LayerPlan } from "../plan/plan.js";
import { DTYPES, type Dtype } from "../tensor/dtype.js";
import { packedBytes, type QuantSpec, rowBytes, rowLayout, rowsPerChunk, viewAs2d } from "../tensor/layout.js";
import { partsByteLength } from "../worker/parts.js";
import { findMethod } from "./methods/index.js";

export interface ChunkGrid {
  readonly rows: number;
  readonly cols: number;
  readonly rowsPerChunk: number;
  readonly chunkCount: number;
  /** Bytes of the buffer that carries the largest chunk. */
  readonly chunkBufferBytes: number;
  /** Bytes of the buffers of all chunks together. */
  readonly totalBufferBytes: number;
  /** Bytes stored, with everything a reader needs. */
  readonly storedBytes: number;
}

export function rowsOfChunk(grid: ChunkGrid, chunkIndex: number): number {
  return Math.min(grid.rowsPerChunk, grid.rows - chunkIndex * grid.rowsPerChunk);
}

/** The grid of a tensor quantized by `spec`. */
export function quantizedGrid(shape: readonly number[], spec: QuantSpec): ChunkGrid {
  const { rows, cols } = viewAs2d(shape);
  const layout = rowLayout(cols, spec);
  const perChunk = rowsPerChunk(layout.codeBytes);
  return gridOf(rows, cols, perChunk, rowBytes(layout), (rowCount) => quantizedBufferBytes(rowCount, cols, spec));
}

/** The grid of a tensor kept as `dtype`. */
export function keptGrid(shape: readonly number[], dtype: Dtype): ChunkGrid {
  const { rows, cols } = viewAs2d(shape);
  const keptRowBytes = packedBytes(cols, DTYPES[dtype].bits);
  return gridOf(rows, cols, rowsPerChunk(keptRowBytes), keptRowBytes, (rowCount) => rowCount * keptRowBytes);
}

function gridOf(
  rows: number,
  cols: number,
  perChunk: number,
  storedRowBytes: number,
  bufferBytes: (rowCount: number) => number,
): ChunkGrid {
  const chunkCount = Math.max(1, Math.ceil(rows / perChunk));
  const lastRows = rows - (chunkCount - 1) * perChunk;
  return {
    rows,
    cols,
    rowsPerChunk: perChunk,
    chunkCount,
    chunkBufferBytes: bufferBytes(Math.min(rows, perChunk)),
    totalBufferBytes: (chunkCount - 1) * bufferBytes(perChunk) + bufferBytes(lastRows),
    storedBytes: rows * storedRowBytes,
  };
}

/** Bytes of a buffer that carries `rowCount` quantized rows. */
export function quantizedBufferBytes(rowCount: number, cols: number, spec: QuantSpec): number {
  const layout = rowLayout(cols, spec);
  return partsByteLength(
    [
      layout.codeBytes,
      4 * layout.scaleCount,
      4 * layout.zeroPointCount,
      layout.scaleCodeBytes,
      layout.zeroPointCodeBytes,
      layout.residualScaleCodeBytes,
    ].map((byteLength) => byteLength * rowCount),
  );
}

/** Every way a layer may come to be stored: its own spec and the widths it can fall back to. */
export function specChain(spec: QuantSpec): QuantSpec[] {
  const chain: QuantSpec[] = [];
  for (let next: QuantSpec | null = spec; next !== null; next = nextSpec(next)) chain.push(next);
  return chain;
}

export interface LayerMemory {
  /** Rows per slab. */
  readonly slabRows: number;
  /** Arena a worker needs for any chunk of this layer. */
  readonly arenaBytes: number;
  /** Largest buffer of a single chunk, whichever way it is stored. */
  readonly chunkBufferBytes: number;
  /** Buffers of all chunks as planned. */
  readonly plannedBufferBytes: number;
}

/** What calibration adds to a chunk of the layer, at most. */
function calibratedExtent(layer: LayerPlan, spec: QuantSpec, cols: number): Partial<ChunkExtent> {
  if (!layer.calibrated) return {};
  return {
    importance: { length: cols },
    ...(layer.spatial === null ? {} : { equalizationScales: { length: cols } }),
    ...(findMethod(spec.method).needs === "hessian" ? { hessian: {} } : {}),
    heldBack: { rowCount: MAX_HELD_BACK_ROWS, activations: layer.activations },
  };
}

/** What a layer needs, with slabs of `slabBytes` or one row. */
export function layerMemory(layer: LayerPlan, slabBytes: number): LayerMemory {
  const memory = kernelMemory(layer, slabBytes);
  const { shape, dtype, transposed } = layer.tensor;
  if (!transposed) return memory;
  const { rows, cols } = viewAs2d(shape);
  const slabRows = Math.min(memory.slabRows, rows);
  const strip = StripTurner.bytesNeeded({ cols, slabRows, elementBytes: DTYPES[dtype].bits / 8 });
  return { ...memory, arenaBytes: memory.arenaBytes + strip };
}

function kernelMemory(layer: LayerPlan, slabBytes: number): LayerMemory {
  const { tensor, spec } = layer;
  const { cols } = viewAs2d(tensor.shape);
  const sourceRowBytes = Math.max(1, (cols * DTYPES[tensor.dtype].bits) / 8);
  const slabRows = Math.max(1, Math.floor(slabBytes / sourceRowBytes));
  const kept = keptGrid(tensor.shape, layer.storedDtype);
  if (spec === null) {
    const { sourceScale, dtype: sourceDtype } = tensor;
    const conversion = { cols, slabRows, sourceDtype, outDtype: "F32" } as const;
    const isCopied = sourceScale === null && sourceDtype === layer.storedDtype;
    const arenaBytes = isCopied
      ? 0
      : Converter.bytesNeeded({ ...conversion, sourceScale: sourceScale === null ? "none" : sourceScale.per });
    return { slabRows, arenaBytes, chunkBufferBytes: kept.chunkBufferBytes, plannedBufferBytes: kept.totalBufferBytes };
  }
  const chain = [spec, ...layer.candidates].flatMap(specChain);
  const grids = chain.map((each) => quantizedGrid(tensor.shape, each));
  const source = {
    cols,
    dtype: tensor.dtype,
    sourceScale: tensor.sourceScale === null ? "none" : tensor.sourceScale.per,
  } as const;
  const arenas = chain.map((each, index) => {
    const grid = grids[index] as ChunkGrid;
    return ChunkQuantizer.bytesNeeded(findMethod(each.method), each, {
      ...source,
      rows: Math.min(grid.rows, grid.rowsPerChunk),
      slabRows: Math.min(slabRows, grid.rows),
      ...calibratedExtent(layer, each, cols),
    });
  });
  if (chain.some(({ method }) => findMethod(method).needs === "hessian")) arenas.push(HessianFactor.bytesNeeded(cols));
  if (layer.spatial !== null) arenas.push(ColumnMaxima.bytesNeeded({ ...source, slabRows }));
  return {
    slabRows,
    arenaBytes: Math.max(...arenas),
    chunkBufferBytes: Math.max(kept.chunkBufferBytes, ...grids.map((grid) => grid.chunkBufferBytes)),
    plannedBufferBytes: (grids[0] as ChunkGrid).totalBufferBytes,
  };
}
