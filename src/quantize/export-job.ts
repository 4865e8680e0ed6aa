/** What an export is asked for and what it gives back. */
import type { ProgressListener } from "../engine/progress.js";

export const EXPORT_DTYPES = ["F32", "F16", "BF16"] as const;
export type ExportDtype = (typeof EXPORT_DTYPES)[number];

export interface ExportJob {
  /** A native file; with `like` a pipeline, also a folder of them. */
  readonly input: string;
  /** A `.safetensors` file, or a folder that a loader takes in place of the original's. */
  readonly output: string;
  /** Of the rebuilt and all other floating-point weights, and of the scales of packed ones. */
  readonly dtype: ExportDtype;
  /**
   * The original, a pipeline folder or the folder of one component: the output is that folder again, with the same
   * shards and everything else that its loader reads, but for the weights of the native file's component.
   */
  readonly like?: string | undefined;
  /** Which weights of `like` are meant, `fp16` for `*.fp16.safetensors`; absent: those without a variant. */
  readonly variant?: string | undefined;
  /**
   * Keep linear layers quantized, packed as compressed-tensors' `pack-quantized`. Needs a folder, whose config.json
   * says so, and layers with whole zero points, without channel equalization, by another method than r2q.
   */
  readonly packed?: boolean | undefined;
  /** Without `like`: bytes above which a folder's weights are cut into shards; by default 5 · 10^9. */
  readonly maxShardBytes?: number | undefined;
  /** Replace whatever stands at `output`. */
  readonly force?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ProgressListener | undefined;
}

/** A layer that a packed export holds as plain weights although it was quantized. */
export interface DequantizedLayer {
  readonly component: string;
  readonly name: string;
  readonly reason: string;
}

export interface PackedSummary {
  readonly layers: number;
  readonly dequantized: readonly DequantizedLayer[];
  /** Largest relative error that rounding to `dtype` made of a scale; 0: rebuilt weights are the same to the bit. */
  readonly scaleRounding: number;
}

export interface ExportResult {
  readonly output: string;
  /** Tensors of the native files. */
  readonly tensors: number;
  /** Of all files written. */
  readonly bytesOut: number;
  readonly seconds: number;
  /** Names within the output folder; of a file output its name. */
  readonly files: readonly string[];
  /** What of the original was neither replaced nor copied: other sets of weights, folders that no loader reads. */
  readonly leftOut: readonly string[];
  /** null unless `packed`. */
  readonly packed: PackedSummary | null;
  readonly warnings: readonly string[];
}
