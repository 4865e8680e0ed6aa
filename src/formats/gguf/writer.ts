/**
 * The header of a GGUF file of version 3, with the place of every tensor: sizes are known before any weight is read,
 * so the header goes out first and tensors at their places.
 * Source: docs/gguf.md of ggml.
 */
import { ArrowQuantError } from "../../errors.js";
import { type Dtype, spanOf } from "../../tensor/dtype.js";
import { countElements } from "../../tensor/layout.js";
import { quoteName } from "../json.js";
import { ggmlTypeNumber } from "./output-type.js";
import { alignUp } from "./tensors.js";

const VERSION = 3;

/** GGUF_DEFAULT_ALIGNMENT: what readers assume, so no key has to say it. */
export const ALIGNMENT = 32;

/** GGML_QNT_VERSION, the layout of the blocks. */
export const QUANTIZATION_VERSION = 2;

/** A value of the metadata, of a type by its name in gguf_metadata_value_type. */
export type GgufValue =
  | { readonly type: "string"; readonly value: string }
  | { readonly type: "uint16" | "uint32" | "int32"; readonly value: number }
  | { readonly type: "list of int32"; readonly value: readonly number[] };

export interface GgufOutputTensor {
  readonly name: string;
  readonly dtype: Dtype;
  /** Outermost first. */
  readonly shape: readonly number[];
}

export interface GgufLayout {
  readonly header: Uint8Array;
  /** Where each tensor's bytes begin in the file, in the order given. */
  readonly byteOffsets: readonly number[];
  /** Of the whole file: ggml reads the padding behind the last tensor too. */
  readonly byteLength: number;
}

const NUMBERS = {
  uint16: { type: 2, byteLength: 2 },
  uint32: { type: 4, byteLength: 4 },
  int32: { type: 5, byteLength: 4 },
} as const;
const STRING = 8;
const LIST = 9;

/** Bytes of a tensor, without padding. */
export function ggufTensorBytes({ dtype, shape }: Pick<GgufOutputTensor, "dtype" | "shape">): number {
  return spanOf(dtype, 0, countElements(shape)).byteLength;
}

/** @throws E_DTYPE for a type that ggml has none for, E_SHAPE for rows that are no whole blocks */
export function layOutGguf(metadata: ReadonlyMap<string, GgufValue>, tensors: readonly GgufOutputTensor[]): GgufLayout {
  const parts: Buffer[] = [Buffer.from("GGUF", "latin1"), u32(VERSION), u64(tensors.length), u64(metadata.size)];
  for (const [key, value] of metadata) parts.push(text(key), ...valueParts(value));
  let end = 0;
  const begins = tensors.map((tensor) => {
    const begin = end;
    end += alignUp(ggufTensorBytes(tensor), ALIGNMENT);
    // Innermost first; sizes of 1 stay, so that the shape can be read back.
    const sizes = tensor.shape.toReversed().map(u64);
    parts.push(text(tensor.name), u32(sizes.length), ...sizes, u32(typeNumber(tensor)), u64(begin));
    return begin;
  });
  const unpadded = Buffer.concat(parts);
  const header = new Uint8Array(alignUp(unpadded.byteLength, ALIGNMENT));
  header.set(unpadded);
  return {
    header,
    byteOffsets: begins.map((begin) => header.byteLength + begin),
    byteLength: header.byteLength + end,
  };
}

function typeNumber({ name, dtype }: GgufOutputTensor): number {
  const number = ggmlTypeNumber(dtype);
  if (number !== null) return number;
  throw new ArrowQuantError("E_DTYPE", `${quoteName(name)} is ${dtype}, which GGUF has no type for`, {
    details: { tensor: name, dtype },
  });
}

function valueParts(value: GgufValue): Buffer[] {
  if (value.type === "string") return [u32(STRING), text(value.value)];
  if (value.type === "list of int32") {
    const { type } = NUMBERS.int32;
    return [u32(LIST), u32(type), u64(value.value.length), ...value.value.map((item) => number(item, "int32"))];
  }
  return [u32(NUMBERS[value.type].type), number(value.value, value.type)];
}

function number(value: number, type: keyof typeof NUMBERS): Buffer {
  const bytes = Buffer.alloc(NUMBERS[type].byteLength);
  if (type === "int32") bytes.writeInt32LE(value);
  else bytes.writeUIntLE(value, 0, bytes.byteLength);
  return bytes;
}

function u32(value: number): Buffer {
  return number(value, "uint32");
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value, "utf8");
  return Buffer.concat([u64(bytes.byteLength), bytes]);
}
