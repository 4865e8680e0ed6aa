/**
 * The error of a whole model with its layers quantized in given ways, as a search asks for it: by running the model, on
 * inputs that are held back, without writing it. What has been measured is kept on disk as it comes, so that a search
 * that was stopped goes through the same figures again without running anything, and then goes on.
 */
import type { Statistics } from "../../calibration/statistics.js";
import { runInOrder } from "../../engine/queue.js";
import type { Session } from "../../engine/session.js";
import { ArrowQuantError } from "../../errors.js";
import { fingerprintComponent } from "../../formats/fingerprint.js";
import type { ComponentPlan, LayerPlan } from "../../plan/plan.js";
import type { Component } from "../../tensor/info.js";
import type { QuantSpec } from "../../tensor/layout.js";
import { type FigureCache, hashTexts, openFigures } from "./cache.js";
import { describeCandidate, specText } from "./candidate.js";
import type { ModelRunner } from "./model-runner.js";
import type { CandidateStore } from "./store.js";

/** How layers are quantized, by name; those that are not among them stay as they are. */
export type SpecsByName = ReadonlyMap<string, { readonly spec: QuantSpec }>;

export interface FitnessInput {
  readonly component: Component;
  readonly plan: ComponentPlan;
  readonly statistics: Statistics | null;
  /** Where layers are quantized. */
  readonly store: Pick<CandidateStore, "weights">;
  readonly runner: Pick<ModelRunner, "layerNames" | "fingerprint" | "measure">;
  /** Where figures are kept; null: nowhere. */
  readonly cacheFolder: string | null;
  /** Measure anew what was measured before. */
  readonly fresh?: boolean | undefined;
  readonly session: Session;
  readonly signal: AbortSignal;
}

export interface Fitness {
  /**
   * Mean over times of the relative prediction error, as `validate --run` gives it. Layers that the graph does not have
   * count as they are. Infinity where a prediction is not finite.
   * @throws errors of quantizing, reading and running; E_WRITE; the signal's reason
   */
  error(specs: SpecsByName): Promise<number>;
  /** How often the model was run for it, and how often the figure was known. */
  counts(): { readonly measured: number; readonly known: number };
  close(): Promise<void>;
}

/** Of the memory cap, what weights rebuilt for earlier questions may take: plans of a search are much alike. */
const REBUILT_SHARE = 1 / 8;

/** @throws E_WRITE where the folder cannot be written, errors of reading the component */
export async function openFitness(input: FitnessInput): Promise<Fitness> {
  const { component, plan, statistics, runner, session, signal } = input;
  const layers = new Map(plan.layers.map((layer) => [layer.tensor.name, layer]));
  const subject = ["models", await fingerprintComponent(component), statistics?.fingerprint ?? "", runner.fingerprint];
  const figures: FigureCache = await openFigures(input.cacheFolder, subject, input.fresh ?? false);
  const rebuilt = new RebuiltWeights(input.store, session.memoryBytes * REBUILT_SHARE);
  let [measured, known] = [0, 0];
  return {
    async error(specs) {
      signal.throwIfAborted();
      const run = [...specs].filter(([name]) => runner.layerNames.has(name));
      const key = hashTexts(run.map(([name, { spec }]) => describeCandidate(plan, layerOf(layers, name), spec)).sort());
      const figure = figures.get(key);
      if (figure !== undefined && "model" in figure) {
        known += 1;
        return figure.model;
      }
      const weights = new Map<string, Float32Array>();
      const rebuiltInOrder = runInOrder(run.length, 2 * session.threads, (index) => {
        const [name, { spec }] = run[index] as (typeof run)[number];
        return rebuilt.get(name, spec);
      });
      for await (const values of rebuiltInOrder) weights.set((run[weights.size] as (typeof run)[number])[0], values);
      const { overTimes } = await runner.measure(weights);
      measured += 1;
      // JSON has no Infinity: what breaks the model is found to break it again.
      if (Number.isFinite(overTimes)) await figures.put(key, { model: overTimes });
      return overTimes;
    },
    counts: () => ({ measured, known }),
    close: () => figures.close(),
  };
}

/** Weights by layer and spec; those that were asked for last are kept. */
class RebuiltWeights {
  readonly #store: FitnessInput["store"];
  readonly #mostBytes: number;
  /** The order of insertion is that of use. */
  readonly #kept = new Map<string, Float32Array>();
  #keptBytes = 0;

  constructor(store: FitnessInput["store"], mostBytes: number) {
    this.#store = store;
    this.#mostBytes = mostBytes;
  }

  async get(name: string, spec: QuantSpec): Promise<Float32Array> {
    const key = `${name}\n${specText(spec)}`;
    const weights = this.#kept.get(key) ?? (await this.#store.weights(name, spec));
    if (!this.#kept.delete(key)) this.#keptBytes += weights.byteLength;
    this.#kept.set(key, weights);
    for (const [oldest, { byteLength }] of this.#kept) {
      if (this.#keptBytes <= this.#mostBytes) break;
      this.#kept.delete(oldest);
      this.#keptBytes -= byteLength;
    }
    return weights;
  }
}

function layerOf(layers: ReadonlyMap<string, LayerPlan>, name: string): LayerPlan {
  const layer = layers.get(name);
  if (layer === undefined) throw new ArrowQuantError("E_INTERNAL", `"${name}" is no layer of the plan`);
  return layer;
}
