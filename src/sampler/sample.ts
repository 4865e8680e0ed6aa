/** The denoising loop: from noise to samples, one batch at one time after another. */
import { ArrowQuantError } from "../errors.js";
import type { NoiseSource } from "./noise.js";
import type { Scheduler } from "./scheduler.js";

/** A model as the sampler sees it: samples [B, …] of one time in, its prediction for each out. */
export interface Denoiser {
  /**
   * `sampleIndices[i]` says which sample of the set stands at place i of the batch (its labels and the like belong
   * to it). The prediction is as long as `sample`, or twice as long where the model also predicts a variance: in
   * the second half of each sample's channels, which is left out. `sample` is overwritten after the call.
   */
  predict(sample: Float32Array, time: number, sampleIndices: readonly number[]): Promise<Float32Array>;
}

/** What a step saw, before it was taken; the arrays are overwritten after the call. */
export interface SamplingStep {
  readonly stepIndex: number;
  readonly stepCount: number;
  readonly time: number;
  /** As the model took it. */
  readonly input: Float32Array;
  readonly prediction: Float32Array;
}

export interface SamplingJob {
  readonly denoiser: Denoiser;
  readonly scheduler: Scheduler;
  /** [B, …] standard normals; overwritten with the samples. */
  readonly sample: Float32Array;
  readonly sampleIndices: readonly number[];
  /** Where the scheduler adds noise: one stream per sample (`seedBatchNoise`) makes it independent of the batch. */
  readonly noise: NoiseSource;
  readonly signal?: AbortSignal;
  readonly onStep?: (step: SamplingStep) => void | Promise<void>;
}

/**
 * Runs all steps of `scheduler` and resolves to `sample`. Rejects with the signal's reason, `E_SHAPE` where sample
 * or prediction are no whole number for each sample, `E_NONFINITE` where a prediction is not finite.
 */
export async function sampleBatch(job: SamplingJob): Promise<Float32Array> {
  const { denoiser, scheduler, sample, sampleIndices, noise, signal, onStep } = job;
  if (sampleIndices.length === 0 || sample.length % sampleIndices.length !== 0) {
    throw new ArrowQuantError("E_SHAPE", `${sample.length} values cannot be ${sampleIndices.length} samples`, {
      details: { valueCount: sample.length, sampleCount: sampleIndices.length },
    });
  }
  for (let i = 0; i < sample.length; i++) sample[i] = (sample[i] as number) * scheduler.initialScale;
  const input = new Float32Array(sample.length);
  const stepCount = scheduler.timesteps.length;
  for (let stepIndex = 0; stepIndex < stepCount; stepIndex++) {
    signal?.throwIfAborted();
    const time = scheduler.timesteps[stepIndex] as number;
    input.set(sample);
    scheduler.scaleInput(input, stepIndex);
    const predicted = await denoiser.predict(input, time, sampleIndices);
    const prediction = leaveOutVariance(predicted, sample.length, sampleIndices.length);
    checkFinite(prediction, time, sampleIndices);
    await onStep?.({ stepIndex, stepCount, time, input, prediction });
    scheduler.step(sample, prediction, stepIndex, noise);
  }
  return sample;
}

/**
 * Classifier-free guidance (arXiv 2207.12598): unconditional + guidanceScale·(conditional − unconditional), the
 * unconditional denoiser being the same model without the condition (its label for none, an empty prompt).
 */
export function guideDenoiser(conditional: Denoiser, unconditional: Denoiser, guidanceScale: number): Denoiser {
  return {
    async predict(sample, time, sampleIndices) {
      const withCondition = await conditional.predict(sample, time, sampleIndices);
      const without = await unconditional.predict(sample, time, sampleIndices);
      return without.map((value, i) => value + guidanceScale * ((withCondition[i] as number) - value));
    },
  };
}

function leaveOutVariance(predicted: Float32Array, length: number, sampleCount: number): Float32Array {
  if (predicted.length === length) return predicted;
  if (predicted.length !== 2 * length) {
    throw new ArrowQuantError("E_SHAPE", `the model predicts ${predicted.length} values for ${length} of its input`, {
      hint: "a denoiser predicts as many values as it takes, or twice as many with a variance",
      details: { predictedCount: predicted.length, valueCount: length, sampleCount },
    });
  }
  const sampleLength = length / sampleCount;
  const prediction = new Float32Array(length);
  for (let i = 0; i < sampleCount; i++) {
    prediction.set(predicted.subarray(2 * i * sampleLength, (2 * i + 1) * sampleLength), i * sampleLength);
  }
  return prediction;
}

/** A sample that is no number any more would go through all later steps, and into every statistic of them. */
function checkFinite(prediction: Float32Array, time: number, sampleIndices: readonly number[]): void {
  const at = prediction.findIndex((value) => !Number.isFinite(value));
  if (at === -1) return;
  const sampleIndex = sampleIndices[Math.floor((at * sampleIndices.length) / prediction.length)];
  const message = `the model predicts ${prediction[at]} for sample ${sampleIndex} at time ${time}`;
  throw new ArrowQuantError("E_NONFINITE", message, { details: { sampleIndex, time, element: at } });
}
