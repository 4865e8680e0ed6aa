/**
 * What crosses between the main thread and the workers: plain data and one ArrayBuffer that is moved, not copied.
 */
import type { SerializedError } from "../errors.js";
import type { Dtype } from "../tensor/dtype.js";
import type { QuantSpec } from "../tensor/layout.js";
import type { ErrorSums } from "../tensor/metrics.js";
import type { StoredSpec } from "../tensor/stored.js";

/** The parts of a quantized chunk, in the order in which they lie in a buffer and enter its checksum. */
export const CHUNK_PARTS = [
  "data",
  "scales",
  "zeroPoints",
  "scaleCodes",
  "zeroPointCodes",
  "residualScaleCodes",
] as const;
export type ChunkPart = (typeof CHUNK_PARTS)[number];

/** Where each part lies in its buffer, in bytes; parts that FORMAT.md leaves null are absent. */
export type PartRanges = Partial<Record<ChunkPart, { readonly byteOffset: number; readonly byteLength: number }>>;

/** A run of rows of a source tensor in an open file. */
export interface SourceRows {
  readonly fd: number;
  /** For error messages. */
  readonly path: string;
  readonly tensorName: string;
  readonly byteOffset: number;
  readonly dtype: Dtype;
  readonly rows: number;
  readonly cols: number;
  /** First row within the tensor; only for messages. */
  readonly firstRow: number;
  /** Source scale values: none, one, or one per row of this run. */
  readonly scales: Float32Array | null;
}

/** Quantizes a chunk. */
export interface QuantizeTask {
  readonly kind: "quantize";
  readonly source: SourceRows;
  readonly spec: QuantSpec;
  readonly slabRows: number;
  readonly output: ArrayBuffer;
}

/** Copies a kept chunk, converted to float32 where a source scale applies. */
export interface KeepTask {
  readonly kind: "keep";
  readonly source: SourceRows;
  readonly storedDtype: Dtype;
  readonly slabRows: number;
  readonly output: ArrayBuffer;
}

/** Rebuilds a stored chunk and compares it with its source. */
export interface CompareTask {
  readonly kind: "compare";
  readonly source: SourceRows;
  readonly stored: StoredSpec;
  readonly parts: PartRanges;
  readonly equalizationScales: Float32Array | null;
  readonly slabRows: number;
  readonly input: ArrayBuffer;
}

/** Compares a kept chunk with its source, byte for byte. */
export interface CompareKeptTask {
  readonly kind: "compare-kept";
  readonly source: SourceRows;
  readonly storedDtype: Dtype;
  readonly data: { readonly byteOffset: number; readonly byteLength: number };
  readonly slabRows: number;
  readonly input: ArrayBuffer;
}

/** Rebuilds a stored chunk into bytes of `dtype`. */
export interface RebuildTask {
  readonly kind: "rebuild";
  readonly stored: StoredSpec;
  readonly rows: number;
  readonly cols: number;
  readonly parts: PartRanges;
  readonly equalizationScales: Float32Array | null;
  readonly dtype: "F32" | "F16" | "BF16";
  readonly slabRows: number;
  readonly input: ArrayBuffer;
  readonly output: ArrayBuffer;
}

/** Converts the bytes of a kept chunk to `dtype`. */
export interface ConvertTask {
  readonly kind: "convert";
  readonly storedDtype: Dtype;
  readonly rows: number;
  readonly cols: number;
  readonly dtype: "F32" | "F16" | "BF16";
  readonly slabRows: number;
  readonly input: ArrayBuffer;
  readonly output: ArrayBuffer;
}

export type Task = QuantizeTask | KeepTask | CompareTask | CompareKeptTask | RebuildTask | ConvertTask;

/** A weight that cannot be quantized: NaN, infinite, or too large for float32 sums (kernels/chunk-quantizer.ts). */
export interface NonFiniteWeight {
  /** Row within the tensor. */
  readonly row: number;
  readonly col: number;
  readonly value: number;
}

export interface QuantizeReply {
  readonly output: ArrayBuffer;
  readonly parts: PartRanges;
  readonly sums: ErrorSums;
  readonly crc32: number;
  /** First weight that cannot be quantized; the rest of the reply then means nothing. */
  readonly nonFinite: NonFiniteWeight | null;
}

export interface KeepReply {
  readonly output: ArrayBuffer;
  readonly byteLength: number;
  readonly crc32: number;
}

export interface CompareReply {
  readonly input: ArrayBuffer;
  readonly sums: ErrorSums;
  readonly nonFinite: NonFiniteWeight | null;
}

export interface CompareKeptReply {
  readonly input: ArrayBuffer;
  readonly identical: boolean;
}

export interface RebuildReply {
  readonly input: ArrayBuffer;
  readonly output: ArrayBuffer;
  readonly byteLength: number;
}

/** The reply to each kind of task. */
export interface Replies {
  quantize: QuantizeReply;
  keep: KeepReply;
  compare: CompareReply;
  "compare-kept": CompareKeptReply;
  rebuild: RebuildReply;
  convert: RebuildReply;
}

/** Errors come back as values, since structured cloning would strip an error of its class and code. */
export type Reply<K extends Task["kind"]> = { readonly ok: Replies[K] } | { readonly error: SerializedError };
