/** A set of tensors cut into shards, and the index that says what is where. */
import { DTYPES } from "../../tensor/dtype.js";
import { countElements } from "../../tensor/layout.js";
import type { OutputTensor } from "./writer.js";

/** Largest shard unless asked otherwise, as huggingface_hub cuts (`MAX_SHARD_SIZE = "5GB"`). */
export const DEFAULT_SHARD_BYTES = 5e9;

export interface Shard {
  /** Name within the component's folder, with `/`. */
  readonly fileName: string;
  readonly tensors: readonly OutputTensor[];
}

export function tensorBytes({ dtype, shape }: OutputTensor): number {
  return (countElements(shape) * DTYPES[dtype].bits) / 8;
}

/**
 * Cuts tensors, in their order, into shards of at most `maxBytes`; a larger tensor has one to itself. One shard is
 * `BASE.safetensors`, of several the first is `BASE-00001-of-0000N.safetensors`, as huggingface_hub names them
 * (`split_state_dict_into_shards_factory`).
 */
export function splitIntoShards(tensors: readonly OutputTensor[], base: string, maxBytes: number): Shard[] {
  const shards: OutputTensor[][] = [];
  let free = 0;
  for (const tensor of tensors) {
    const byteLength = tensorBytes(tensor);
    if (shards.length === 0 || byteLength > free) {
      shards.push([]);
      free = maxBytes;
    }
    shards.at(-1)?.push(tensor);
    free -= byteLength;
  }
  if (shards.length <= 1) return [{ fileName: `${base}.safetensors`, tensors: shards[0] ?? [] }];
  const number = (value: number) => String(value).padStart(5, "0");
  return shards.map((part, index) => ({
    fileName: `${base}-${number(index + 1)}-of-${number(shards.length)}.safetensors`,
    tensors: part,
  }));
}

/** The text of an index, as huggingface_hub writes it: names in order, two spaces. */
export function indexText(shards: readonly Shard[]): string {
  const weightMap = new Map<string, string>();
  let totalSize = 0;
  for (const { fileName, tensors } of shards) {
    for (const tensor of tensors) {
      weightMap.set(tensor.name, fileName);
      totalSize += tensorBytes(tensor);
    }
  }
  // Not a plain object: a tensor may be called "7" or "__proto__".
  const names = [...weightMap.keys()].sort();
  const lines = names.map((name) => `    ${JSON.stringify(name)}: ${JSON.stringify(weightMap.get(name))}`);
  const map = lines.length === 0 ? "{}" : `{\n${lines.join(",\n")}\n  }`;
  return `{\n  "metadata": {\n    "total_size": ${totalSize}\n  },\n  "weight_map": ${map}\n}\n`;
}
