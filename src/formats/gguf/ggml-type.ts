/**
 * Element types of GGUF tensors by their numbers.
 * Source: ggml.h (enum ggml_type) and GGMLQuantizationType of gguf-py; numbers that ggml has dropped keep their names.
 */
import type { Dtype } from "../../tensor/dtype.js";

/** A type that is read as `dtype`, or one that is not, with the reason. */
export type GgmlType =
  | { readonly name: string; readonly dtype: Dtype }
  | { readonly name: string; readonly refused: string };

const CODEBOOK = "its codes are entries of ggml's codebooks";
const TERNARY = "its weights are ternary and were trained so";
const FLOAT4 = "4-bit floats in blocks";
const ACTIVATIONS = "a type of activations, never of stored weights";
const REPACKED = "blocks repacked for one kind of processor, dropped by ggml";
const DROPPED = "dropped by ggml";

export const GGML_TYPES: ReadonlyMap<number, GgmlType> = new Map([
  [0, { name: "F32", dtype: "F32" }],
  [1, { name: "F16", dtype: "F16" }],
  [2, { name: "Q4_0", dtype: "Q4_0" }],
  [3, { name: "Q4_1", dtype: "Q4_1" }],
  [4, { name: "Q4_2", refused: DROPPED }],
  [5, { name: "Q4_3", refused: DROPPED }],
  [6, { name: "Q5_0", dtype: "Q5_0" }],
  [7, { name: "Q5_1", dtype: "Q5_1" }],
  [8, { name: "Q8_0", dtype: "Q8_0" }],
  [9, { name: "Q8_1", refused: ACTIVATIONS }],
  [10, { name: "Q2_K", dtype: "Q2_K" }],
  [11, { name: "Q3_K", dtype: "Q3_K" }],
  [12, { name: "Q4_K", dtype: "Q4_K" }],
  [13, { name: "Q5_K", dtype: "Q5_K" }],
  [14, { name: "Q6_K", dtype: "Q6_K" }],
  [15, { name: "Q8_K", refused: ACTIVATIONS }],
  [16, { name: "IQ2_XXS", refused: CODEBOOK }],
  [17, { name: "IQ2_XS", refused: CODEBOOK }],
  [18, { name: "IQ3_XXS", refused: CODEBOOK }],
  [19, { name: "IQ1_S", refused: CODEBOOK }],
  [20, { name: "IQ4_NL", refused: CODEBOOK }],
  [21, { name: "IQ3_S", refused: CODEBOOK }],
  [22, { name: "IQ2_S", refused: CODEBOOK }],
  [23, { name: "IQ4_XS", refused: CODEBOOK }],
  [24, { name: "I8", dtype: "I8" }],
  [25, { name: "I16", dtype: "I16" }],
  [26, { name: "I32", dtype: "I32" }],
  [27, { name: "I64", dtype: "I64" }],
  [28, { name: "F64", dtype: "F64" }],
  [29, { name: "IQ1_M", refused: CODEBOOK }],
  [30, { name: "BF16", dtype: "BF16" }],
  [31, { name: "Q4_0_4_4", refused: REPACKED }],
  [32, { name: "Q4_0_4_8", refused: REPACKED }],
  [33, { name: "Q4_0_8_8", refused: REPACKED }],
  [34, { name: "TQ1_0", refused: TERNARY }],
  [35, { name: "TQ2_0", refused: TERNARY }],
  [36, { name: "IQ4_NL_4_4", refused: REPACKED }],
  [37, { name: "IQ4_NL_4_8", refused: REPACKED }],
  [38, { name: "IQ4_NL_8_8", refused: REPACKED }],
  [39, { name: "MXFP4", refused: FLOAT4 }],
  [40, { name: "NVFP4", refused: FLOAT4 }],
  [41, { name: "Q1_0", refused: TERNARY }],
] as const satisfies readonly (readonly [number, GgmlType])[]);
