/** What the options of a model's layers cost, in the terms of one sensitivity, with what was opened to find out. */
import { defaultCacheFolder } from "../calibration/cache.js";
import type { Statistics } from "../calibration/statistics.js";
import type { ResolvedConfig } from "../config/config.js";
import type { Job } from "../engine/jobs.js";
import type { Session } from "../engine/session.js";
import { ArrowQuantError, type ErrorCode } from "../errors.js";
import type { AllocationLayer, Candidate } from "../plan/allocation.js";
import type { ComponentPlan, SensitivityKind } from "../plan/plan.js";
import { tieLayers } from "../plan/ties.js";
import type { Component, Model } from "../tensor/info.js";
import type { PlanJob } from "./result.js";
import { errorOf } from "./sensitivity/error.js";
import { measureSensitivity } from "./sensitivity/measure.js";
import type { ModelRunner } from "./sensitivity/model-runner.js";
import { openRunner } from "./sensitivity/sensitivity.js";
import { type CandidateStore, openCandidateStore } from "./sensitivity/store.js";
import type { SensitivityTable } from "./sensitivity/table.js";

/** What bits are to be chosen for. */
export interface PrecisionInput {
  readonly job: PlanJob;
  readonly config: ResolvedConfig;
  readonly model: Model;
  readonly plans: readonly ComponentPlan[];
  readonly statistics: Statistics | null;
  readonly session: Session;
  readonly place: Job;
}

/** A component with what its layers are measured by. */
export interface MeasuredComponent {
  readonly plan: ComponentPlan;
  readonly component: Component;
  /** null: it is not calibrated. */
  readonly statistics: Statistics | null;
  readonly store: CandidateStore;
  readonly table: SensitivityTable;
}

export interface MeasuredOptions {
  readonly kind: SensitivityKind;
  /** Why it is that kind. */
  readonly rule: string;
  readonly components: readonly MeasuredComponent[];
  /** What runs the model, which then has one component; null: nothing does. */
  readonly runner: ModelRunner | null;
  readonly warnings: readonly string[];
  close(): Promise<void>;
}

/** Why a model cannot be run, where nobody asked for it to be: something else is measured by then. */
const NOT_RUN: readonly ErrorCode[] = [
  "E_RUNTIME",
  "E_GRAPH",
  "E_SCHEDULER",
  "E_CALIBRATION",
  "E_MEMORY",
  "E_CONFLICT",
];

/**
 * Measures every option of every layer.
 * @throws what `measureSensitivity` does, and for a kind that was asked for what opening it does
 */
export async function measureOptions(input: PrecisionInput): Promise<MeasuredOptions> {
  const { job, config, model, plans, session, place } = input;
  const { signal, abort } = place;
  const chosen = await chooseKind(input);
  const { runner } = chosen;
  const components: MeasuredComponent[] = [];
  const stores: CandidateStore[] = [];
  const close = async (): Promise<void> => {
    for (const store of stores) await store.close();
    await runner?.close();
  };
  try {
    for (const plan of plans) {
      const component = findComponent(model, plan);
      const statistics = input.statistics?.info.component === component.name ? input.statistics : null;
      const onNonFinite = config.values.on_nonfinite;
      const store = await openCandidateStore({ session, component, plan, statistics, onNonFinite, signal });
      stores.push(store);
      const hasHeldBack =
        plan.layers.some(({ calibrated }) => calibrated) && statistics?.info.secondMomentsOnly === false;
      const kinds = new Set<SensitivityKind>(["weight", chosen.kind, ...(hasHeldBack ? (["output"] as const) : [])]);
      const table = await measureSensitivity({
        component,
        plan,
        statistics,
        candidatesOf: ({ options }) => options,
        kinds: [...kinds],
        modelErrors: chosen.kind === "model" ? runner : null,
        store,
        onNonFinite,
        cacheFolder: defaultCacheFolder(process.env),
        session,
        signal,
        abort,
        onProgress: job.onProgress,
      });
      components.push({ plan, component, statistics, store, table });
    }
  } catch (thrown) {
    await close();
    throw thrown;
  }
  const warnings = [
    ...chosen.warnings,
    ...components.flatMap(({ table }) => [...table.warnings, ...warnOfStandIns(table, chosen.kind)]),
    ...(runner?.warnings ?? []),
  ];
  return { kind: chosen.kind, rule: chosen.rule, components, runner, warnings: [...new Set(warnings)], close };
}

export function findComponent(model: Model, plan: ComponentPlan): Component {
  return model.components.find(({ name }) => name === plan.component) as Component;
}

interface ChosenKind {
  readonly kind: SensitivityKind;
  readonly rule: string;
  readonly runner: ModelRunner | null;
  readonly warnings: readonly string[];
}

