/** Proof that a written graph runs and computes what the same graph with rebuilt weights does. */

import type { SampleArray } from "../calibration/data/sample.js";
import { describeInputs, feedBatch, type GraphInputs, type SampleInputs } from "../calibration/graph-inputs.js";
import { countClasses, readModelConfig, settleShape } from "../calibration/model-facts.js";
import { toFloats } from "../calibration/sampling.js";
import { ArrowQuantError } from "../errors.js";
import type { OnnxFile } from "../formats/onnx/read.js";
import { type GraphRoles, inferRoles, type RoleNames } from "../graph/roles.js";
import { listInputs } from "../graph/value.js";
import { loadRuntime, type RunTensor } from "../runtime/runtime.js";
import { drawInteger, seedNoise } from "../sampler/noise.js";
import { DTYPES } from "../tensor/dtype.js";
import type { Component } from "../tensor/info.js";
import { countElements } from "../tensor/layout.js";
import { relativeError } from "../tensor/prediction-metrics.js";

/** Parts of the usual range of times at which the graphs are run: two, so that time groups differ. */
const TIME_SHARES = [0.25, 0.75] as const;

/** Timesteps of training of DDPM (arXiv 2006.11239) and most since. */
const USUAL_TIMESTEPS = 1000;

const SEED = 1;

/**
 * Relative error of an output that the order of float32 sums explains: 2^-24 for each of some thousand sums of a deep
 * network, as they add up. A wrong scale or code of one layer is far above.
 */
export const MAX_FLOAT_NOISE = 1e-4;

/**
 * The same for a graph in float16: 2^-11 for each value on the way, and as much for the scales, which are rounded too.
 */
export const MAX_HALF_NOISE = 5e-2;

/**
 * The same where activations are rounded on the way, in steps of their codes' range: noise decides which way a value
 * goes that lies between two codes, a whole step each time.
 */
export const MAX_ROUNDED_STEPS = 16;

interface CheckJob {
  readonly file: OnnxFile;
  readonly component: Component;
  readonly roles: RoleNames | undefined;
  /** The graph that was written, and the one with rebuilt weights. */
  readonly path: string;
  readonly referencePath: string;
  readonly threads: number;
  /** Most relative error of an output. */
  readonly limit: number;
}

export interface CheckResult {
  readonly runtime: string;
  /** Largest of the outputs' ‖y − ŷ‖/‖ŷ‖; null where the graph was only opened, as no inputs for it can be made. */
  readonly relativeError: number | null;
  /** Why it was only opened. */
  readonly notRun: string | null;
}

/**
 * Runs both on the same random inputs, or, of a graph that is no denoiser's or whose inputs are of unknown size, opens
 * the written one.
 * @throws E_GRAPH where the runtime refuses the graph or an output differs
 */
export async function checkGraph(job: CheckJob): Promise<CheckResult> {
  const { file, component, path, referencePath, limit } = job;
  const runtime = await loadRuntime();
  const name = `${runtime.name} ${runtime.version}`;
  const feeds = makeFeeds(file, component, job.roles);
  const run = async (graphPath: string, feed: Record<string, RunTensor> | null) => {
    const session = await runtime.open(graphPath, { threads: job.threads });
    try {
      return feed === null ? {} : await session.run(feed);
    } finally {
      await session.close();
    }
  };
  if (typeof feeds === "string") {
    await run(path, null);
    return { runtime: name, relativeError: null, notRun: feeds };
  }
  const expected = await run(referencePath, feeds);
  const found = await run(path, feeds);
  let worst = 0;
  for (const [name, reference] of Object.entries(expected)) {
    if (DTYPES[reference.dtype].kind !== "float") continue;
    const error = relativeError(toFloats(found[name]?.data, name), toFloats(reference.data, name));
    if (!(error <= limit)) throw differs(name, error, limit);
    worst = Math.max(worst, error);
  }
  return { runtime: name, relativeError: worst, notRun: null };
}

/** A text where they cannot be made. */
function makeFeeds(
  file: OnnxFile,
  component: Component,
  given: RoleNames | undefined,
): Record<string, RunTensor> | string {
  try {
    return drawFeeds(file, component, inferRoles(file, given));
  } catch (thrown) {
    const isUnknown = thrown instanceof ArrowQuantError && ["E_GRAPH", "E_CALIBRATION"].includes(thrown.code);
    // A name that the user has given is to be right.
    if (isUnknown && Object.keys(given ?? {}).length === 0) return thrown.message;
    throw thrown;
  }
}

function drawFeeds(file: OnnxFile, component: Component, roles: GraphRoles): Record<string, RunTensor> {
  const graph = describeInputs(listInputs(file), roles);
  const config = readModelConfig(component);
  const classCount = countClasses(config);
  const shapes = new Map(graph.inputs.map((input) => [input.name, settleShape(input, config)]));
  const samples = TIME_SHARES.map((share, index) => makeSample(graph, shapes, classCount, share, index));
  return feedBatch(graph, samples, graph.fixedBatch ?? samples.length);
}

function makeSample(
  { inputs }: GraphInputs,
  shapes: ReadonlyMap<string, readonly number[]>,
  classCount: number | null,
  share: number,
  index: number,
): SampleInputs {
  const noise = seedNoise(SEED, index);
  const values = new Map<string, SampleArray>();
  let time = share;
  for (const { role, name, dtype } of inputs) {
    const isFloat = DTYPES[dtype].kind === "float";
    if (role === "time") {
      time = isFloat ? share : Math.floor(share * USUAL_TIMESTEPS);
      continue;
    }
    const length = countElements(shapes.get(name) ?? []);
    if (isFloat) {
      const floats = new Float32Array(length);
      noise.fill(floats);
      values.set(name, floats);
    } else {
      const label = role === "classLabels" && classCount !== null ? drawInteger(SEED, index, classCount) : 0;
      values.set(name, new Int32Array(length).fill(label));
    }
  }
  return { time, inputs: values, shapes };
}

function differs(output: string, error: number, limit: number): ArrowQuantError {
  const [found, allowed] = [error, limit].map((value) => value.toExponential(1));
  const message = `the graph's output "${output}" is off by ${found} from that with rebuilt weights, allowed is ${allowed}`;
  return new ArrowQuantError("E_GRAPH", message, {
    hint: "nothing was written; please report this with the graph",
    details: { output, relativeError: error, limit },
  });
}
