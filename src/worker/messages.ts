/**
 * What crosses between the main thread and the workers: plain data and one ArrayBuffer that is moved, not copied.
 */
import type { SerializedError } from "../errors.js";
import type { InputStatistics } from "../plan/input-distributions.js";
import type { ActivationSettings } from "../plan/plan.js";
import type { TimeGroups, TimeRange } from "../plan/time-groups.js";
import type { BlockDtype, Dtype } from "../tensor/dtype.js";
import type { QuantSpec } from "../tensor/layout.js";
import type { ErrorSums, OutputSums } from "../tensor/metrics.js";
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
  /** Of the first row's first element; a fraction of a byte where that lies in the middle of a block. */
  readonly byteOffset: number;
  readonly dtype: Dtype;
  readonly rows: number;
  readonly cols: number;
  /** First row within the tensor. */
  readonly firstRow: number;
  /** Rows of the whole matrix where the file holds it [columns, rows]; absent: rows lie one after the other. */
  readonly storedRows?: number;
  /** Source scale values: none, one, or one per row of this run. */
  readonly scales: Float32Array | null;
}

/** Where float32 values lie in a file that outlasts the task. */
export interface FloatPlace {
  readonly path: string;
  readonly byteOffset: number;
}

/** A Hessian's factor on disk, and what else gptq needs of it. */
export interface HessianFactorPlace extends FloatPlace {
  /** Natural index of the column that is quantized i-th. */
  readonly order: Int32Array;
  /** 1 for each column, in natural order, whose input was always zero. */
  readonly deadColumns: Uint8Array;
}

/** Rows of a layer's input to measure its output on. */
export interface HeldBackRows extends FloatPlace {
  readonly rowCount: number;
  /** How each row is quantized before it meets the rebuilt weights; null: not at all. */
  readonly activations: ActivationRows | null;
}

/** Parameters of each held-back row's time group (FORMAT.md, Activations). */
export interface ActivationRows {
  readonly bits: number;
  readonly scales: Float32Array;
  readonly zeroPoints: Float32Array;
}

/** What calibration adds to the quantization of a chunk. */
export interface ChunkCalibration {
  /** float32[cols], mean one; null: all ones. */
  readonly importance: Float32Array | null;
  /** float32[channels]: what the weights of each input channel are multiplied by first. */
  readonly equalizationScales: Float32Array | null;
  /** What method gptq needs. */
  readonly factor: HessianFactorPlace | null;
  /** null: the output's error is not measured. */
  readonly heldBack: HeldBackRows | null;
}

