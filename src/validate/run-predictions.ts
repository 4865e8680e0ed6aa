/**
 * The original and quantized graphs on the same inputs: those that the original's own sampling visits, with the samples
 * that each model then arrives at, or those of a data set.
 */
import type { CalibrationSample } from "../calibration/data/sample.js";
import { feedBatch } from "../calibration/graph-inputs.js";
import { createDenoiser, type DenoiserInputs, toFloats } from "../calibration/sampling.js";
import type { RunSession } from "../runtime/runtime.js";
import { seedBatchNoise } from "../sampler/noise.js";
import { sampleBatch } from "../sampler/sample.js";
import type { Scheduler } from "../sampler/scheduler.js";
import { countElements } from "../tensor/layout.js";
import { type TimeError, TimeErrors } from "../tensor/time-errors.js";

/** Samples under way at once. */
const BATCH_SAMPLES = 16;

export interface SamplingRun {
  /** Prediction errors of each quantized graph. */
  readonly errors: readonly (readonly TimeError[])[];
  /** [count, …]: what the original arrived at. */
  readonly original: Float32Array;
  /** What each quantized graph arrived at from the same noise. */
  readonly samples: readonly Float32Array[];
}

/** Denoises `sampleCount` samples with the original and with each of `quantized`. */
export async function runSampling(
  original: RunSession,
  quantized: readonly RunSession[],
  inputs: DenoiserInputs,
  scheduler: Scheduler,
  sampleCount: number,
  signal: AbortSignal,
  onRun: (done: number, total: number) => void,
): Promise<SamplingRun> {
  const sampleLength = countElements(inputs.sampleShape);
  const errors = quantized.map(() => new TimeErrors());
  const originals = new Float32Array(sampleCount * sampleLength);
  const samples = quantized.map(() => new Float32Array(sampleCount * sampleLength));
  const denoisers = quantized.map((session) => createDenoiser(session, inputs));
  const stepCount = scheduler.timesteps.length;
  // The original once, each quantized graph on the original's inputs and on its own.
  const total = sampleCount * stepCount * (1 + 2 * quantized.length);
  let done = 0;
  const tell = (count: number) => {
    done += count;
    onRun(done, total);
  };
  for (let first = 0; first < sampleCount; first += BATCH_SAMPLES) {
    const indices = Array.from({ length: Math.min(BATCH_SAMPLES, sampleCount - first) }, (_, i) => first + i);
    const startNoise = () => {
      const noise = seedBatchNoise(inputs.seed, indices);
      const sample = new Float32Array(indices.length * sampleLength);
      noise.fill(sample);
      return { noise, sample };
    };
    const sampled = await sampleBatch({
      denoiser: createDenoiser(original, inputs),
      scheduler,
      ...startNoise(),
      sampleIndices: indices,
      signal,
      onStep: async ({ time, input, prediction }) => {
        tell(indices.length);
        for (const [index, denoiser] of denoisers.entries()) {
          (errors[index] as TimeErrors).add(time, await denoiser.predict(input.slice(), time, indices), prediction);
          tell(indices.length);
        }
      },
    });
    originals.set(sampled, first * sampleLength);
    for (const [index, denoiser] of denoisers.entries()) {
      const onStep = () => tell(indices.length);
      const own = { denoiser, scheduler, ...startNoise(), sampleIndices: indices, signal, onStep };
      (samples[index] as Float32Array).set(await sampleBatch(own), first * sampleLength);
    }
  }
  return { errors: errors.map((each) => each.list()), original: originals, samples };
}

/** Prediction errors of each quantized graph on the samples of a data set. */
export async function runData(
  original: RunSession,
  quantized: readonly RunSession[],
  { graph, prediction }: Pick<DenoiserInputs, "graph" | "prediction">,
  samples: readonly CalibrationSample[],
  signal: AbortSignal,
  onRun: (done: number, total: number) => void,
): Promise<{ readonly errors: readonly (readonly TimeError[])[] }> {
  const errors = quantized.map(() => new TimeErrors());
  const total = samples.length * (1 + quantized.length);
  let done = 0;
  for (const batch of batchByTime(samples, graph.fixedBatch ?? BATCH_SAMPLES)) {
    const rows = graph.fixedBatch ?? batch.length;
    const predict = async (session: RunSession) => {
      signal.throwIfAborted();
      const outputs = await session.run(feedBatch(graph, batch, rows), [prediction]);
      const values = toFloats(outputs[prediction]?.data, prediction);
      done += batch.length;
      onRun(done, total);
      return values.subarray(0, (values.length / rows) * batch.length);
    };
    const reference = await predict(original);
    const { time } = batch[0] as CalibrationSample;
    for (const [index, session] of quantized.entries()) {
      (errors[index] as TimeErrors).add(time, await predict(session), reference);
    }
  }
  return { errors: errors.map((each) => each.list()) };
}

/** Samples of one time and layout together, `most` at once. */
function batchByTime(samples: readonly CalibrationSample[], most: number): CalibrationSample[][] {
  const byKey = new Map<string, CalibrationSample[]>();
  for (const sample of samples) {
    const key = JSON.stringify([sample.time, [...sample.shapes]]);
    const group = byKey.get(key);
    if (group === undefined) byKey.set(key, [sample]);
    else group.push(sample);
  }
  return [...byKey.values()].flatMap((group) =>
    Array.from({ length: Math.ceil(group.length / most) }, (_, i) => group.slice(i * most, (i + 1) * most)),
  );
}
