/** The types that a GGUF file is written in, by the names that loaders and their users call them. */
import { BLOCKS, type Dtype, isBlockQuantized } from "../../tensor/dtype.js";
import { GGML_TYPES } from "./ggml-type.js";

interface OutputType {
  readonly dtype: Dtype;
  /**
   * `general.file_type` of a file that is mostly this (LlamaFileType of gguf-py): of the mixtures of K-quants the one
   * that mixes least.
   */
  readonly fileType: number;
  /** Bits of a weight's code: what thresholds of quality go by. Of floats the bits that they are worth. */
  readonly codeBits: 2 | 3 | 4 | 5 | 6 | 8;
  /** What stands in where rows are no whole blocks: as in llama.cpp a type of small blocks of no fewer bits. */
  readonly fallback: string | null;
}

export const GGUF_OUTPUT_TYPES = {
  f32: { dtype: "F32", fileType: 0, codeBits: 8, fallback: null },
  f16: { dtype: "F16", fileType: 1, codeBits: 8, fallback: null },
  bf16: { dtype: "BF16", fileType: 32, codeBits: 8, fallback: null },
  q4_0: { dtype: "Q4_0", fileType: 2, codeBits: 4, fallback: "f16" },
  q4_1: { dtype: "Q4_1", fileType: 3, codeBits: 4, fallback: "f16" },
  q5_0: { dtype: "Q5_0", fileType: 8, codeBits: 5, fallback: "f16" },
  q5_1: { dtype: "Q5_1", fileType: 9, codeBits: 5, fallback: "f16" },
  q8_0: { dtype: "Q8_0", fileType: 7, codeBits: 8, fallback: "f16" },
  q2_k: { dtype: "Q2_K", fileType: 10, codeBits: 2, fallback: "q4_0" },
  q3_k: { dtype: "Q3_K", fileType: 11, codeBits: 3, fallback: "q4_0" },
  q4_k: { dtype: "Q4_K", fileType: 14, codeBits: 4, fallback: "q5_0" },
  q5_k: { dtype: "Q5_K", fileType: 16, codeBits: 5, fallback: "q5_1" },
  q6_k: { dtype: "Q6_K", fileType: 18, codeBits: 6, fallback: "q8_0" },
} as const satisfies Record<string, OutputType>;

export type GgufTypeName = keyof typeof GGUF_OUTPUT_TYPES;

export const GGUF_TYPE_NAMES = Object.keys(GGUF_OUTPUT_TYPES) as readonly GgufTypeName[];

export function isGgufTypeName(name: string): name is GgufTypeName {
  return Object.hasOwn(GGUF_OUTPUT_TYPES, name);
}

/** The numbers that ggml knows types by, of those that are written. */
const TYPE_NUMBERS: ReadonlyMap<Dtype, number> = new Map(
  [...GGML_TYPES].flatMap(([number, type]) => ("dtype" in type ? [[type.dtype, number] as const] : [])),
);

/** ggml's number of a type; null: ggml has none for it. */
export function ggmlTypeNumber(dtype: Dtype): number | null {
  return TYPE_NUMBERS.get(dtype) ?? null;
}

/** Elements that a row must be a multiple of. */
export function blockElements(dtype: Dtype): number {
  return isBlockQuantized(dtype) ? BLOCKS[dtype].elements : 1;
}
