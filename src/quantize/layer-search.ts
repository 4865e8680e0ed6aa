/**
 * The best way to quantize a layer at one width: methods compared by the error of the layer's output on rows of its
 * input that the statistics have not seen, then channel equalization by grid search over α the same way.
 */
import type { ActivationSettings, LayerPlan, SpatialSettings } from "../plan/plan.js";
import type { MethodName, QuantSpec } from "../tensor/layout.js";
import { viewAs2d } from "../tensor/layout.js";
import { deriveOutputMetrics } from "../tensor/metrics.js";
import type { ChunkCalibration } from "../worker/messages.js";
import { type ActivationPlan, activationRows, planActivations, type TimeAxis } from "./activations.js";
import type { Factors } from "./factors.js";
import { equalizeImportance, type LayerCalibration, smoothingScales } from "./layer-calibration.js";
import { type Attempt, findChannelMaxima, type LayerSource, measureLayer } from "./layer-chunks.js";
import { findMethod } from "./methods/index.js";

/** What is known of a layer, and where its Hessian's factors are kept. */
export interface LayerKnowledge {
  readonly calibration: LayerCalibration;
  readonly factors: Factors;
  readonly time: TimeAxis;
}

/** Everything that decides the codes of a layer. */
export interface LayerVariant {
  readonly spec: QuantSpec;
  /** α and the scales it gives; null: the layer as it is. */
  readonly equalization: { readonly alpha: number; readonly scales: Float32Array } | null;
  /** null: activations stay as they are. */
  readonly activations: ActivationPlan | null;
}

/** One way that was measured. */
export interface LayerTrial {
  readonly method: MethodName;
  /** null: without equalization. */
  readonly alpha: number | null;
  /** ‖y − ŷ‖/‖y‖ over the held-back rows. */
  readonly outputError: number;
}

export interface SearchOutcome {
  readonly variant: LayerVariant;
  readonly attempt: Attempt;
  readonly trials: readonly LayerTrial[];
  /** What could not be tried, and why. */
  readonly notes: readonly string[];
}

/** A variant with what the workers need for it. */
export interface PreparedVariant {
  readonly variant: LayerVariant;
  readonly calibration: ChunkCalibration;
  /** Removes what was made for this variant alone. */
  readonly release: () => Promise<void>;
}

/** null: the method needs a Hessian, and this layer's is not positive definite or absent. */
export async function prepareVariant(
  { layer, session, signal }: LayerSource,
  { calibration, factors, time }: LayerKnowledge,
  spec: QuantSpec,
  equalization: LayerVariant["equalization"],
  measuresOutput: boolean,
  settings: ActivationSettings | null = layer.activations,
): Promise<PreparedVariant | null> {
  const { cols } = viewAs2d(layer.tensor.shape);
  const { colsPerChannel, heldBack } = calibration;
  const scales = equalization?.scales ?? null;
  const method = findMethod(spec.method);
  let factor: ChunkCalibration["factor"] = null;
  if (method.needs === "hessian") {
    factor = await (scales === null ? factors.shared(calibration, cols) : factors.make(calibration, cols, scales));
    if (factor === null) return null;
  }
  const activations =
    settings === null ? null : await planActivations(calibration, settings, scales, time, session, signal);
  return {
    variant: { spec, equalization, activations },
    calibration: {
      importance: equalizeImportance(calibration.importance, scales, colsPerChannel, method.norm),
      equalizationScales: scales,
      factor,
      heldBack:
        measuresOutput && heldBack !== null
          ? { ...heldBack, activations: activations === null ? null : activationRows(calibration, activations) }
          : null,
    },
    release: async () => {
      if (scales !== null) await factors.discard(factor);
    },
  };
}

/**
 * Tries every spec, then every α with the best of them, and keeps the chunks of the best. The first spec wins ties.
 * A weight that cannot be quantized ends the search: no other way could.
 * @param countsBytes whether the first attempt tells the meter of source bytes done
 */
