/** Whether a plan file fits a model, and what it settles. Pure. */
import type { Component, TensorInfo } from "../tensor/info.js";
import { type Calibration, knowledgeOf } from "./calibration.js";
import { isQuantizable, type SettledLayers, type SettledTensor } from "./layers.js";
import { type PlanFile, type PlanFileComponent, type PlanFileLayer, refusePlan } from "./plan-file.js";

/** Tensors named in one message. */
const MAX_NAMES_SHOWN = 3;

/**
 * What the file says of each tensor that can be quantized, by component.
 * @throws E_PLAN where components or tensors are missing or too many, shapes are others, or a method needs what the
 *   calibration does not have
 */
export function fitPlanFile(
  file: PlanFile,
  components: readonly Component[],
  calibration: Calibration | null,
): ReadonlyMap<string, SettledLayers> {
  const problems: string[] = [];
  const settled = new Map<string, SettledLayers>();
  for (const { name } of components) {
    if (file.components.some(({ component }) => component === name)) continue;
    problems.push(`${file.path}: there is no component "${name}", which the model has`);
  }
  for (const planned of file.components) {
    const component = components.find(({ name }) => name === planned.component);
    if (component === undefined) {
      const names = components.map(({ name }) => `"${name}"`).join(", ");
      problems.push(`${planned.place}: the model has no component "${planned.component}", it has ${names}`);
      continue;
    }
    const own = calibration?.component === component.name ? calibration : null;
    problems.push(...findMisfits(planned, component.tensors.filter(isQuantizable), own));
    settled.set(component.name, new Map(planned.layers.map((layer) => [layer.name, settle(layer)])));
  }
  if (problems.length === 0) return settled;
  throw refusePlan(file.path, problems, "a plan file belongs to one model; `arrowquant plan MODEL` writes one for it");
}

function settle({ spec, isAuto, place }: PlanFileLayer): SettledTensor {
  return { spec, isAuto, reason: `plan file ${place}` };
}

function findMisfits(
  { layers, component, place }: PlanFileComponent,
  tensors: readonly TensorInfo[],
  calibration: Calibration | null,
): string[] {
  const planned = new Map(layers.map((layer) => [layer.name, layer]));
  const known = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const missing = tensors.filter(({ name }) => !planned.has(name));
  const problems: string[] = [];
  if (missing.length > 0) {
    const names = missing.slice(0, MAX_NAMES_SHOWN).map(({ name }) => `"${name}"`);
    const more = missing.length > names.length ? " …" : "";
    problems.push(
      `${place}: ${missing.length} of ${tensors.length} tensors of "${component}" are missing: ${names.join(", ")}${more}`,
    );
  }
  for (const layer of layers) {
    const tensor = known.get(layer.name);
    if (tensor === undefined) {
      problems.push(`${layer.place}: "${layer.name}" is none of the ${tensors.length} tensors of "${component}"`);
      continue;
    }
    if (tensor.shape.join() !== layer.shape.join()) {
      problems.push(
        `${layer.place}: "${layer.name}" is [${layer.shape.join(", ")}], the model has [${tensor.shape.join(", ")}]`,
      );
    }
    if (layer.spec?.method === "gptq" && !knowledgeOf(calibration, layer.name).hasHessian) {
      const lack = calibration === null ? "calibration, and there is none" : "a Hessian, and the calibration has none";
      problems.push(`${layer.place}: "${layer.name}" has method gptq, which needs ${lack}`);
    }
  }
  return problems;
}
