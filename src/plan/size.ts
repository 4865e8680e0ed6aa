/** How large a plan's output is, before anything is quantized. */
import { DTYPES } from "../tensor/dtype.js";
import { countElements, rowBytes, rowLayout, viewAs2d } from "../tensor/layout.js";
import type { ComponentPlan, LayerPlan } from "./plan.js";

export interface PlanSizes {
  readonly parameters: number;
  readonly quantizedParameters: number;
  /** Bytes of all tensors in the source, applied scales included. */
  readonly sourceBytes: number;
  /** Bytes of codes, scales and zero points of the quantized tensors. */
  readonly quantizedBytes: number;
  /** Bytes of the kept tensors as stored. */
  readonly keptBytes: number;
  /** `quantizedBytes + keptBytes`; names, metrics and the file's own structure come on top. */
  readonly packedBytes: number;
  /** Bits per weight over the quantized tensors, with everything a reader needs; null without any. */
  readonly bitsPerWeight: number | null;
  /** The same over all tensors; null without elements. */
  readonly bitsPerWeightOverall: number | null;
}

/** Bytes that one tensor takes as planned. */
export function estimateLayerBytes(layer: LayerPlan): number {
  const { shape } = layer.tensor;
  if (layer.spec === null) return (countElements(shape) * DTYPES[layer.storedDtype].bits) / 8;
  const { rows, cols } = viewAs2d(shape);
  return rows * rowBytes(rowLayout(cols, layer.spec));
}

/** Sizes over the layers of one plan or several, from headers alone. */
export function estimateSizes(plan: ComponentPlan | readonly ComponentPlan[]): PlanSizes {
  const plans = [plan].flat() as readonly ComponentPlan[];
  const layers = plans.flatMap(({ layers: all }) => all);
  let parameters = 0;
  let quantizedParameters = 0;
  let sourceBytes = 0;
  let quantizedBytes = 0;
  let keptBytes = 0;
  for (const layer of layers) {
    const { tensor } = layer;
    const count = countElements(tensor.shape);
    parameters += count;
    sourceBytes += tensor.location.byteLength + (tensor.sourceScale?.location.byteLength ?? 0);
    const bytes = estimateLayerBytes(layer);
    if (layer.spec === null) {
      keptBytes += bytes;
    } else {
      quantizedBytes += bytes;
      quantizedParameters += count;
    }
  }
  const packedBytes = quantizedBytes + keptBytes;
  return {
    parameters,
    quantizedParameters,
    sourceBytes,
    quantizedBytes,
    keptBytes,
    packedBytes,
    bitsPerWeight: quantizedParameters === 0 ? null : (8 * quantizedBytes) / quantizedParameters,
    bitsPerWeightOverall: parameters === 0 ? null : (8 * packedBytes) / parameters,
  };
}
