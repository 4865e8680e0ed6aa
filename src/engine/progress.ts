/** Progress of one job: monotonic, rate-limited, never shared between jobs. */

export interface ProgressEvent {
  readonly phase:
    | "plan"
    | "sample"
    | "calibrate"
    | "sensitivity"
    | "search"
    | "quantize"
    | "validate"
    | "run"
    | "export"
    | "finish";
  readonly component: string;
  /** Layer being worked on last; empty while planning and finishing. */
  readonly layer: string;
  readonly layersDone: number;
  readonly layersTotal: number;
  /** Bytes of source done and in all. */
  readonly bytesDone: number;
  readonly bytesTotal: number;
  readonly elapsedSeconds: number;
  /** null until there is something to extrapolate from. */
  readonly remainingSeconds: number | null;
}

/** May throw or reject: that fails its own job, with the thrown value as cause. */
export type ProgressListener = (event: ProgressEvent) => void | Promise<void>;
