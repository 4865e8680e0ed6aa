/** Components made of names and shapes alone, as readers give them. */

import type { ResolvedConfig } from "../../dist/config/config.js";
import { resolveConfig } from "../../dist/config/resolve.js";
import { DTYPES, type Dtype } from "../../dist/tensor/dtype.js";
import type { Component, SourceScale, TensorInfo } from "../../dist/tensor/info.js";
import { countElements } from "../../dist/tensor/layout.js";

export interface TensorOptions {
  readonly shape?: readonly number[];
  readonly dtype?: Dtype;
  readonly sourceScale?: SourceScale | null;
}

export function tensor(name: string, options: TensorOptions = {}): TensorInfo {
  const shape = options.shape ?? [64, 64];
  const dtype = options.dtype ?? "F16";
  return {
    name,
    shape,
    dtype,
    location: { file: 0, byteOffset: 0, byteLength: (countElements(shape) * DTYPES[dtype].bits) / 8 },
    sourceScale: options.sourceScale ?? null,
  };
}

export interface ComponentOptions {
  readonly name?: string;
  readonly className?: string | null;
  readonly config?: Record<string, unknown> | null;
}

/** A component of tensors, or of names of 64×64 weights. */
export function component(tensors: readonly (string | TensorInfo)[], options: ComponentOptions = {}): Component {
  return {
    name: options.name ?? "model",
    files: [],
    tensors: tensors.map((one) => (typeof one === "string" ? tensor(one) : one)),
    configText: options.config == null ? null : JSON.stringify(options.config),
    className: options.className ?? null,
  };
}

/** A configuration set by flags alone. */
export function configOf(flags: Record<string, unknown> = {}): Promise<ResolvedConfig> {
  return resolveConfig({ flags });
}