export async function searchLayer(
  source: LayerSource,
  knowledge: LayerKnowledge,
  specs: readonly QuantSpec[],
  countsBytes: boolean,
): Promise<SearchOutcome | null> {
  const search = new Search(source, knowledge, countsBytes);
  try {
    const { spatial, activations } = source.layer;
    const { channelMaxima, heldBack } = knowledge.calibration;
    const searchesAlpha = spatial !== null && channelMaxima !== null && heldBack !== null;
    // The exact grouping costs more than a trial: it is made for the winner.
    const tried = searchesAlpha && activations?.groups === "optimal" ? asUniform(activations) : activations;
    for (const spec of specs) await search.try(spec, null, tried);
    const best = search.best;
    if (best === null || best.attempt.nonFinite !== null) return search.outcome();
    if (searchesAlpha) await searchAlpha(search, source, knowledge.calibration, channelMaxima, spatial, tried);
    if (tried !== activations) await search.repeatBest(activations);
    return search.outcome();
  } catch (thrown) {
    await search.best?.attempt.discard();
    throw thrown;
  }
}

async function searchAlpha(
  search: Search,
  source: LayerSource,
  { colsPerChannel }: LayerCalibration,
  channelMaxima: Float32Array,
  { alphas }: SpatialSettings,
  settings: ActivationSettings | null,
): Promise<void> {
  const { spec } = (search.best as Best).variant;
  const weightMaxima = await findChannelMaxima(source, spec, colsPerChannel);
  for (const alpha of alphas) {
    await search.try(spec, { alpha, scales: smoothingScales(channelMaxima, weightMaxima, alpha) }, settings);
  }
}

function asUniform(settings: ActivationSettings): ActivationSettings {
  return { ...settings, groups: "uniform" };
}

interface Best {
  readonly variant: LayerVariant;
  readonly attempt: Attempt;
}

class Search {
  readonly #source: LayerSource;
  readonly #knowledge: LayerKnowledge;
  readonly #trials: LayerTrial[] = [];
  readonly #notes: string[] = [];
  #countsBytes: boolean;
  #leastError = Infinity;
  best: Best | null = null;

  constructor(source: LayerSource, knowledge: LayerKnowledge, countsBytes: boolean) {
    this.#source = source;
    this.#knowledge = knowledge;
    this.#countsBytes = countsBytes;
  }

  async try(
    spec: QuantSpec,
    equalization: LayerVariant["equalization"],
    settings: ActivationSettings | null,
  ): Promise<void> {
    if (this.best?.attempt.nonFinite) return;
    const prepared = await prepareVariant(this.#source, this.#knowledge, spec, equalization, true, settings);
    if (prepared === null) {
      this.#notes.push(
        `${spec.method}${equalization === null ? "" : ` at α ${equalization.alpha}`} left out: ` +
          "the Hessian is not positive definite",
      );
      return;
    }
    try {
      const attempt = await measureLayer(this.#source, spec, prepared.calibration, this.#countsBytes);
      this.#countsBytes = false;
      const { outputSums } = attempt;
      const outputError = outputSums === null ? 0 : deriveOutputMetrics(outputSums).relativeError;
      if (outputSums !== null && attempt.nonFinite === null) {
        this.#trials.push({ method: spec.method, alpha: equalization?.alpha ?? null, outputError });
      }
      if (this.best !== null && !(outputError < this.#leastError)) return void (await attempt.discard());
      await this.best?.attempt.discard();
      this.best = { variant: prepared.variant, attempt };
      this.#leastError = outputError;
    } finally {
      await prepared.release();
    }
  }

  /** Makes the best once more with other activation settings: what is stored is what was measured. */
  async repeatBest(settings: ActivationSettings | null): Promise<void> {
    const { variant, attempt } = this.best as Best;
    const { spec, equalization } = variant;
    const prepared = await prepareVariant(this.#source, this.#knowledge, spec, equalization, true, settings);
    if (prepared === null) return;
    try {
      const repeated = await measureLayer(this.#source, spec, prepared.calibration, false);
      await attempt.discard();
      this.best = { variant: prepared.variant, attempt: repeated };
    } finally {
      await prepared.release();
    }
  }

  outcome(): SearchOutcome | null {
    return this.best === null ? null : { ...this.best, trials: this.#trials, notes: this.#notes };
  }
}

/** Whether the layer has more than one way to choose from. */
export function hasChoice(layer: LayerPlan): boolean {
  return layer.candidates.length > 1 || layer.spatial !== null;
}
