/**
 * Element types of source tensors, in safetensors' spelling, then those of ggml's that quantize elements in blocks,
 * in ggml's spelling.
 * Sources: https://github.com/huggingface/safetensors (enum Dtype); ggml.h (enum ggml_type), ggml-common.h.
 */

/**
 * - `float`: can be quantized; the kernels convert it to float32.
 * - `integer`, `boolean`, `complex`: always kept, byte for byte.
 * - `block`: a code or scale of an already quantized tensor that means nothing alone; refused.
 */
export type DtypeKind = "float" | "integer" | "boolean" | "complex" | "block";

interface DtypeEntry {
  /** Bits of an element; of types of blocks a block's bits over its elements. */
  readonly bits: number;
  readonly kind: DtypeKind;
  /** Number by which the kernels know the type (assembly/convert.ts); −1 where they do not. */
  readonly kernelCode: number;
}

export const DTYPES = {
  F64: { bits: 64, kind: "float", kernelCode: 0 },
  F32: { bits: 32, kind: "float", kernelCode: 1 },
  F16: { bits: 16, kind: "float", kernelCode: 2 },
  BF16: { bits: 16, kind: "float", kernelCode: 3 },
  F8_E4M3: { bits: 8, kind: "float", kernelCode: 4 },
  F8_E5M2: { bits: 8, kind: "float", kernelCode: 5 },
  BOOL: { bits: 8, kind: "boolean", kernelCode: -1 },
  U8: { bits: 8, kind: "integer", kernelCode: -1 },
  I8: { bits: 8, kind: "integer", kernelCode: -1 },
  U16: { bits: 16, kind: "integer", kernelCode: -1 },
  I16: { bits: 16, kind: "integer", kernelCode: -1 },
  U32: { bits: 32, kind: "integer", kernelCode: -1 },
  I32: { bits: 32, kind: "integer", kernelCode: -1 },
  U64: { bits: 64, kind: "integer", kernelCode: -1 },
  I64: { bits: 64, kind: "integer", kernelCode: -1 },
  C64: { bits: 64, kind: "complex", kernelCode: -1 },
  F8_E8M0: { bits: 8, kind: "block", kernelCode: -1 },
  F6_E2M3: { bits: 6, kind: "block", kernelCode: -1 },
  F6_E3M2: { bits: 6, kind: "block", kernelCode: -1 },
  F4: { bits: 4, kind: "block", kernelCode: -1 },
  Q4_0: { bits: 4.5, kind: "float", kernelCode: 6 },
  Q4_1: { bits: 5, kind: "float", kernelCode: 7 },
  Q5_0: { bits: 5.5, kind: "float", kernelCode: 8 },
  Q5_1: { bits: 6, kind: "float", kernelCode: 9 },
  Q8_0: { bits: 8.5, kind: "float", kernelCode: 10 },
  Q2_K: { bits: 2.625, kind: "float", kernelCode: 11 },
  Q3_K: { bits: 3.4375, kind: "float", kernelCode: 12 },
  Q4_K: { bits: 4.5, kind: "float", kernelCode: 13 },
  Q5_K: { bits: 5.5, kind: "float", kernelCode: 14 },
  Q6_K: { bits: 6.5625, kind: "float", kernelCode: 15 },
} as const satisfies Record<string, DtypeEntry>;

export type Dtype = keyof typeof DTYPES;

export function isDtype(name: string): name is Dtype {
  return Object.hasOwn(DTYPES, name);
}

export function isFloat(dtype: Dtype): boolean {
  return DTYPES[dtype].kind === "float";
}

/** Elements and bytes of a block of each type that quantizes elements in blocks (GGML_QUANT_SIZES of gguf-py). */
export const BLOCKS = {
  Q4_0: { elements: 32, bytes: 18 },
  Q4_1: { elements: 32, bytes: 20 },
  Q5_0: { elements: 32, bytes: 22 },
  Q5_1: { elements: 32, bytes: 24 },
  Q8_0: { elements: 32, bytes: 34 },
  Q2_K: { elements: 256, bytes: 84 },
  Q3_K: { elements: 256, bytes: 110 },
  Q4_K: { elements: 256, bytes: 144 },
  Q5_K: { elements: 256, bytes: 176 },
  Q6_K: { elements: 256, bytes: 210 },
} as const satisfies Partial<Record<Dtype, { readonly elements: number; readonly bytes: number }>>;

export type BlockDtype = keyof typeof BLOCKS;

/** Whether weights of this type are quantized already: it holds them in blocks with scales of their own. */
export function isBlockQuantized(dtype: Dtype): dtype is BlockDtype {
  return Object.hasOwn(BLOCKS, dtype);
}

/** The type that a tensor is kept as: blocks are rebuilt, since readers of the native file do not know them. */
export function keptDtype(dtype: Dtype): Dtype {
  return isBlockQuantized(dtype) ? "F32" : dtype;
}

/** Where a run of elements lies in a tensor. */
export interface ElementSpan {
  /** From the tensor's first byte. */
  readonly byteOffset: number;
  readonly byteLength: number;
  /** Elements of the span's first block that stand before the run; 0 for types without blocks. */
  readonly skip: number;
}

/** The bytes that hold `count` elements from number `first` on: whole blocks of types that have them. */
export function spanOf(dtype: Dtype, first: number, count: number): ElementSpan {
  if (!isBlockQuantized(dtype)) {
    const { bits } = DTYPES[dtype];
    return { byteOffset: (first * bits) / 8, byteLength: (count * bits) / 8, skip: 0 };
  }
  const { elements, bytes } = BLOCKS[dtype];
  const firstBlock = Math.floor(first / elements);
  const endBlock = Math.ceil((first + count) / elements);
  return { byteOffset: firstBlock * bytes, byteLength: (endBlock - firstBlock) * bytes, skip: first % elements };
}

/** Most bytes that `count` elements may lie in, wherever they begin. */
export function largestSpanBytes(dtype: Dtype, count: number): number {
  return spanOf(dtype, isBlockQuantized(dtype) ? BLOCKS[dtype].elements - 1 : 0, count).byteLength;
}