/** Quantizes a chunk. */
export interface QuantizeTask {
  readonly kind: "quantize";
  readonly source: SourceRows;
  readonly spec: QuantSpec;
  readonly calibration: ChunkCalibration | null;
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
  /** float32[cols]: errors are also to be weighted by it. */
  readonly importance?: Float32Array;
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

/** Searches the codes of rows of whole blocks (ggml). */
export interface GgmlTask {
  readonly kind: "ggml";
  readonly source: SourceRows;
  readonly type: BlockDtype;
  /** float32[cols], mean one; null: all ones. */
  readonly importance: Float32Array | null;
  readonly slabRows: number;
  readonly output: ArrayBuffer;
}

/** Casts rows to a float type of fewer bits, or, without an output, only looks at them. */
export interface CastTask {
  readonly kind: "cast";
  readonly source: SourceRows;
  readonly dtype: "F32" | "F16" | "BF16";
  /** Weights of this magnitude and beyond, and NaN, stop it. */
  readonly limit: number;
  readonly slabRows: number;
  readonly output: ArrayBuffer | null;
}

/** Compares rows of a source with rows of a file that holds them plainly or in blocks. */
export interface CompareRowsTask {
  readonly kind: "compare-rows";
  readonly source: SourceRows;
  readonly stored: SourceRows;
  readonly slabRows: number;
}

/** Largest magnitude of each column of a run of rows. */
export interface ColumnMaximaTask {
  readonly kind: "column-maxima";
  readonly source: SourceRows;
  readonly slabRows: number;
}

/** Counts the weights of a tensor in equal bins from the least to the largest. */
export interface HistogramTask {
  readonly kind: "histogram";
  /** All its rows: the range is that of them all. */
  readonly source: SourceRows;
  readonly bins: number;
  readonly slabRows: number;
}

/** Factors a damped Hessian into a file (kernels/factor.ts). */
export interface FactorTask {
  readonly kind: "factor";
  /** float32[cols, cols] */
  readonly hessian: FloatPlace;
  readonly cols: number;
  /** float32[channels]: what the input is divided by; null: nothing. */
  readonly equalizationScales: Float32Array | null;
  readonly damp: number;
  readonly order: "activation" | "natural";
  readonly outputPath: string;
}

/** Plans the time groups of a layer's input (plan/time-groups.ts): too much arithmetic for the main thread. */
export interface TimeGroupsTask {
  readonly kind: "time-groups";
  readonly statistics: InputStatistics;
  readonly smoothing: Float32Array | null;
  readonly bins: readonly TimeRange[];
  readonly settings: ActivationSettings;
}

export type Task =
  | GgmlTask
  | CastTask
  | CompareRowsTask
  | TimeGroupsTask
  | ColumnMaximaTask
  | HistogramTask
  | FactorTask
  | QuantizeTask
  | KeepTask
  | CompareTask
  | CompareKeptTask
  | RebuildTask
  | ConvertTask;

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
  /** Of the layer's output on the held-back rows; null where there are none. */
  readonly outputSums: OutputSums | null;
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
  /** Weighted by importance; null where there is none. */
  readonly importanceSums: OutputSums | null;
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

export type TimeGroupsReply = Omit<TimeGroups, "error" | "energy">;

export interface ColumnMaximaReply {
  /** float32[cols] */
  readonly maxima: Float32Array;
}

export interface HistogramReply {
  /** [bins]: how many weights lie in each. */
  readonly counts: Float64Array;
  /** First weight that has no place in a histogram; the counts then mean nothing. */
  readonly nonFinite: NonFiniteWeight | null;
}

export interface FactorReply {
  /** False: there is no factor, and nothing was written. */
  readonly isPositiveDefinite: boolean;
  readonly order: Int32Array;
  readonly deadColumns: Uint8Array;
}

export interface GgmlReply {
  readonly output: ArrayBuffer;
  readonly byteLength: number;
  readonly sums: ErrorSums;
  /** First weight that cannot be quantized; the rest of the reply then means nothing. */
  readonly nonFinite: NonFiniteWeight | null;
}

export interface CastReply {
  readonly output: ArrayBuffer | null;
  readonly byteLength: number;
  readonly sums: ErrorSums;
  /** First weight beyond the limit; the rest of the reply then means nothing. */
  readonly nonFinite: NonFiniteWeight | null;
}

export interface CompareRowsReply {
  readonly sums: ErrorSums;
  /** First weight of the source that is not finite; the rest of the reply then means nothing. */
  readonly nonFinite: NonFiniteWeight | null;
}

/** The reply to each kind of task. */
export interface Replies {
  ggml: GgmlReply;
  cast: CastReply;
  "compare-rows": CompareRowsReply;
  "time-groups": TimeGroupsReply;
  "column-maxima": ColumnMaximaReply;
  histogram: HistogramReply;
  factor: FactorReply;
  quantize: QuantizeReply;
  keep: KeepReply;
  compare: CompareReply;
  "compare-kept": CompareKeptReply;
  rebuild: RebuildReply;
  convert: RebuildReply;
}

/** Errors come back as values, since structured cloning would strip an error of its class and code. */
export type Reply<K extends Task["kind"]> = { readonly ok: Replies[K] } | { readonly error: SerializedError };
