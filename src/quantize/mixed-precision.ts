/**
 * Mixed precision: from a plan that gives all layers the same to one that spends what a target allows where the model
 * needs it. Every option of every layer is measured, the target allocated, and where it is asked for searched further
 * by the error of the whole quantized model.
 */
import type { ResolvedConfig } from "../config/config.js";
import { ArrowQuantError } from "../errors.js";
import { fingerprintComponent } from "../formats/fingerprint.js";
import {
  type AllocatedLayers,
  type Allocation,
  type AllocationLayer,
  allocateBits,
  type Budget,
  type Candidate,
  findReachableRange,
} from "../plan/allocation.js";
import type {
  ComponentPlan,
  Decision,
  FrontPoint,
  LayerPlan,
  MixedAllocation,
  MixedLayer,
  MixedPrecision,
  SensitivityKind,
} from "../plan/plan.js";
import { estimateLayerBytes } from "../plan/size.js";
import { readTarget, type Target } from "../plan/targets.js";
import { countElements } from "../tensor/layout.js";
import { allocateFile } from "./file-size.js";
import {
  allocationLayers,
  findComponent,
  type MeasuredComponent,
  type MeasuredOptions,
  measureOptions,
  type PrecisionInput,
  qualifiedName,
} from "./measured-options.js";
import { nativeMetadata } from "./metadata.js";
import { measureNativeFile } from "./native-size.js";
import type { SearchedPrecision } from "./precision-search.js";
import { candidateLayer } from "./sensitivity/candidate.js";

export interface MixedPlans {
  readonly plans: readonly ComponentPlan[];
  readonly warnings: readonly string[];
}

/** Below this part of a target of size, what the candidates leave unused is worth a warning. */
const FULL = 0.99;

/** Sizes at which the front of an allocation is drawn. */
const FRONT_POINTS = 16;
/** Where only it matters whether there is an allocation at all. */
const REACH_GAP = 1;
/** Of a point of the front; a chart does not show more. */
const FRONT_GAP = 0.01;

/**
 * The plans with the bits and group sizes that meet the configuration's target.
 * @returns the plans as they are where there is no target
 * @throws E_TARGET where it is out of reach, E_CONFLICT where it cannot be measured, what measuring the layers does
 */
export async function mixPrecision(input: PrecisionInput): Promise<MixedPlans> {
  const target = readTarget(input.config);
  if (target === null) return { plans: input.plans, warnings: [] };
  await assertReachable(input, target);
  const measured = await measureOptions(input);
  try {
    const layers = allocationLayers(measured.components, measured.kind, input.config);
    if (layers.length === 0) throw refuseUnmeasurable(target);
    const plans = measured.components.map((component) => keepUnmeasurable(component));
    const choice = await choose({ ...input, plans }, measured, layers, target);
    const allocation = describe(input.config, measured, layers, choice);
    return {
      plans: plans.map((plan) => describePlan(plan, input.config, measured, choice.allocated, target, allocation)),
      warnings: [...measured.warnings, ...warnOfSlack(target, allocation)],
    };
  } finally {
    await measured.close();
  }
}

/** Sizes are known before anything is measured, which may take hours. @throws E_TARGET */
async function assertReachable(input: PrecisionInput, target: Target): Promise<void> {
  if (target.key === "max_error") return;
  const layers = input.plans.flatMap(({ component, layers: all }) =>
    all.flatMap((layer): AllocationLayer[] => {
      if (layer.options.length === 0) return [];
      const candidates = layer.options.map((spec): Candidate => {
        const bytes = estimateLayerBytes({ ...layer, spec });
        // Any error that falls with size shows both ends of the range.
        return { spec, bytes, error: 1 / bytes };
      });
      const { name, shape } = layer.tensor;
      return [{ name: qualifiedName(component, name), parameterCount: countElements(shape), candidates, tie: null }];
    }),
  );
  if (target.key === "target_model_size_mb") {
    await allocateFile(layers, target.value * 1e6, REACH_GAP, await fileMeasure(input));
  } else {
    allocateBits(layers, budgetOf(target), REACH_GAP);
  }
}

function refuseUnmeasurable({ text }: Target): ArrowQuantError {
  return new ArrowQuantError("E_NOTHING", `a target of ${text} has no layer to choose for: none can be measured`, {
    hint: "weights that are not finite keep their layers",
  });
}

/** What was chosen, and how. */
interface Choice {
  readonly allocation: Allocation;
  /** Of the allocation, or of the search. */
  readonly allocated: AllocatedLayers;
  readonly fileBytes: number | null;
  readonly searched: SearchedPrecision | null;
}

