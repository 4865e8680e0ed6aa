/** Sources whose weights are quantized already: to quantize them again adds one error to another. Pure. */
import { ArrowQuantError } from "../errors.js";
import { isBlockQuantized } from "../tensor/dtype.js";
import type { LayerPlan } from "./plan.js";

/**
 * That `layers` may be quantized as planned. Kept tensors do not count: they are rebuilt without further loss.
 * @returns a warning that names the types, where there are any
 * @throws E_PREQUANTIZED where there are and `isAllowed` is false
 */
export function checkRequantization(componentName: string, layers: readonly LayerPlan[], isAllowed: boolean): string[] {
  const counts = new Map<string, number>();
  for (const { tensor, spec } of layers) {
    if (spec === null || !isBlockQuantized(tensor.dtype)) continue;
    counts.set(tensor.dtype, (counts.get(tensor.dtype) ?? 0) + 1);
  }
  if (counts.size === 0) return [];
  const types = [...counts].map(([dtype, count]) => `${count} of ${dtype}`).join(", ");
  if (!isAllowed) {
    const message = `component "${componentName}" is quantized already: of the layers to quantize ${types}`;
    throw new ArrowQuantError("E_PREQUANTIZED", message, {
      hint: "quantize the original weights, or accept both errors with --allow-requantize",
      details: { component: componentName, types: Object.fromEntries(counts) },
    });
  }
  return [`component "${componentName}" was quantized already (${types}): errors are measured against what it holds`];
}
