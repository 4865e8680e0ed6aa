/**
 * The one error class of the program and the closed set of its codes.
 *
 * A code is stable: scripts match on it. The exit code of the CLI is a function of the code alone.
 */

/** Every error code with the exit code the CLI gives it and what it means. */
export const ERRORS = {
  E_INTERNAL: { exitCode: 1, meaning: "a fault of this program" },
  E_WORKER: { exitCode: 1, meaning: "a worker thread died" },
  E_CALLBACK: { exitCode: 1, meaning: "a callback of the calling program threw or rejected" },
  E_WRITE: { exitCode: 1, meaning: "the output could not be written (disk full, permissions, folder gone)" },
  E_KERNELS: { exitCode: 1, meaning: "the requested kernel build cannot run here" },

  E_USAGE: { exitCode: 2, meaning: "the command line is wrong" },
  E_CONFIG: { exitCode: 2, meaning: "a configuration file, variable or flag holds a wrong value" },
  E_CONFLICT: { exitCode: 2, meaning: "two settings contradict each other" },
  E_TARGET: { exitCode: 2, meaning: "a target of size or error is out of reach" },
  E_PATTERN: { exitCode: 2, meaning: "a pattern is not a regular expression or matches no tensor" },
  E_MODALITY: { exitCode: 2, meaning: "the modality is not evident from the model" },
  E_MEMORY: { exitCode: 2, meaning: "the memory cap is too small for this input" },
  E_OUTPUT: { exitCode: 2, meaning: "the output would overwrite something this program did not write" },
  E_PLAN: { exitCode: 2, meaning: "a plan file is malformed or does not fit the model" },
  E_JOB_FILE: { exitCode: 2, meaning: "a batch job file is wrong" },
  E_RUNTIME: { exitCode: 2, meaning: "the runtime that runs models is missing or cannot be loaded" },

  E_NOT_FOUND: { exitCode: 3, meaning: "no such file or folder" },
  E_READ: { exitCode: 3, meaning: "the input could not be read" },
  E_UNKNOWN_FORMAT: { exitCode: 3, meaning: "no reader knows this file or folder" },
  E_TRUNCATED: { exitCode: 3, meaning: "a file ends before its data does" },
  E_TRAILING: { exitCode: 3, meaning: "a file goes on after its data ends" },
  E_HEADER: { exitCode: 3, meaning: "a header is malformed" },
  E_HEADER_SIZE: { exitCode: 3, meaning: "a header is larger than the limit or than its file" },
  E_UTF8: { exitCode: 3, meaning: "text is not valid UTF-8" },
  E_JSON: { exitCode: 3, meaning: "text is not the JSON it must be" },
  E_DUPLICATE: { exitCode: 3, meaning: "a key or tensor name stands twice" },
  E_INTEGER: { exitCode: 3, meaning: "an integer is negative, fractional or beyond 2^53 - 1" },
  E_DTYPE: { exitCode: 3, meaning: "an unknown or unsupported element type" },
  E_SHAPE: { exitCode: 3, meaning: "shape, type and byte length disagree" },
  E_BOUNDS: { exitCode: 3, meaning: "a tensor ends before it begins or lies outside its file" },
  E_OVERLAP: { exitCode: 3, meaning: "two tensors share bytes" },
  E_HOLE: { exitCode: 3, meaning: "bytes of the data belong to no tensor" },
  E_PATH: { exitCode: 3, meaning: "a path leaves the folder it must stay in" },
  E_INDEX: { exitCode: 3, meaning: "a shard index and its shards disagree" },
  E_LIMIT: { exitCode: 3, meaning: "an input passes a named limit" },
  E_COMPONENT: { exitCode: 3, meaning: "the model has no such component" },
  E_VARIANT: { exitCode: 3, meaning: "the model has no such variant of its weights" },
  E_PREQUANTIZED: {
    exitCode: 3,
    meaning: "the source is quantized already, unreadably or without leave to do it again",
  },
  E_NONFINITE: { exitCode: 3, meaning: "a weight is NaN or infinite" },
  E_NOTHING: { exitCode: 3, meaning: "nothing to quantize" },
  E_GRAPH: { exitCode: 3, meaning: "the ONNX graph does not belong to the model or cannot be used" },
  E_SCHEDULER: { exitCode: 3, meaning: "the scheduler's configuration is malformed or of a kind that is not known" },
  E_CALIBRATION: { exitCode: 3, meaning: "calibration data is missing, malformed or too little" },
  E_DOWNLOAD: { exitCode: 3, meaning: "a file could not be fetched from its server" },
  E_STATISTICS: { exitCode: 3, meaning: "a statistics file is malformed or belongs to another model" },
  E_NATIVE: { exitCode: 3, meaning: "a native file breaks its format" },
  E_CRC: { exitCode: 3, meaning: "a checksum does not match" },
  E_CHANGED: { exitCode: 3, meaning: "the input changed while it was read" },

  E_QUALITY: { exitCode: 4, meaning: "quality below the threshold" },
  E_MISMATCH: { exitCode: 4, meaning: "missing, extra or misshapen layers" },

  E_JOBS: { exitCode: 5, meaning: "some batch jobs failed" },

  E_INTERRUPTED: { exitCode: 130, meaning: "stopped by a signal" },
} as const satisfies Record<string, { exitCode: number; meaning: string }>;

export type ErrorCode = keyof typeof ERRORS;

export interface ErrorOptionsWithNumbers {
  /** What the user can do about it. */
  hint?: string;
  /** The numbers and names that matter, as plain JSON values. */
  details?: Readonly<Record<string, unknown>>;
  cause?: unknown;
}

/** A failure with a stable code. Crosses threads as the plain object of `toJSON`. */
export class ArrowQuantError extends Error {
  override readonly name = "ArrowQuantError";
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: ErrorCode, message: string, options: ErrorOptionsWithNumbers = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint;
    this.details = options.details ?? {};
  }

  get exitCode(): number {
    return ERRORS[this.code].exitCode;
  }

  toJSON(): SerializedError {
    return { code: this.code, message: this.message, hint: this.hint ?? null, details: this.details };
  }

  static fromJSON(error: SerializedError): ArrowQuantError {
    return new ArrowQuantError(error.code, error.message, {
      ...(error.hint === null ? {} : { hint: error.hint }),
      details: error.details,
    });
  }
}

export interface SerializedError {
  code: ErrorCode;
  message: string;
  hint: string | null;
  details: Readonly<Record<string, unknown>>;
}

/** Any thrown value as an error of ours; what is not one already becomes `E_INTERNAL` with it as cause. */
export function toArrowQuantError(thrown: unknown): ArrowQuantError {
  if (thrown instanceof ArrowQuantError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new ArrowQuantError("E_INTERNAL", message, { cause: thrown });
}
