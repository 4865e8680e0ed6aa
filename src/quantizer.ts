/** The public face: one object per program, or a function per job for those who need only one. */
import type { BatchJobOptions } from "./batch/batch.js";
import type { BatchResult } from "./batch/result.js";
import { Session } from "./engine/session.js";
import type { ExportJob, ExportResult } from "./quantize/export.js";
import type { QuantizeJob, QuantizePlan, QuantizeResult } from "./quantize/result.js";
import type { ValidateJob, ValidateResult } from "./validate/result.js";

export interface ArrowQuantOptions {
  /** Worker threads; by default one per core. */
  readonly threads?: number;
  /** Cap on the memory of the whole process in bytes; by default 512 MiB. */
  readonly memory?: number;
}

/**
 * A pool of worker threads and a memory budget, shared by all jobs given to it, however many at once.
 * Threads start with the first job and end with `dispose` (or `await using`).
 */
export class ArrowQuant {
  readonly #session: Session;

  /** @throws E_CONFIG, E_MEMORY */
  constructor(options: ArrowQuantOptions = {}) {
    this.#session = new Session({ threads: options.threads, memoryBytes: options.memory });
  }

  /** Quantizes a model into a native file, or into a folder of them. */
  async quantize(job: QuantizeJob): Promise<QuantizeResult> {
    const { quantizeModel } = await import("./quantize/quantize.js");
    return quantizeModel(job, this.#session);
  }

  /** What `quantize` would do, from headers alone. */
  async plan(job: Pick<QuantizeJob, "input" | "config">): Promise<QuantizePlan> {
    const { planModel } = await import("./quantize/quantize.js");
    return planModel(job);
  }

  /** Compares a native file with its source; a failed comparison is a result, not an exception. */
  async validate(job: ValidateJob): Promise<ValidateResult> {
    const { validateModel } = await import("./validate/validate.js");
    return validateModel(job, this.#session);
  }

  /** Rebuilds a native file into a safetensors file. */
  async export(job: ExportJob): Promise<ExportResult> {
    const { exportNative } = await import("./quantize/export.js");
    return exportNative(job, this.#session);
  }

  /** Runs many quantizations; failures are results. */
  async batch(options: BatchJobOptions): Promise<BatchResult> {
    const { runBatch } = await import("./batch/batch.js");
    return runBatch(options, this.#session);
  }

  dispose(): Promise<void> {
    return this.#session.dispose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#session.dispose();
  }
}

/** One quantization with threads of its own. */
export function quantize(job: QuantizeJob, options: ArrowQuantOptions = {}): Promise<QuantizeResult> {
  return withQuantizer(options, (quantizer) => quantizer.quantize(job));
}

/** One validation with threads of its own. */
export function validate(job: ValidateJob, options: ArrowQuantOptions = {}): Promise<ValidateResult> {
  return withQuantizer(options, (quantizer) => quantizer.validate(job));
}

async function withQuantizer<R>(
  options: ArrowQuantOptions,
  work: (quantizer: ArrowQuant) => Promise<R>,
): Promise<R> {
  const quantizer = new ArrowQuant(options);
  try {
    return await work(quantizer);
  } finally {
    await quantizer.dispose();
  }
}
