/** What validation is asked and what it answers. */
import type { ProgressListener } from "../engine/progress.js";
import type { Summary } from "../quantize/summary.js";
import type { ErrorMetrics } from "../tensor/metrics.js";
import type { RunOptions, RunResult } from "./run-result.js";

export interface ValidateJob {
  /** The source model. */
  readonly original: string;
  /** A native file, a folder of one per component, or a GGUF file. */
  readonly quantized: string;
  /** Least cosine similarity of a layer; by default 0.70 at 2 bits to 0.95 at 8. */
  readonly minAccuracy?: number | undefined;
  /** Variant of the source's files, e.g. `fp16`. */
  readonly variant?: string | undefined;
  /** Run both models as well; needs `onnxruntime-node` and the model's ONNX graph. */
  readonly run?: RunOptions | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ProgressListener | undefined;
}

export interface ValidatedLayer {
  readonly name: string;
  readonly component: string;
  readonly shape: readonly number[];
  readonly dtype: string;
  /** `QuantType` of a native file, of GGUF the type in the file: `q4_k`, `f32`, `i64`. */
  readonly quantType: string;
  readonly groupSize: number | null;
  readonly method: string | null;
  readonly parameterCount: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
  /** Kept tensors are compared byte for byte: `identical`, and metrics are null. */
  readonly identical: boolean | null;
  readonly metrics: ErrorMetrics | null;
  /** null for kept tensors. */
  readonly threshold: number | null;
  readonly passed: boolean;
}

export interface ValidateResult {
  readonly original: string;
  readonly quantized: string;
  readonly passed: boolean;
  readonly summary: Summary;
  readonly components: Readonly<Record<string, ErrorMetrics | null>>;
  readonly layers: readonly ValidatedLayer[];
  /** Layers of the source that the file lacks, of the file that the source lacks, and of another shape or type. */
  readonly missing: readonly string[];
  readonly extra: readonly string[];
  readonly misshapen: readonly string[];
  /** What running both models showed; null where that was not asked for. */
  readonly run: RunResult | null;
  readonly warnings: readonly string[];
}