async function chooseKind(input: PrecisionInput): Promise<ChosenKind> {
  const { config, plans, statistics } = input;
  const { sensitivity, search } = config.values;
  if (sensitivity === "model") {
    return { kind: sensitivity, rule: "as asked for", runner: await open(input), warnings: [] };
  }
  const isSearched = search === "evolutionary";
  if (sensitivity !== null) {
    const { runner, warnings } = isSearched ? await tryOpen(input, "search adds errors up") : NOTHING_RUN;
    return { kind: sensitivity, rule: "as asked for", runner, warnings };
  }
  if (plans.length > 1 || statistics === null) {
    const { runner, warnings } = isSearched ? await tryOpen(input, "search adds errors up") : NOTHING_RUN;
    const rule = statistics === null ? "no calibration" : "several components";
    return { kind: "weight", rule, runner, warnings };
  }
  const other = statistics.info.secondMomentsOnly ? "weight" : "output";
  const { runner, warnings } = await tryOpen(input, `sensitivity ${other}`);
  return runner === null
    ? { kind: other, rule: "the model cannot be run", runner, warnings }
    : { kind: "model", rule: "calibrated, and the model can be run", runner, warnings };
}

const NOTHING_RUN = { runner: null, warnings: [] } as const;

/** @param instead what is done where the model cannot be run, in words */
async function tryOpen(
  input: PrecisionInput,
  instead: string,
): Promise<{ readonly runner: ModelRunner | null; readonly warnings: readonly string[] }> {
  try {
    return { runner: await open(input), warnings: [] };
  } catch (thrown) {
    if (!(thrown instanceof ArrowQuantError) || !NOT_RUN.includes(thrown.code)) throw thrown;
    return { runner: null, warnings: [`${instead}, as the model cannot be run: ${thrown.message}`] };
  }
}

function open({ job, config, model, plans, session, place }: PrecisionInput): Promise<ModelRunner> {
  const [plan] = plans as readonly [ComponentPlan];
  if (plans.length > 1) {
    throw new ArrowQuantError("E_CONFLICT", `${plans.length} components have no model sensitivity together`, {
      hint: "choose one with --components, or another --sensitivity",
      details: { components: plans.map(({ component }) => component) },
    });
  }
  const { signal, abort } = place;
  return openRunner({ job, config, model, component: findComponent(model, plan), plan, session, signal, abort });
}

/** A layer's name among those of all components. */
export function qualifiedName(component: string, layerName: string): string {
  return JSON.stringify([component, layerName]);
}

/** Layers as an allocation takes them, their names qualified; null: the measure is not known of all of them. */
export function allocationLayers(
  components: readonly MeasuredComponent[],
  kind: SensitivityKind,
  config: ResolvedConfig,
): AllocationLayer[] {
  const { tie_layers, tie_patterns } = config.values;
  return components.flatMap(({ plan, table }) => {
    const names = table.layers.map(({ name }) => name);
    const ties = tieLayers(names, tie_layers, tie_patterns);
    const scale = scaleOfWeights(table, kind);
    return table.layers.map((layer): AllocationLayer => {
      const tie = ties.get(layer.name);
      return {
        name: qualifiedName(plan.component, layer.name),
        parameterCount: layer.parameterCount,
        tie: tie === undefined ? null : qualifiedName(plan.component, tie),
        candidates: layer.candidates.map((candidate): Candidate => {
          const { spec, bytes, weight } = candidate;
          return { spec, bytes, error: errorOf(layer, candidate, kind) ?? scale * weight };
        }),
      };
    });
  });
}

/** Layers whose error by `kind` is not known, and that weigh in by another. */
function warnOfStandIns({ layers }: SensitivityTable, kind: SensitivityKind): string[] {
  const unknown = layers.filter((layer) => layer.candidates.some((each) => errorOf(layer, each, kind) === null));
  if (unknown.length === 0) return [];
  const [{ name }] = unknown as [SensitivityTable["layers"][number]];
  return [
    `${unknown.length} of ${layers.length} layers have no ${kind} sensitivity ("${name}" …): ` +
      "their weight error stands in, scaled as in the layers that have both",
  ];
}

/**
 * What the weight error of a layer is multiplied by where its error by `kind` is not known (its input was never seen,
 * the graph does not have it): the ratio of the two over the layers that have both.
 */
function scaleOfWeights({ layers }: SensitivityTable, kind: SensitivityKind): number {
  let [known, weights] = [0, 0];
  for (const layer of layers) {
    for (const candidate of layer.candidates) {
      const error = errorOf(layer, candidate, kind);
      if (error === null) continue;
      known += error;
      weights += candidate.weight;
    }
  }
  return weights === 0 ? 1 : known / weights;
}