async function choose(
  input: PrecisionInput,
  measured: MeasuredOptions,
  layers: readonly AllocationLayer[],
  target: Target,
): Promise<Choice> {
  const { knapsack_gap: gap, search } = input.config.values;
  const measure = await fileMeasure(input);
  const isOfFile = target.key === "target_model_size_mb";
  const targetBytes = isOfFile ? target.value * 1e6 : Infinity;
  const fitted = isOfFile
    ? await allocateFile(layers, targetBytes, gap, measure)
    : { allocation: allocateBits(layers, budgetOf(target), gap), fileBytes: null };
  const { allocation, fileBytes } = fitted;
  const found = { allocation, allocated: allocation, fileBytes, searched: null };
  if (search === "none") return found;
  const budget: Budget = isOfFile ? { kind: "bytes", value: allocation.items.capacity } : budgetOf(target);
  const { searchPrecision } = await import("./precision-search.js");
  const searched = await searchPrecision(input, measured, allocation, budget);
  for (const { allocated } of searched.candidates) {
    // What a file holds beside the layers is a little more for some allocations than for others.
    const bytes = isOfFile ? await measure(allocated) : null;
    if (bytes === null || bytes <= targetBytes) return { allocation, allocated, fileBytes: bytes, searched };
  }
  return { ...found, searched };
}

function budgetOf({ key, value }: Target): Budget {
  switch (key) {
    case "target_bpw":
      return { kind: "bpw", value };
    case "target_model_size_mb":
      return { kind: "bytes", value: value * 1e6 };
    case "max_error":
      return { kind: "error", value: value * value };
    case "mean_group_size":
      return { kind: "mean-group", value };
  }
}

/** What tells the length of the native file or files with given layers. */
async function fileMeasure({
  model,
  config,
  plans,
  statistics,
}: PrecisionInput): Promise<(allocated: AllocatedLayers) => Promise<number>> {
  const fingerprints: string[] = [];
  for (const plan of plans) fingerprints.push(await fingerprintComponent(findComponent(model, plan)));
  const timeInput = statistics?.info.time.input ?? "";
  return async ({ specs }) => {
    let byteLength = 0;
    for (const [index, plan] of plans.entries()) {
      const chosen = withSpecs(plan, specs);
      const fingerprint = fingerprints[index] as string;
      const metadata = nativeMetadata(findComponent(model, plan), config, chosen, fingerprint);
      byteLength += await measureNativeFile(chosen, metadata, timeInput);
    }
    return byteLength;
  };
}

/** The plan with the chosen specs, its reasons as they were. */
function withSpecs(plan: ComponentPlan, specs: AllocatedLayers["specs"]): ComponentPlan {
  const layers = plan.layers.map((layer): LayerPlan => {
    const candidate = specs.get(qualifiedName(plan.component, layer.tensor.name));
    return candidate === undefined ? layer : { ...candidateLayer(layer, candidate.spec), options: [] };
  });
  return { ...plan, layers, mixed: { origin: "", allocation: null, layers: [] } };
}

/** The plan with the chosen specs and why. */
function describePlan(
  plan: ComponentPlan,
  config: ResolvedConfig,
  measured: MeasuredOptions,
  { specs }: AllocatedLayers,
  target: Target,
  allocation: MixedAllocation,
): ComponentPlan {
  const chosen: MixedLayer[] = [];
  const layers = withSpecs(plan, specs).layers.map((layer): LayerPlan => {
    const candidate = specs.get(qualifiedName(plan.component, layer.tensor.name));
    if (candidate === undefined) return layer;
    chosen.push(describeLayer(layer, candidate));
    return { ...layer, reason: describeReason(layer, candidate, measured.kind, target) };
  });
  const mixed: MixedPrecision = { origin: `target ${target.text}`, allocation, layers: chosen };
  return { ...plan, decisions: [...plan.decisions, ...describeDecisions(config, measured)], layers, mixed };
}

function describeDecisions({ values }: ResolvedConfig, { kind, rule, runner }: MeasuredOptions): Decision[] {
  const how = runner === null ? "" : ` (${runner.label})`;
  return [
    { what: "sensitivity", value: kind, rule: rule + (kind === "model" ? how : "") },
    ...(values.search === "none"
      ? []
      : [
          {
            what: "search",
            value: values.search,
            rule: runner === null ? "errors added up" : `the model is run${how}`,
          },
        ]),
  ];
}

