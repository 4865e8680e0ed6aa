/**
 * One row of a native file as plain data: a tensor, or a run of rows of its 2-D view (FORMAT.md, Columns).
 */
import { crc32 } from "node:zlib";
import type { Dtype } from "../../tensor/dtype.js";
import type { MethodName } from "../../tensor/layout.js";
import type { ErrorSums } from "../../tensor/metrics.js";

/** Code width of each `quant_type`; 0: kept. */
export const QUANT_TYPES = { none: 0, int2: 2, int3: 3, int4: 4, int5: 5, int6: 6, int8: 8 } as const;
export type QuantType = keyof typeof QUANT_TYPES;

export interface TimeGroupParams {
  readonly timeRange: { readonly start: number; readonly end: number };
  readonly scale: number;
  readonly zeroPoint: number;
  readonly groupSize: number | null;
}

/** Quantization of the layer's input per timestep group. */
export interface TimeAwareQuant {
  readonly enabled: boolean;
  readonly numTimeGroups: number;
  readonly activationBits: number;
  readonly timeInput: string;
  readonly timeGroupParams: readonly TimeGroupParams[];
}

export interface SpatialQuant {
  readonly enabled: boolean;
  readonly channelEqualization: boolean;
  readonly activationSmoothing: number;
  /** One per input channel: what the weight was multiplied by; empty where nothing was. */
  readonly equalizationScales: Float32Array;
}

/** Of the layer's input over the calibration set. */
export interface ActivationStats {
  readonly mean: number;
  readonly std: number;
  readonly min: number;
  readonly max: number;
}

/** Errors of this row's part of the tensor; the sums are float64, the rest float32 in the file. */
export interface RowMetrics extends Readonly<ErrorSums> {
  readonly cosineSimilarity: number;
  readonly sqnrDb: number;
  readonly relativeRmse: number;
}

/**
 * What a row says besides codes and scales; all of it but `metrics`, `crc32`, `chunkIndex` is the tensor's.
 */
export interface NativeRowMeta {
  readonly layerName: string;
  readonly shape: readonly number[];
  readonly dtype: Dtype;
  readonly paramCount: number;
  readonly quantType: QuantType;
  /** null when kept. */
  readonly quantAxis: number | null;
  readonly groupSize: number | null;
  readonly isDiffusionModel: boolean;
  readonly modality: string | null;
  readonly timeAware: TimeAwareQuant | null;
  readonly spatial: SpatialQuant | null;
  readonly activationStats: ActivationStats | null;
  readonly component: string;
  readonly method: MethodName | null;
  /** Type of `data`; null unless kept. */
  readonly storedDtype: Dtype | null;
  readonly metrics: RowMetrics | null;
  /** null in plain V2 files, which have none. */
  readonly crc32: number | null;
  readonly chunkIndex: number;
  readonly chunkCount: number;
  readonly scaleBits: number | null;
  readonly superGroupSize: number | null;
  readonly zeroPointBits: number | null;
}

export interface NativeRow extends NativeRowMeta {
  readonly data: Uint8Array;
  readonly scales: Float32Array | null;
  readonly zeroPoints: Float32Array | null;
  readonly scaleCodes: Uint8Array | null;
  readonly zeroPointCodes: Uint8Array | null;
  readonly residualScaleCodes: Uint8Array | null;
}

/** The parts that hold a row's bytes, in the order in which the checksum takes them. */
type RowParts = Pick<
  NativeRow,
  "data" | "scales" | "zeroPoints" | "scaleCodes" | "zeroPointCodes" | "residualScaleCodes"
>;

function asBytes(values: Float32Array | Uint8Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

function rowParts(row: RowParts): Uint8Array[] {
  return [row.data, row.scales, row.zeroPoints, row.scaleCodes, row.zeroPointCodes, row.residualScaleCodes]
    .filter((part) => part !== null)
    .map(asBytes);
}

/** CRC-32 (IEEE) of the row's codes and scales as FORMAT.md chains them; null parts count as nothing. */
export function rowCrc32(row: RowParts): number {
  return rowParts(row).reduce((crc, part) => crc32(part, crc), 0);
}

/** Bytes of the row's codes and scales. */
export function rowPayloadBytes(row: RowParts): number {
  return rowParts(row).reduce((sum, part) => sum + part.byteLength, 0);
}

/** A row's place for messages. */
export function rowLabel(row: Pick<NativeRowMeta, "layerName" | "chunkIndex" | "chunkCount">): string {
  return `"${row.layerName}" chunk ${row.chunkIndex} of ${row.chunkCount}`;
}
