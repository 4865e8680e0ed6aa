/** The public face: one object per program, or a function per job for those who need only one. */
import type { BatchJobOptions } from "./batch/batch.js";
import type { BatchResult } from "./batch/result.js";
import type { CalibrateJob, CalibrateResult } from "./calibration/calibration-job.js";
import { BYTES_TEXT, MIN_MEMORY_BYTES, parseBytes } from "./config/bytes.js";
import type { ResolvedConfig } from "./config/config.js";
import type { ProgressEvent } from "./engine/progress.js";
import { Queue } from "./engine/queue.js";
import { Session } from "./engine/session.js";
import { deriveSignal } from "./engine/signal.js";
import { ArrowQuantError } from "./errors.js";
import type { ExportJob, ExportResult } from "./quantize/export-job.js";
import type { GgufExportResult } from "./quantize/gguf/export.js";
import type { GgufExportJob, GgufJob, GgufPlan, GgufPlanJob, GgufResult } from "./quantize/gguf/job.js";
import type { PlanText } from "./quantize/plan-text.js";
import type { LayerReport, PlanJob, QuantizeJob, QuantizePlan, QuantizeResult } from "./quantize/result.js";
import type { SensitivityJob, SensitivityResult } from "./quantize/sensitivity/sensitivity.js";
import type { ValidateJob, ValidateResult } from "./validate/result.js";

/** What a pool of threads may use. */
export interface ArrowQuantOptions {
  /** Worker threads, 1 … 256; by default one per core. */
  readonly threads?: number | undefined;
  /** Cap on the memory of the whole process, in bytes or as in configurations, e.g. `"320MiB"`; by default 512 MiB. */
  readonly memory?: number | string | undefined;
}

/** What `ArrowQuant.run` yields. */
export type QuantizeEvent =
  /** Once, first: what will be done. Nothing has been written yet. */
  | { readonly type: "planned"; readonly plan: QuantizePlan }
  /** Once per tensor, in file order, as it has been written; `index` counts from 0 over all components. */
  | { readonly type: "layer"; readonly layer: LayerReport; readonly index: number; readonly count: number }
  /** At most ten a second, and once at the end. */
  | { readonly type: "progress"; readonly progress: ProgressEvent }
  /** Once, last: the output is in place. */
  | { readonly type: "done"; readonly result: QuantizeResult };

/** Settings of a job's configuration that only a pool of its own can follow. */
const POOL_KEYS = { num_threads: "threads", memory: "memory" } as const;

/**
 * A pool of worker threads and a memory budget, shared by all jobs given to it, however many at once: as many as
 * the memory has room for are under way, the others wait their turn, first come, first served. A job that fails or
 * is cancelled harms no other, and the object works on afterwards.
 *
 * Threads start with the first job and end with `dispose`, or at the end of the block with `await using`.
 *
 * Every method rejects with an `ArrowQuantError` that bears a stable `code`, or with the reason of the job's signal,
 * then within 200 ms and with whatever was written removed.
 */
export class ArrowQuant {
  readonly #session: Session;

  /** @throws E_CONFIG for an impossible value, E_MEMORY for a cap that not even one thread runs in */
  constructor(options: ArrowQuantOptions = {}) {
    this.#session = new Session({ threads: options.threads, memoryBytes: readMemory(options.memory) });
  }

