/** What a calibration is asked and what it answers. */
import type { ProgressListener } from "../engine/progress.js";
import type { RoleNames } from "../graph/roles.js";
import type { Rejection } from "./data/rejections.js";
import type { SourceKind } from "./source-kind.js";
import type { StatisticsInfo } from "./statistics-info.js";

export interface CalibrateJob {
  /** A model file or folder. */
  readonly input: string;
  /** The ONNX graph that runs the model; null: the one found beside it. */
  readonly graph: string | null;
  /** `sampling`, `synthetic`, a statistics file, an imatrix, or the place of calibration data. */
  readonly source: string;
  /** A `.safetensors` file; null: the cache alone. */
  readonly output: string | null;
  /** Samples to take or read. */
  readonly samples: number;
  /** Steps of the sampler. */
  readonly steps: number;
  readonly seed: number;
  readonly roles: RoleNames;
  readonly variant: string | null;
  /** Components of a pipeline; null: its denoiser. Calibrated is one. */
  readonly components: readonly string[] | null;
  /** Whether Hessians are taken, which gptq needs and which cost the most time and disk. */
  readonly hessians: boolean;
  /** Where statistics and servers' files are kept. */
  readonly cacheFolder: string;
  /** Take statistics anew even where the cache has them. */
  readonly fresh?: boolean | undefined;
  /** Every which sample is held back from the statistics, to measure by; 0: none. */
  readonly heldBackEvery?: number | undefined;
  /** Malformed rows of calibration data that are passed over. */
  readonly maxRejected?: number | undefined;
  /** Replace an output that is no statistics file of this program. */
  readonly force?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ProgressListener | undefined;
}

export interface CalibrateResult {
  /** Where the statistics lie: the output, else in the cache, else where they were given. */
  readonly path: string;
  readonly info: StatisticsInfo;
  /** SHA-256 of the file. */
  readonly fingerprint: string;
  /** Nothing was run: the cache had them. */
  readonly cached: boolean;
  readonly source: {
    readonly kind: SourceKind;
    /** In words, for reports: synthetic inputs are called so. */
    readonly label: string;
  };
  readonly byteLength: number;
  readonly seconds: number;
  /** Malformed rows of the data, up to a thousand; none where nothing was read. */
  readonly rejected: readonly Rejection[];
  readonly warnings: readonly string[];
}

/** What a calibration is told by the caller that already holds a place among the session's jobs. */
export interface CalibrationPlace {
  readonly signal: AbortSignal;
  readonly abort: (reason: unknown) => void;
}
