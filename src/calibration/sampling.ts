/**
 * Calibration without data: the full-precision model denoises seeded noise, and what it is fed on the way is the
 * calibration set, at the times and noise levels that the sampler visits (Q-Diffusion, arXiv 2302.04304, section 4.1).
 */
import { ArrowQuantError } from "../errors.js";
import type { RunArray, RunSession } from "../runtime/runtime.js";
import { drawInteger, seedBatchNoise } from "../sampler/noise.js";
import { type Denoiser, sampleBatch } from "../sampler/sample.js";
import type { Scheduler } from "../sampler/scheduler.js";
import { fromFloat16Bits } from "../tensor/float16.js";
import { countElements } from "../tensor/layout.js";
import type { CalibrationSample, SampleArray } from "./data/sample.js";
import { chooseRows, rowQuota } from "./even-rows.js";
import { feedBatch, type GraphInput, type GraphInputs, type SampleInputs, timeAsFed } from "./graph-inputs.js";
import type { SampleSpool } from "./spool.js";

/**
 * Calibration samples taken of one trajectory: more trajectories of fewer samples each show the layers more images
 * and classes, and cost a run of the sampler each.
 */
const SAMPLES_PER_TRAJECTORY = 4;

/** Trajectories under way at once: a constant, for the same result whatever memory there is. */
const TRAJECTORIES_AT_ONCE = 8;

/** What a graph is fed besides sample and time. */
export interface DenoiserInputs {
  readonly graph: GraphInputs;
  readonly prediction: string;
  /** Per sample, without the batch. */
  readonly sampleShape: readonly number[];
  /** Classes that labels are drawn from; null: the graph takes none. */
  readonly classCount: number | null;
  readonly seed: number;
}

export interface SamplingJob extends DenoiserInputs {
  readonly session: RunSession;
  readonly scheduler: Scheduler;
  readonly sampleCount: number;
  readonly signal: AbortSignal;
  /** After each step: how many samples it ran. */
  readonly onRun: (count: number) => void;
}

/** How many trajectories `sampleCount` samples are taken of, and how often the model runs on one sample for them. */
export function planTrajectories(
  { timesteps: { length: stepCount } }: Scheduler,
  sampleCount: number,
): { trajectories: number; runs: number } {
  const trajectories = Math.ceil(sampleCount / Math.min(SAMPLES_PER_TRAJECTORY, stepCount));
  return { trajectories, runs: trajectories * stepCount };
}

/** Fills the spool with `sampleCount` samples, trajectory by trajectory. */
export async function spoolTrajectories(job: SamplingJob, spool: SampleSpool): Promise<void> {
  const { scheduler, sampleCount, seed, signal } = job;
  const stepCount = scheduler.timesteps.length;
  const { trajectories } = planTrajectories(scheduler, sampleCount);
  const sampleLength = countElements(job.sampleShape);
  for (let first = 0; first < trajectories; first += TRAJECTORIES_AT_ONCE) {
    const indices = Array.from({ length: Math.min(TRAJECTORIES_AT_ONCE, trajectories - first) }, (_, i) => first + i);
    const recorded = indices.map(
      (index) => new Set(chooseRows(stepCount, rowQuota(index, trajectories, sampleCount), index)),
    );
    const noise = seedBatchNoise(seed, indices);
    const sample = new Float32Array(indices.length * sampleLength);
    noise.fill(sample);
    const taken: CalibrationSample[][] = indices.map(() => []);
    await sampleBatch({
      denoiser: createDenoiser(job.session, job),
      scheduler,
      sample,
      sampleIndices: indices,
      noise,
      signal,
      onStep: ({ stepIndex, time, input }) => {
        for (const [place, index] of indices.entries()) {
          if (!recorded[place]?.has(stepIndex)) continue;
          const part = input.slice(place * sampleLength, (place + 1) * sampleLength);
          taken[place]?.push(sampleOf(job, part, time, index));
        }
        job.onRun(indices.length);
      },
    });
    for (const part of taken.flat()) await spool.append(part);
  }
}

/** Feeds the graph as many samples at a time as it takes. */
export function createDenoiser(session: RunSession, denoiser: DenoiserInputs): Denoiser {
  const { graph, prediction } = denoiser;
  const sampleLength = countElements(denoiser.sampleShape);
  return {
    async predict(sample, time, sampleIndices) {
      const predicted: Float32Array[] = [];
      const rows = graph.fixedBatch ?? sampleIndices.length;
      for (let first = 0; first < sampleIndices.length; first += rows) {
        const batch = sampleIndices.slice(first, first + rows).map((index, i): SampleInputs => {
          const at = (first + i) * sampleLength;
          return sampleOf(denoiser, sample.subarray(at, at + sampleLength), time, index);
        });
        const outputs = await session.run(feedBatch(graph, batch, rows), [prediction]);
        const values = toFloats(outputs[prediction]?.data, prediction);
        predicted.push(values.subarray(0, (values.length / rows) * batch.length));
      }
      return joinFloats(predicted);
    },
  };
}

function sampleOf(
  { graph, sampleShape, classCount, seed }: DenoiserInputs,
  values: Float32Array,
  time: number,
  index: number,
): CalibrationSample {
  const { name: sampleName } = graph.inputs.find(({ role }) => role === "sample") as GraphInput;
  const inputs = new Map<string, SampleArray>([[sampleName, values]]);
  const shapes = new Map<string, readonly number[]>([[sampleName, sampleShape]]);
  for (const { role, name, shape } of graph.inputs) {
    if (role === "classLabels") inputs.set(name, Int32Array.of(drawInteger(seed, index, classCount as number)));
    else if (role !== "time") continue;
    shapes.set(
      name,
      shape.map(() => 1),
    );
  }
  return { time: timeAsFed(time, graph), inputs, shapes };
}

/** A prediction as float32, whatever float type the graph computes in. */
export function toFloats(data: RunArray | undefined, prediction: string): Float32Array {
  if (data instanceof Float32Array) return data;
  if (data instanceof Uint16Array) return fromFloat16Bits(data);
  if (data instanceof Float64Array) return Float32Array.from(data);
  throw new ArrowQuantError("E_GRAPH", `output "${prediction}" is no floating-point tensor`, {
    details: { output: prediction },
  });
}

function joinFloats(parts: readonly Float32Array[]): Float32Array {
  const [only, second] = parts;
  if (only !== undefined && second === undefined) return only;
  const joined = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}
