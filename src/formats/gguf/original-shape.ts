/**
 * Shapes that ComfyUI-GGUF has taken apart: a tensor whose rows no block divides is stored as rows of 256, with its
 * own shape under `comfy.gguf.orig_shape.NAME`.
 * Source: https://github.com/city96/ComfyUI-GGUF (tools/convert.py, loader.py).
 */
import { ArrowQuantError } from "../../errors.js";
import { countElements } from "../../tensor/layout.js";
import { quoteName } from "../json.js";
import type { GgufEntry } from "./metadata.js";
import type { GgufTensor } from "./tensors.js";

const PREFIX = "comfy.gguf.orig_shape.";

export function originalShapeKey(tensorName: string): string {
  return PREFIX + tensorName;
}

/** Every tensor's shape before it was stored. @throws E_SHAPE for one of another number of elements */
export function restoreShapes<T extends Pick<GgufTensor, "name" | "shape">>(
  tensors: readonly T[],
  metadata: ReadonlyMap<string, GgufEntry>,
  source: string,
): { readonly restored: T[]; readonly warnings: string[] } {
  const shapes = new Map<string, readonly number[]>();
  for (const [key, entry] of metadata) {
    if (key.startsWith(PREFIX)) shapes.set(key.slice(PREFIX.length), readShape(key, entry, source));
  }
  if (shapes.size === 0) return { restored: [...tensors], warnings: [] };
  const restored = tensors.map((tensor) => {
    const shape = shapes.get(tensor.name);
    if (shape === undefined) return tensor;
    shapes.delete(tensor.name);
    if (countElements(shape) === countElements(tensor.shape)) return { ...tensor, shape };
    const name = quoteName(tensor.name);
    throw new ArrowQuantError("E_SHAPE", `${source}: ${name} is [${tensor.shape}], its original shape is [${shape}]`, {
      details: { tensor: tensor.name, stored: tensor.shape, original: shape },
    });
  });
  const [first] = shapes.keys();
  const warnings =
    first === undefined
      ? []
      : [`${shapes.size} original shapes are of tensors that are not there, the first of ${quoteName(first)}`];
  return { restored, warnings };
}

function readShape(key: string, { type, value }: GgufEntry, source: string): readonly number[] {
  const sizes = Array.isArray(value) ? value.map(Number) : [];
  const isShape = /^list of u?int/.test(type) && sizes.length > 0;
  if (isShape && sizes.every((size) => Number.isSafeInteger(size) && size >= 0)) return sizes;
  throw new ArrowQuantError("E_SHAPE", `${source}: key ${quoteName(key)} is no shape, but ${type} [${sizes}]`, {
    details: { key, type },
  });
}