function describeLayer({ tensor }: LayerPlan, { spec, bytes, error }: Candidate): MixedLayer {
  const { bits, groupSize } = spec;
  return { name: tensor.name, bits, groupSize, parameterCount: countElements(tensor.shape), bytes, error };
}

/** Rules that say more than that the layer is quantized at all. */
function describeReason(
  { reason }: LayerPlan,
  { spec, error }: Candidate,
  kind: SensitivityKind,
  target: Target,
): string {
  // The heuristic's figure is one of the layer's class and size, and no error.
  const cost = kind === "entropy" ? "entropy" : `${kind} error ${Math.sqrt(error).toPrecision(3)}`;
  const mixed = `mixed precision: ${spec.bits} bits, group ${spec.groupSize} (${cost}, target ${target.text})`;
  return reason === "quantized by default" ? mixed : `${reason}; ${mixed}`;
}

/** The plan with the layers kept whose weights are not finite, where the configuration keeps such layers. */
function keepUnmeasurable({ plan, table }: MeasuredComponent): ComponentPlan {
  const measured = new Set(table.layers.map(({ name }) => name));
  const kept = { spec: null, candidates: [], options: [], calibrated: false, spatial: null, activations: null };
  const reason = "keep: a weight is not finite (on_nonfinite keep)";
  return {
    ...plan,
    layers: plan.layers.map((layer): LayerPlan => {
      const isLost = layer.options.length > 0 && !measured.has(layer.tensor.name);
      return isLost ? { ...layer, ...kept, reason } : layer;
    }),
  };
}

function describe(
  { values }: ResolvedConfig,
  { kind }: MeasuredOptions,
  layers: readonly AllocationLayer[],
  { allocation, allocated, fileBytes, searched }: Choice,
): MixedAllocation {
  const parameterCount = layers.reduce((sum, layer) => sum + layer.parameterCount, 0);
  const groups = layers.reduce((sum, { name, parameterCount: count }) => {
    return sum + count * (allocated.specs.get(name) as Candidate).spec.groupSize;
  }, 0);
  const perWeight = (bytes: number): number => (8 * bytes) / parameterCount;
  return {
    sensitivity: kind,
    bitsPerWeight: perWeight(allocated.bytes),
    meanGroupSize: groups / parameterCount,
    bytes: allocated.bytes,
    fileBytes,
    error: allocated.error,
    lowerBound: allocation.lowerBound,
    gap: allocation.gap,
    search: searched?.search ?? null,
    front:
      searched === null
        ? traceFront(layers, Math.max(FRONT_GAP, values.knapsack_gap), perWeight)
        : paretoFront(
            searched.candidates.map((candidate) => ({
              bitsPerWeight: perWeight(candidate.allocated.bytes),
              error: candidate.error,
            })),
          ),
  };
}

/** Sizes from the least to the most that the layers can come to, and the roots of the sums of errors at each. */
function traceFront(
  layers: readonly AllocationLayer[],
  gap: number,
  perWeight: (bytes: number) => number,
): FrontPoint[] {
  const { least, most } = findReachableRange(layers, "bytes");
  const steps = Array.from({ length: FRONT_POINTS }, (_, index) => index / (FRONT_POINTS - 1));
  return paretoFront(
    steps.map((step) => {
      const { bytes, error } = allocateBits(layers, { kind: "bytes", value: least + step * (most - least) }, gap);
      return { bitsPerWeight: perWeight(bytes), error: Math.sqrt(error) };
    }),
  );
}

/** Points that no other beats in both, by rising size. */
function paretoFront(points: readonly FrontPoint[]): FrontPoint[] {
  let least = Infinity;
  return points
    .toSorted((a, b) => a.bitsPerWeight - b.bitsPerWeight || a.error - b.error)
    .filter(({ error }) => {
      const isBetter = error < least;
      least = Math.min(least, error);
      return isBetter;
    });
}

/** A target that the candidates leave unused is met, and still not what somebody had in mind. */
function warnOfSlack({ key, value, text }: Target, { bitsPerWeight, fileBytes }: MixedAllocation): string[] {
  const [reached, unit] =
    key === "target_bpw" ? [bitsPerWeight, "bits per weight"] : [(fileBytes ?? Infinity) / 1e6, "MB"];
  const isOfSize = key === "target_bpw" || key === "target_model_size_mb";
  if (!isOfSize || reached >= FULL * value) return [];
  return [`the target of ${text} is not used up: the candidates come to ${reached.toPrecision(4)} ${unit}`];
}
