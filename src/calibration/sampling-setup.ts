/** What a model is sampled with: its scheduler, and what its graph is fed besides sample and time. */
import { ArrowQuantError } from "../errors.js";
import type { GraphRoles } from "../graph/roles.js";
import type { Scheduler } from "../sampler/scheduler.js";
import { createScheduler } from "../sampler/schedulers.js";
import type { Component } from "../tensor/info.js";
import { countElements } from "../tensor/layout.js";
import type { GraphInput, GraphInputs } from "./graph-inputs.js";
import { countClasses, readModelConfig, settleShape } from "./model-facts.js";
import type { DenoiserInputs } from "./sampling.js";

export interface SamplingSetup {
  readonly denoiser: DenoiserInputs;
  readonly scheduler: Scheduler;
  readonly warnings: readonly string[];
}

/**
 * @param schedulerConfig of the model; null: there is none, and `missingScheduler` is thrown
 * @param dataHint how data is given instead, for what sampling has nothing for
 * @throws E_CALIBRATION where the graph takes what sampling cannot make, E_SCHEDULER
 */
export function setUpSampling(request: {
  readonly component: Component;
  readonly graph: GraphInputs;
  readonly roles: GraphRoles;
  readonly schedulerConfig: unknown;
  readonly missingScheduler: ArrowQuantError;
  readonly steps: number;
  readonly seed: number;
  readonly dataHint: string;
}): SamplingSetup {
  const { component, graph, roles, schedulerConfig, steps, seed, dataHint } = request;
  refuseUnknownInputs(graph, dataHint);
  if (schedulerConfig === null) throw request.missingScheduler;
  const config = readModelConfig(component);
  const sampleInput = graph.inputs.find(({ role }) => role === "sample") as GraphInput;
  const sampleShape = settleShape(sampleInput, config);
  const classCount = roles.classLabels === null ? null : settleClasses(component, dataHint);
  const scheduler = openScheduler(schedulerConfig, steps, sampleShape, config.get("patch_size"));
  return {
    denoiser: { graph, prediction: roles.prediction, sampleShape, classCount, seed },
    scheduler,
    warnings: substitution(scheduler),
  };
}

/** Inputs that sampling has nothing for. */
function refuseUnknownInputs({ inputs }: GraphInputs, hint: string): void {
  const unknown = inputs.filter(({ role }) => role === "encoderStates" || role === "other").map(({ name }) => name);
  if (unknown.length === 0) return;
  throw new ArrowQuantError(
    "E_CALIBRATION",
    `sampling has no values for the inputs ${unknown.join(", ")} of the graph`,
    { hint, details: { inputs: unknown } },
  );
}

function settleClasses(component: Component, dataHint: string): number {
  const count = countClasses(readModelConfig(component));
  if (count !== null) return count;
  throw new ArrowQuantError("E_CALIBRATION", "config.json does not say how many classes the model has", {
    hint: `add num_class_embeds to it, or ${dataHint}`,
    details: { component: component.name },
  });
}

/** Flow schedulers that shift by resolution count the tokens of an image of the sample's size. */
export function openScheduler(
  config: unknown,
  steps: number,
  sampleShape: readonly number[],
  patch: unknown,
): Scheduler {
  const patchSize = typeof patch === "number" && patch > 0 ? patch : 1;
  const imageTokens = countElements(sampleShape.slice(1)) / patchSize ** 2;
  return createScheduler(config, steps, sampleShape.length === 3 ? { imageTokens } : {});
}

function substitution({ name, substitutedFor }: Scheduler): string[] {
  if (substitutedFor === null) return [];
  return [`${substitutedFor} is stood in for by ${name}: the same times and noise levels, another solver`];
}
