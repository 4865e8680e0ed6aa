/** What a job is asked and what it answers; the CLI's `--json` is made of these. */
import type { ConfigSettings, ResolvedConfig } from "../config/config.js";
import type { ProgressListener } from "../engine/progress.js";
import type { QuantType } from "../formats/parquet/row.js";
import type { RoleNames } from "../graph/roles.js";
import type { ComponentPlan } from "../plan/plan.js";
import type { MethodName } from "../tensor/layout.js";
import type { ErrorMetrics, OutputMetrics } from "../tensor/metrics.js";
import type { ExportDtype, ExportResult } from "./export-job.js";
import type { OnnxExportResult } from "./export-onnx.js";
import type { LayerTrial } from "./layer-search.js";
import type { OutputFormatName } from "./output-format.js";
import type { Summary } from "./summary.js";

export type { Summary } from "./summary.js";

export interface QuantizeJob {
  /** A model file or folder. */
  readonly input: string;
  /** A `.parquet` file for one component, a folder for several; or what `OUTPUT_FORMATS` has, by its ending. */
  readonly output: string;
  /** Where `output` does not tell it by its ending. */
  readonly format?: OutputFormatName | undefined;
  /** Safetensors: type of the rebuilt weights, required. ONNX: what the graph computes in, by default F32. */
  readonly dtype?: ExportDtype | undefined;
  /** Safetensors, a folder: linear layers stay quantized, as `ExportJob.packed`. */
  readonly packed?: boolean | undefined;
  /** ONNX: quantize the inputs of layers too, as `OnnxExportJob.activations`. */
  readonly activations?: boolean | undefined;
  /** Settings by their configuration keys, or an already resolved configuration. */
  readonly config?: ConfigSettings | ResolvedConfig | undefined;
  /** Path of a plan file that settles what is done with each tensor; its settings give way to those of `config`. */
  readonly plan?: string | undefined;
  /** Replace an output that this program did not write. */
  readonly force?: boolean | undefined;
  /**
   * Go on where a stopped run with the same source, settings and `resume` left off, and keep what this one has done
   * if it is stopped too. Takes as much disk again as the output, in `OUTPUT.arrowquant-resume`, until the job is done.
   */
  readonly resume?: boolean | undefined;
  /** Names of the graph's inputs and output, for calibration, where they are not evident. */
  readonly roles?: RoleNames | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ProgressListener | undefined;
}

/** What is to be planned. */
export type PlanJob = Pick<QuantizeJob, "input" | "config" | "plan" | "roles" | "signal" | "onProgress">;

/** One tensor as it was written. */
export interface LayerReport {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: string;
  readonly component: string;
  readonly quantType: QuantType;
  readonly groupSize: number | null;
  readonly method: MethodName | null;
  /** The rule that quantized or kept it. */
  readonly reason: string;
  /** Widths tried before, from the first on, each with the cosine similarity that was too low. */
  readonly fallbackFrom: readonly { readonly quantType: string; readonly cosineSimilarity: number }[];
  readonly parameterCount: number;
  readonly bytesIn: number;
  /** Bytes stored with everything a reader needs: codes, scales, zero points. */
  readonly bytesOut: number;
  /** Of its weights; null when kept. */
  readonly metrics: ErrorMetrics | null;
  /** Of its output, on rows of its input that calibration held back; null where that was not measured. */
  readonly output: OutputMetrics | null;
  /** α of the channel equalization; null: none. */
  readonly smoothing: number | null;
  /** Timestep groups with activation parameters of their own; null: activations stay as they are. */
  readonly timeGroups: number | null;
  /** What was compared, in the order tried. */
  readonly trials: readonly LayerTrial[];
}

export interface QuantizePlan {
  readonly input: string;
  readonly format: string;
  readonly components: readonly ComponentPlan[];
  readonly warnings: readonly string[];
  readonly sizes: {
    readonly bytesIn: number;
    /** Tensor bytes the file will hold, without Parquet's own pages and footer. */
    readonly bytesOut: number;
    readonly compressionRatio: number;
    readonly bitsPerWeight: number | null;
  };
}

/** What the native file was turned into. */
export type ExportedOutput =
  | { readonly format: "onnx"; readonly result: OnnxExportResult }
  | { readonly format: "safetensors"; readonly dtype: ExportDtype; readonly result: ExportResult };

export interface QuantizeResult {
  readonly output: string;
  /** null: the output is the native file itself. */
  readonly exported: ExportedOutput | null;
  readonly plan: QuantizePlan;
  readonly summary: Summary;
  readonly layers: readonly LayerReport[];
  readonly warnings: readonly string[];
  /** Fingerprint of each component's source, by component name. */
  readonly fingerprints: Readonly<Record<string, string>>;
}