  /**
   * Quantizes a model into a native file, a folder of them, or whatever format the output's ending or `format` names.
   * The output appears whole or not at all.
   * @throws errors of the input, the configuration and the output; E_QUALITY with `fail_fast`; E_CALLBACK with the
   * error of a listener that threw or rejected as `cause`; the signal's reason
   */
  async quantize(job: QuantizeJob): Promise<QuantizeResult> {
    const { quantizeInto } = await import("./quantize/output-format.js");
    return withWarnings(await quantizeInto(job, this.#session), job);
  }

  /**
   * Quantizes as `quantize` does and tells of it as it happens. The job begins with the first event that is asked
   * for; leaving the loop early cancels it, and the loop is left once it has cleaned up. Events wait for a slow
   * reader, the job does not.
   */
  async *run(job: QuantizeJob): AsyncGenerator<QuantizeEvent, void, undefined> {
    const { quantizeInto } = await import("./quantize/output-format.js");
    const events = new Queue<QuantizeEvent>();
    using own = deriveSignal(job.signal);
    let index = 0;
    let count = 0;
    const working = quantizeInto(
      {
        ...job,
        signal: own.signal,
        onProgress: (progress) => {
          events.push({ type: "progress", progress });
          return job.onProgress?.(progress);
        },
      },
      this.#session,
      {
        onPlanned: (plan) => {
          count = plan.components.reduce((sum, { layers }) => sum + layers.length, 0);
          events.push({ type: "planned", plan });
        },
        onLayer: (layer) => events.push({ type: "layer", layer, index: index++, count }),
      },
    )
      .then((result) => events.push({ type: "done", result: withWarnings(result, job) }))
      .finally(() => events.close());
    // Its failure is thrown once the events before it have been read.
    working.catch(() => undefined);
    try {
      yield* events;
      await working;
    } finally {
      own.abort(new ArrowQuantError("E_INTERRUPTED", "the reader of the events has left"));
      await Promise.allSettled([working]);
    }
  }

  /**
   * What `quantize` would do: from headers and, where the configuration names a calibration or a target, statistics and
   * measurements of layers, which are taken now and kept for the quantization.
   */
  async plan(job: PlanJob): Promise<QuantizePlan> {
    const { planModel } = await import("./quantize/quantize.js");
    return planModel(job, this.#session);
  }

  /** The same, with the text of a plan file: a job with such a file as `plan` does exactly what it says. */
  async planText(job: PlanJob): Promise<PlanText> {
    const { writePlanText } = await import("./quantize/plan-text.js");
    return writePlanText(job, this.#session);
  }

  /**
   * Compares a native file, or a folder of them, with its source: re-read from disk, layer by layer. A failed
   * comparison is a result with `passed: false`, not an exception.
   */
  async validate(job: ValidateJob): Promise<ValidateResult> {
    const { validateModel } = await import("./validate/validate.js");
    return validateModel(job, this.#session);
  }

  /**
   * Takes statistics of what flows through the model's layers, by running it in ONNX Runtime. `quantize` does so by
   * itself where its configuration names a calibration that the cache has not got.
   */
  async calibrate(job: CalibrateJob): Promise<CalibrateResult> {
    const { calibrateModel } = await import("./calibration/calibrate.js");
    return calibrateModel(job, this.#session);
  }

  /**
   * Measures what every candidate (width and group size) costs each layer: the figures that a target chooses bits by.
   */
  async sensitivity(job: SensitivityJob): Promise<SensitivityResult> {
    const { measureModel } = await import("./quantize/sensitivity/sensitivity.js");
    return measureModel(job, this.#session);
  }

  /** Writes a native file as safetensors: a file of plain weights, or a folder in the original's place, packed or not. */
  async export(job: ExportJob): Promise<ExportResult> {
    const { exportNative } = await import("./quantize/export.js");
    return exportNative(job, this.#session);
  }

  /**
   * Writes a model of one component as GGUF, for stable-diffusion.cpp, ComfyUI-GGUF and diffusers. The output appears
   * whole or not at all.
   * @throws as `quantize` does; E_PATTERN, E_LIMIT, E_SHAPE, E_DTYPE for what loaders do not take
   */
  async quantizeGguf(job: GgufJob): Promise<GgufResult> {
    const { quantizeGguf } = await import("./quantize/gguf/quantize.js");
    return quantizeGguf(job, this.#session);
  }

  /** What `quantizeGguf` would write: the type of each tensor, and why. */
  async planGguf(job: GgufPlanJob): Promise<GgufPlan> {
    const { planGguf } = await import("./quantize/gguf/quantize.js");
    return planGguf(job, this.#session);
  }

  /** Writes a native file as GGUF, which quantizes it again, where `allowRequantize` allows it. */
  async exportGguf(job: GgufExportJob): Promise<GgufExportResult> {
    const { exportGguf } = await import("./quantize/gguf/export.js");
    return exportGguf(job, this.#session);
  }

  /** Runs many quantizations; failures of jobs are results. */
  async batch(options: BatchJobOptions): Promise<BatchResult> {
    const { runBatch } = await import("./batch/batch.js");
    return runBatch(options, this.#session);
  }

  /** Cancels what is under way (E_USAGE), waits until it has cleaned up, and ends the threads. May be called again. */
  dispose(): Promise<void> {
    return this.#session.dispose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}

/**
 * One quantization with threads of its own, as many and with as much memory as `options` say, else the job's
 * configuration (`num_threads`, `memory`).
 */
export async function quantize(job: QuantizeJob, options: ArrowQuantOptions = {}): Promise<QuantizeResult> {
  const config = await resolveJobConfig(job.config);
  const { num_threads: threads, memory } = config.values;
  const pool = { threads: options.threads ?? threads ?? undefined, memory: options.memory ?? memory };
  return withQuantizer(pool, (quantizer) => quantizer.quantize({ ...job, config }));
}

/** One validation with threads of its own. */
export function validate(job: ValidateJob, options: ArrowQuantOptions = {}): Promise<ValidateResult> {
  return withQuantizer(options, (quantizer) => quantizer.validate(job));
}

async function withQuantizer<R>(options: ArrowQuantOptions, work: (quantizer: ArrowQuant) => Promise<R>): Promise<R> {
  await using quantizer = new ArrowQuant(options);
  return await work(quantizer);
}

async function resolveJobConfig(config: QuantizeJob["config"]): Promise<ResolvedConfig> {
  const { resolveJob } = await import("./quantize/job-config.js");
  return resolveJob(config);
}

/** What the job's configuration asks of a pool that it shares with others. */
function withWarnings(result: QuantizeResult, { config }: QuantizeJob): QuantizeResult {
  const ignored = Object.entries(POOL_KEYS).filter(([key]) => config !== undefined && key in config);
  if (ignored.length === 0) return result;
  const warnings = ignored.map(
    ([key, option]) => `${key} of a job has no effect on a pool that jobs share: new ArrowQuant({ ${option} })`,
  );
  return { ...result, warnings: [...warnings, ...result.warnings] };
}

/** @throws E_CONFIG */
function readMemory(memory: number | string | undefined): number | undefined {
  if (memory === undefined) return undefined;
  const bytes = typeof memory === "number" ? memory : BYTES_TEXT.test(memory) ? parseBytes(memory) : Number.NaN;
  if (Number.isSafeInteger(bytes) && bytes >= MIN_MEMORY_BYTES) return bytes;
  throw new ArrowQuantError("E_CONFIG", `memory is ${JSON.stringify(memory)}`, {
    hint: 'a whole number of bytes, at least 1 MiB, or an amount such as "512MiB" or "1GB"',
    details: { memory },
  });
}
