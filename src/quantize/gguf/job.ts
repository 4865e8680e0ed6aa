/** What a GGUF output is asked for and what comes back. */
import type { ConfigSettings, ResolvedConfig } from "../../config/config.js";
import type { ProgressListener } from "../../engine/progress.js";
import type { GgufTypeName } from "../../formats/gguf/output-type.js";
import type { RoleNames } from "../../graph/roles.js";
import type { Dtype } from "../../tensor/dtype.js";
import type { TensorInfo } from "../../tensor/info.js";
import type { ErrorMetrics } from "../../tensor/metrics.js";
import type { Summary } from "../summary.js";

/** `PATTERN=TYPE`: the first whose pattern occurs in a tensor's name settles its type. */
export interface TensorTypeRule {
  readonly pattern: string;
  readonly type: GgufTypeName;
}

export interface GgufOptions {
  /** Of the weights that no rule singles out. */
  readonly type: GgufTypeName;
  readonly tensorTypes?: readonly TensorTypeRule[] | undefined;
  /** For ComfyUI-GGUF: longer names, five dimensions, convolutions as rows of 256. */
  readonly comfy?: boolean | undefined;
  /** Cut the file into pieces of at most this; absent: one file. */
  readonly maxFileBytes?: number | undefined;
}

export interface GgufJob extends GgufOptions {
  /** A model file or folder, of one component. */
  readonly input: string;
  /** The .gguf file. */
  readonly output: string;
  /** Settings by their configuration keys, or an already resolved configuration. */
  readonly config?: ConfigSettings | ResolvedConfig | undefined;
  /** Names of the graph's inputs and output, for calibration, where they are not evident. */
  readonly roles?: RoleNames | undefined;
  /** Replace an output that this program did not write. */
  readonly force?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ProgressListener | undefined;
}

export type GgufPlanJob = Omit<GgufJob, "output" | "force">;

/** A native file as GGUF. */
export interface GgufExportJob extends GgufOptions {
  /** A native file. */
  readonly input: string;
  readonly output: string;
  /** Without it there is no export: what is quantized already would be quantized again. */
  readonly allowRequantize: boolean;
  readonly force?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ProgressListener | undefined;
}

/** A tensor as rows, each of whole blocks. */
export interface RowView {
  readonly rows: number;
  readonly cols: number;
}

export interface GgufTensorPlan {
  readonly tensor: TensorInfo;
  /** In the file: the source's, perhaps without its prefix. */
  readonly name: string;
  /** Of the bytes in the file. */
  readonly dtype: Dtype;
  /** Of the file's tensor, outermost first. */
  readonly shape: readonly number[];
  /** Where `shape` is not the source's, what `comfy.gguf.orig_shape` says. */
  readonly originalShape: readonly number[] | null;
  readonly byteLength: number;
  /** The statistics know this layer: the search weighs columns by its importance. */
  readonly calibrated: boolean;
  /** The rule that settled the type, and what was wanted where it could not be had. */
  readonly reason: string;
  /** Another type was asked for. */
  readonly vetoed: boolean;
}

export interface GgufPlan {
  readonly input: string;
  /** Of the source. */
  readonly format: string;
  readonly component: string;
  readonly type: GgufTypeName;
  /** Value of `general.architecture`; null: not known, and left out. */
  readonly architecture: string | null;
  /** What told the architecture, or that nothing did. */
  readonly architectureRule: string;
  /** What was taken off every name. */
  readonly prefix: string;
  /** What the search weighs by; null: nothing. */
  readonly calibration: string | null;
  readonly tensors: readonly GgufTensorPlan[];
  readonly warnings: readonly string[];
  readonly sizes: {
    readonly bytesIn: number;
    /** Tensor bytes, without headers and padding. */
    readonly bytesOut: number;
    readonly compressionRatio: number;
    /** Over the tensors in blocks; null without any. */
    readonly bitsPerWeight: number | null;
  };
}

/** One tensor as it was written. */
export interface GgufLayerReport {
  /** In the source. */
  readonly name: string;
  readonly shape: readonly number[];
  /** In the source. */
  readonly dtype: string;
  readonly component: string;
  /** In the file, as in `--type`; other types as ggml calls them. */
  readonly quantType: string;
  readonly reason: string;
  readonly vetoed: boolean;
  readonly parameterCount: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
  /** null where nothing can have been lost. */
  readonly metrics: ErrorMetrics | null;
}

export interface GgufResult {
  /** The first file. */
  readonly output: string;
  readonly files: readonly string[];
  readonly plan: GgufPlan;
  readonly summary: Summary;
  readonly layers: readonly GgufLayerReport[];
  readonly warnings: readonly string[];
  /** Of the source, by component. */
  readonly fingerprints: Readonly<Record<string, string>>;
}
