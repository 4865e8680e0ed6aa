/**
 * The `pack-quantized` convention of compressed-tensors, which transformers, vLLM and the package itself read:
 * in place of `X.weight` stand
 *
 * - `X.weight_packed`, int32 [out, ceil(in · bits / 32)]: codes along the input dimension, element j of a row in bits
 *   j·bits … of the row, counted from the least significant bit of its first word;
 * - `X.weight_scale`, float [out, groups];
 * - `X.weight_zero_point`, int32 [ceil(out · bits / 32), groups], absent where symmetric: packed likewise, but along
 *   the output dimension;
 * - `X.weight_shape`, int64 [2];
 *
 * and `quantization_config` in config.json. The package thinks of codes and zero points as signed and adds
 * 2^(bits − 1) to both before it packs them, so that the words hold our unsigned codes as they are; a symmetric layer
 * has zero point 0 there, 2^(bits − 1) here. Rebuilt is (code − zero point) · scale, in the type of the scale.
 *
 * Source: https://github.com/vllm-project/compressed-tensors, version 0.20.0: `pack_to_int32` and `unpack_from_int32`
 * in compressors/pack_quantized/helpers.py, `decompress` in …/base.py, `dequantize` in
 * quantization/lifecycle/forward.py, `QuantizationConfig`, `QuantizationScheme` and `QuantizationArgs` in quantization/.
 */
import type { OutputTensor } from "./safetensors/writer.js";

/**
 * Widths whose words every version of the package reads alike. Of 3, 5 and 6 bits older ones put as many as fit into
 * a word and pad it, newer ones let codes cross words.
 */
export const PACKED_BIT_WIDTHS: readonly number[] = [2, 4, 8];

export const QUANTIZATION_CONFIG_KEY = "quantization_config";

const WORD_BITS = 32;
const WORD_BYTES = WORD_BITS / 8;

/** One linear layer as the convention has it. */
export interface PackedLayer {
  /** Name of the module, `X` of `X.weight`. */
  readonly module: string;
  readonly bits: number;
  /** Elements per group, a divisor of `cols`; null: one group a row. */
  readonly groupSize: number | null;
  readonly symmetric: boolean;
  readonly rows: number;
  readonly cols: number;
}

export type PackedPart = "packed" | "scale" | "zeroPoint" | "shape";

export const PACKED_NAMES: Readonly<Record<PackedPart, string>> = {
  packed: "weight_packed",
  scale: "weight_scale",
  zeroPoint: "weight_zero_point",
  shape: "weight_shape",
};

/** int32 words that `count` codes take. */
export function countWords(count: number, bits: number): number {
  return Math.ceil((count * bits) / WORD_BITS);
}

/** Bytes of one row of `weight_packed`. */
export function packedRowBytes({ cols, bits }: PackedLayer): number {
  return countWords(cols, bits) * WORD_BYTES;
}

export function countGroups({ cols, groupSize }: PackedLayer): number {
  return groupSize === null ? 1 : cols / groupSize;
}

/** The tensors in place of `X.weight`. */
export function packedTensors(
  layer: PackedLayer,
  scaleDtype: OutputTensor["dtype"],
): ReadonlyMap<PackedPart, OutputTensor> {
  const { module, bits, rows, cols, symmetric } = layer;
  const groups = countGroups(layer);
  const tensor = (part: PackedPart, dtype: OutputTensor["dtype"], shape: readonly number[]) =>
    [part, { name: `${module}.${PACKED_NAMES[part]}`, dtype, shape }] as const;
  return new Map<PackedPart, OutputTensor>([
    tensor("packed", "I32", [rows, countWords(cols, bits)]),
    tensor("scale", scaleDtype, [rows, groups]),
    ...(symmetric ? [] : [tensor("zeroPoint", "I32", [countWords(rows, bits), groups])]),
    tensor("shape", "I64", [2]),
  ]);
}

/** The bytes of `weight_shape`. */
export function shapeBytes({ rows, cols }: PackedLayer): Uint8Array {
  return new Uint8Array(BigInt64Array.of(BigInt(rows), BigInt(cols)).buffer);
}

/**
 * Packs zero points along the output dimension, row by row as they come: words are complete, and may be written, once
 * all their rows have been added.
 */
export class ZeroPointPacker {
  readonly #bits: number;
  readonly #groups: number;
  #rowCount = 0;
  /** Words of the rows that share a word with the next one to come. */
  #open: Int32Array;

  constructor({ bits, groups }: { readonly bits: number; readonly groups: number }) {
    this.#bits = bits;
    this.#groups = groups;
    this.#open = new Int32Array(groups);
  }

  /**
   * Adds rows of zero points, 0 … 2^bits − 1 each.
   * @returns words [n, groups] and the byte at which they belong in the tensor; the last of them may be unfinished,
   *   and is then given again with the rows that follow
   */
  add(zeroPoints: Uint8Array): { readonly byteOffset: number; readonly words: Int32Array } {
    const groups = this.#groups;
    const rows = zeroPoints.length / groups;
    const firstBit = this.#rowCount * this.#bits;
    const firstWord = Math.floor(firstBit / WORD_BITS);
    this.#rowCount += rows;
    const words = new Int32Array((countWords(this.#rowCount, this.#bits) - firstWord) * groups);
    // Widths divide a word, so that no zero point crosses two.
    if (firstBit % WORD_BITS > 0) words.set(this.#open);
    for (let row = 0; row < rows; row++) {
      const bit = firstBit + row * this.#bits;
      const at = (Math.floor(bit / WORD_BITS) - firstWord) * groups;
      const shift = bit % WORD_BITS;
      for (let group = 0; group < groups; group++) {
        const word = at + group;
        words[word] = (words[word] as number) | ((zeroPoints[row * groups + group] as number) << shift);
      }
    }
    this.#open = words.slice(words.length - groups);
    return { byteOffset: firstWord * groups * WORD_BYTES, words };
  }
}

/**
 * The value of `quantization_config`: layers of one width, group size and symmetry form a group whose targets are
 * their names. Names, not the class "Linear": that would also take in linear layers that the file does not hold, such
 * as tied ones.
 * @param ignored modules with a weight of two dimensions that is not packed
 */
export function describePacking(layers: readonly PackedLayer[], ignored: readonly string[]): object {
  const schemes = new Map<string, { readonly weights: object; readonly targets: string[] }>();
  for (const { module, bits, groupSize, symmetric } of layers) {
    const weights = {
      num_bits: bits,
      type: "int",
      symmetric,
      strategy: groupSize === null ? "channel" : "group",
      group_size: groupSize,
      dynamic: false,
    };
    const key = JSON.stringify(weights);
    const scheme = schemes.get(key);
    if (scheme === undefined) schemes.set(key, { weights, targets: [module] });
    else scheme.targets.push(module);
  }
  const groups = [...schemes.values()].map(({ weights, targets }, index) => [
    `group_${index}`,
    { targets, weights, input_activations: null, output_activations: null, format: "pack-quantized" },
  ]);
  return {
    quant_method: "compressed-tensors",
    format: "pack-quantized",
    quantization_status: "compressed",
    config_groups: Object.fromEntries(groups),
    ignore: ignored,
    kv_cache_scheme: null,
    global_compression_ratio: null,
  };
}
