/**
 * Element types of source tensors, in safetensors' spelling.
 * Source: https://github.com/huggingface/safetensors (enum Dtype).
 */

/**
 * - `float`: can be quantized; the kernels convert it to float32.
 * - `integer`, `boolean`, `complex`: always kept, byte for byte.
 * - `block`: a code or scale of an already quantized tensor that means nothing alone; refused.
 */
export type DtypeKind = "float" | "integer" | "boolean" | "complex" | "block";

interface DtypeEntry {
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
} as const satisfies Record<string, DtypeEntry>;

export type Dtype = keyof typeof DTYPES;

export function isDtype(name: string): name is Dtype {
  return Object.hasOwn(DTYPES, name);
}

export function isFloat(dtype: Dtype): boolean {
  return DTYPES[dtype].kind === "float";
}
