/** Random inputs in place of calibration data: better than nothing for ranges, and labelled as what they are. */
import { drawInteger, seedNoise } from "../sampler/noise.js";
import type { Scheduler } from "../sampler/scheduler.js";
import { DTYPES } from "../tensor/dtype.js";
import { countElements } from "../tensor/layout.js";
import type { SampleArray } from "./data/sample.js";
import { type GraphInput, type GraphInputs, timeAsFed } from "./graph-inputs.js";
import type { SampleSpool } from "./spool.js";

/** Timesteps of training where no scheduler says otherwise: those of DDPM (arXiv 2006.11239) and most since. */
const USUAL_TIMESTEPS = 1000;

export interface SyntheticJob {
  readonly graph: GraphInputs;
  /** Shape of each input of one sample, by name. */
  readonly shapes: ReadonlyMap<string, readonly number[]>;
  readonly scheduler: Scheduler | null;
  readonly classCount: number | null;
  readonly sampleCount: number;
  readonly seed: number;
  readonly signal: AbortSignal;
}

/** Normals for float inputs, labels as in sampling, zeros for other integers; times evenly over those there are. */
export async function spoolRandom(job: SyntheticJob, spool: SampleSpool): Promise<void> {
  const { graph, shapes, classCount, sampleCount, seed, signal } = job;
  for (let index = 0; index < sampleCount; index++) {
    signal.throwIfAborted();
    const noise = seedNoise(seed, index);
    const inputs = new Map<string, SampleArray>();
    for (const input of graph.inputs) {
      if (input.role === "time") continue;
      const length = countElements(shapes.get(input.name) ?? []);
      inputs.set(input.name, fillInput(input, length));
    }
    await spool.append({ time: timeAsFed(timeOf(index, job), graph), inputs, shapes });

    function fillInput({ role, dtype }: GraphInput, length: number): SampleArray {
      if (DTYPES[dtype].kind === "float") {
        const values = new Float32Array(length);
        noise.fill(values);
        return values;
      }
      const labels = new Int32Array(length);
      return role === "classLabels" && classCount !== null ? labels.fill(drawInteger(seed, index, classCount)) : labels;
    }
  }
}

function timeOf(index: number, { scheduler, graph, sampleCount }: SyntheticJob): number {
  const share = (index + 0.5) / sampleCount;
  if (scheduler !== null) return scheduler.timesteps[Math.floor(share * scheduler.timesteps.length)] as number;
  const dtype = graph.inputs.find(({ role }) => role === "time")?.dtype ?? "F32";
  // A float without a scheduler is a flow's time, or a noise level of the same size.
  return DTYPES[dtype].kind === "integer" ? Math.floor(share * USUAL_TIMESTEPS) : share;
}
