/** From a model's headers and a configuration to what will be done with each tensor. Pure. */
import { describeOrigin, type ResolvedConfig } from "../config/config.js";
import { ArrowQuantError } from "../errors.js";
import type { Component } from "../tensor/info.js";
import { type Calibration, withoutLayers } from "./calibration.js";
import { detectArchitecture, stripNames } from "./keep.js";
import { checkLayerRules, compileLayerRules, planLayers, type SettledLayers } from "./layers.js";
import { detectModality, type NamedComponent } from "./modality.js";
import type { ComponentPlan, Decision, LayerPlan } from "./plan.js";
import { checkRequantization } from "./requantize.js";
import { chooseStrategy, layerOptions, planCalibration, treatLayer } from "./strategy.js";

export interface PlanInput {
  /** The components to quantize. */
  readonly components: readonly Component[];
  /** `_class_name` of model_index.json, where there is one. */
  readonly pipelineClassName: string | null;
  readonly config: ResolvedConfig;
  /** null: nothing was measured. */
  readonly calibration: Calibration | null;
  /** What a plan file settled, by component, in place of the layer rules; absent: nothing. */
  readonly settled?: ReadonlyMap<string, SettledLayers>;
}

/**
 * One plan per component, in order, from headers alone.
 * @throws `E_MODALITY` where the modality is neither set nor evident; `E_PATTERN` for a pattern that is no
 *   regular expression or that matches no tensor of any component; `E_NOTHING` where every tensor would be
 *   kept; `E_CONFLICT` for settings that cannot be met; `E_PREQUANTIZED` for a source that is quantized already
 *   where `allow_requantize` is false
 */
export function planComponents({
  components,
  pipelineClassName,
  config,
  calibration,
  settled,
}: PlanInput): ComponentPlan[] {
  const { values } = config;
  const rules = compileLayerRules(config);
  const named: NamedComponent[] = components.map((component) => {
    const names = stripNames(component.tensors);
    return { component, names, detected: detectArchitecture(component, names) };
  });
  const chosenBy = describeOrigin(config.origins.modality);
  const detectedModality = detectModality(named, pipelineClassName, values.modality, chosenBy);
  const { modality, evidence, warnings } = detectedModality;

  const plans = named.map(({ component, names, detected }): ComponentPlan => {
    const { architecture } = detected;
    const isOther = calibration !== null && calibration.component !== component.name;
    const strategy = chooseStrategy(modality, config, isOther ? withoutLayers(calibration) : calibration);
    const layers = planLayers(component.tensors, names, rules, {
      architecture,
      treat: (name, bits) => treatLayer(strategy, name, bits),
      options: layerOptions(strategy),
      skipSensitive: values.skip_sensitive_layers,
      sensitiveMinBits: values.sensitive_min_bits === "none" ? null : values.sensitive_min_bits,
      settled: settled?.get(component.name) ?? null,
    });
    const decisions: Decision[] = [
      { what: "architecture", value: architecture.name, rule: detected.evidence },
      { what: "modality", value: modality, rule: detectedModality.rule },
      ...describeCalibration(calibration, component.name, layers),
      ...strategy.decisions,
      {
        what: "skip_sensitive_layers",
        value: String(values.skip_sensitive_layers),
        rule: describeOrigin(config.origins.skip_sensitive_layers),
      },
    ];
    const isGuess = architecture.name === "unknown" && values.skip_sensitive_layers;
    return {
      component: component.name,
      architecture: architecture.name,
      modality,
      modalityEvidence: evidence,
      decisions,
      notApplied: strategy.notApplied,
      warnings: [
        ...warnings,
        ...(isGuess
          ? [`component "${component.name}" has no known architecture: layers are kept by common names`]
          : []),
        ...warnOfUncovered(calibration, component.name, layers),
        ...checkRequantization(component.name, layers, values.allow_requantize),
      ],
      baseSpec: strategy.baseSpec,
      calibration: planCalibration(strategy),
      spatial: strategy.spatial,
      activations: strategy.activations,
      mixed: null,
      layers,
    };
  });
  const ruleWarnings = checkLayerRules(
    rules,
    components.flatMap(({ tensors }) => tensors),
    config,
  );
  if (plans.every(({ layers }) => layers.every(({ spec }) => spec === null))) throw refuseNothing(plans);
  return ruleWarnings.length === 0
    ? plans
    : plans.map((plan) => ({ ...plan, warnings: [...plan.warnings, ...ruleWarnings] }));
}

/** How much of a component the calibration covers. */
function describeCalibration(
  calibration: Calibration | null,
  componentName: string,
  layers: readonly LayerPlan[],
): Decision[] {
  if (calibration === null) return [];
  const { label, component } = calibration;
  if (component !== componentName)
    return [{ what: "calibration", value: "none", rule: `${label} is of component ${component}` }];
  const { quantized, covered } = countCovered(layers);
  return [{ what: "calibration", value: label, rule: `statistics of ${covered} of ${quantized} quantized layers` }];
}

function warnOfUncovered(
  calibration: Calibration | null,
  componentName: string,
  layers: readonly LayerPlan[],
): string[] {
  if (calibration === null || calibration.component !== componentName) return [];
  const { quantized, covered } = countCovered(layers);
  return covered === quantized
    ? []
    : [`${calibration.label} covers ${covered} of ${quantized} quantized layers, the others are weights only`];
}

function countCovered(layers: readonly LayerPlan[]): { quantized: number; covered: number } {
  const quantized = layers.filter(({ spec }) => spec !== null);
  return { quantized: quantized.length, covered: quantized.filter(({ calibrated }) => calibrated).length };
}

/** The plan of a single component; see `planComponents`. */
export function planComponent({
  component,
  ...input
}: Omit<PlanInput, "components"> & { readonly component: Component }): ComponentPlan {
  return planComponents({ ...input, components: [component] })[0] as ComponentPlan;
}

function refuseNothing(plans: readonly ComponentPlan[]): ArrowQuantError {
  const counts = new Map<string, number>();
  for (const { reason } of plans.flatMap(({ layers }) => layers)) counts.set(reason, (counts.get(reason) ?? 0) + 1);
  const reasons = [...counts].sort(([, a], [, b]) => b - a);
  const total = reasons.reduce((sum, [, count]) => sum + count, 0);
  // The commonest tell the story; a table of every pattern would not.
  const shown = reasons.slice(0, 5).map(([reason, count]) => `${count} ${reason}`);
  const names = plans.map(({ component }) => `"${component}"`).join(", ");
  const message =
    total === 0
      ? `nothing to quantize in ${names}: no tensors`
      : `nothing to quantize in ${names}: all ${total} tensors are kept (${shown.join("; ")})`;
  return new ArrowQuantError("E_NOTHING", message, {
    hint: "layer_bit_widths gives layers a width whatever else would keep them",
    details: { components: plans.map(({ component }) => component), reasons: Object.fromEntries(reasons) },
  });
}
