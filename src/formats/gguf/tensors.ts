/** The tensors that a GGUF header lists: what it says of each, and where its bytes lie. */
import { ArrowQuantError, type ErrorCode } from "../../errors.js";
import { BLOCKS, type Dtype, isBlockQuantized, spanOf } from "../../tensor/dtype.js";
import { quoteName } from "../json.js";
import type { HeaderCursor } from "./cursor.js";
import { GGML_TYPES } from "./ggml-type.js";

/** Most tensors, as of safetensors. */
export const MAX_TENSORS = 1_048_576;

/** Most dimensions. ggml has four; ComfyUI-GGUF stores the patch embeddings of video models in five. */
export const MAX_DIMENSIONS = 5;

/** Longest name. ggml takes 63 bytes, ComfyUI's build of it 127, gguf-py any. */
const MAX_NAME_BYTES = 1024;

/** A tensor as the header describes it. */
export interface GgufTensor {
  readonly name: string;
  readonly dtype: Dtype;
  /** Outermost first: the header's order reversed. */
  readonly shape: readonly number[];
  /** From the first byte of the data. */
  readonly begin: number;
  readonly byteLength: number;
}

/** Reads `tensorCount` entries. @throws E_LIMIT, E_DUPLICATE, E_SHAPE, E_DTYPE, E_PREQUANTIZED, E_HEADER and others */
export async function readTensors(cursor: HeaderCursor, tensorCount: number): Promise<GgufTensor[]> {
  if (tensorCount > MAX_TENSORS) {
    cursor.fail("E_LIMIT", `${tensorCount} tensors, the limit is ${MAX_TENSORS}`, {
      details: { tensorCount, limit: MAX_TENSORS },
    });
  }
  const names = new Set<string>();
  const tensors: GgufTensor[] = [];
  for (let index = 0; index < tensorCount; index += 1) {
    const tensor = await readTensor(cursor, index);
    if (names.has(tensor.name)) cursor.fail("E_DUPLICATE", `${quoteName(tensor.name)} stands twice`);
    names.add(tensor.name);
    tensors.push(tensor);
  }
  return tensors;
}

async function readTensor(cursor: HeaderCursor, index: number): Promise<GgufTensor> {
  const name = await cursor.text(`name of tensor ${index}`);
  const what = quoteName(name);
  const nameBytes = Buffer.byteLength(name);
  if (nameBytes > MAX_NAME_BYTES) {
    cursor.fail("E_LIMIT", `${what} has a name of ${nameBytes} bytes, the limit is ${MAX_NAME_BYTES}`);
  }
  if (name.includes("\0")) cursor.fail("E_HEADER", `${what} has a NUL in its name, where ggml ends names`);
  const dimensionCount = await cursor.u32(`number of dimensions of ${what}`);
  if (dimensionCount > MAX_DIMENSIONS) {
    cursor.fail("E_LIMIT", `${what} has ${dimensionCount} dimensions, the limit is ${MAX_DIMENSIONS}`, {
      details: { tensor: name, dimensionCount, limit: MAX_DIMENSIONS },
    });
  }
  const sizes: number[] = [];
  for (let axis = 0; axis < dimensionCount; axis += 1) sizes.push(await cursor.count(`dimension ${axis} of ${what}`));
  const typeNumber = await cursor.u32(`type of ${what}`);
  const begin = await cursor.count(`offset of ${what}`);
  const dtype = dtypeOf(cursor, name, typeNumber);
  return { name, dtype, shape: sizes.toReversed(), begin, byteLength: byteLengthOf(cursor, name, sizes, dtype) };
}

function dtypeOf(cursor: HeaderCursor, name: string, typeNumber: number): Dtype {
  const type = GGML_TYPES.get(typeNumber);
  if (type === undefined) {
    return cursor.fail("E_DTYPE", `${quoteName(name)} has type ${typeNumber}, which is not known`, {
      details: { tensor: name, type: typeNumber },
    });
  }
  if ("dtype" in type) return type.dtype;
  return cursor.fail("E_PREQUANTIZED", `${quoteName(name)} is ${type.name}, which is not read: ${type.refused}`, {
    hint: "give the model in F32, F16, BF16, Q8_0, Q4_0 to Q5_1 or Q2_K to Q6_K",
    details: { tensor: name, type: type.name },
  });
}

/** @param sizes innermost first */
function byteLengthOf(cursor: HeaderCursor, name: string, sizes: readonly number[], dtype: Dtype): number {
  const what = `${quoteName(name)}: [${sizes.toReversed()}] of ${dtype}`;
  const elementCount = sizes.reduce((product, size) => product * BigInt(size), 1n);
  if (elementCount > BigInt(Number.MAX_SAFE_INTEGER)) {
    cursor.fail("E_SHAPE", `${what} is ${elementCount} elements, beyond 2^53 - 1`, { details: { tensor: name } });
  }
  const rowLength = sizes[0] ?? 1;
  if (isBlockQuantized(dtype) && rowLength % BLOCKS[dtype].elements !== 0) {
    const { elements } = BLOCKS[dtype];
    cursor.fail("E_SHAPE", `${what} has rows of ${rowLength} elements, which are no whole blocks of ${elements}`, {
      details: { tensor: name, rowLength, blockElements: elements },
    });
  }
  return spanOf(dtype, 0, Number(elementCount)).byteLength;
}

/** What a file has for its tensors. */
export interface TensorData {
  readonly alignment: number;
  /** Where the data begins in the file. */
  readonly byteOffset: number;
  readonly fileByteLength: number;
}

/**
 * Puts the tensors in order of their bytes, and holds them to what ggml's reader asks: each begins at a multiple of
 * the alignment, the first of them after the one before. Returns them with the bytes that follow the last.
 */
export function placeTensors(
  tensors: readonly GgufTensor[],
  data: TensorData,
  source: string,
): { readonly placed: GgufTensor[]; readonly trailingBytes: number } {
  const placed = [...tensors].sort((a, b) => a.begin - b.begin || a.byteLength - b.byteLength);
  const available = Math.max(0, data.fileByteLength - data.byteOffset);
  let expected = 0;
  let end = 0;
  let previous = "";
  for (const tensor of placed) {
    const { begin, byteLength } = tensor;
    const name = quoteName(tensor.name);
    if (begin % data.alignment !== 0) {
      fail("E_BOUNDS", tensor, `${name} begins at byte ${begin} of the data, no multiple of ${data.alignment}`);
    }
    if (begin < expected) {
      fail("E_OVERLAP", tensor, `${name} begins at byte ${begin}, ${previous} before it takes all up to ${expected}`);
    }
    end = begin + byteLength;
    if (byteLength > 0 && end > available) {
      fail("E_TRUNCATED", tensor, `${name} ends at byte ${end} of the data, the file has ${available}`);
    }
    if (begin > expected) {
      fail("E_HOLE", tensor, `${name} begins at byte ${begin}, the tensors before it end at ${expected}`);
    }
    expected = alignUp(end, data.alignment);
    previous = name;
  }
  return { placed, trailingBytes: Math.max(0, available - expected) };

  function fail(code: ErrorCode, tensor: GgufTensor, problem: string): never {
    throw new ArrowQuantError(code, `${source}: ${problem}`, {
      ...(code === "E_TRUNCATED" ? { hint: "the file is cut off: download it again" } : {}),
      details: { tensor: tensor.name, begin: tensor.begin, byteLength: tensor.byteLength, ...data },
    });
  }
}

/** The least multiple of `alignment` from `byteOffset` on. */
export function alignUp(byteOffset: number, alignment: number): number {
  return Math.ceil(byteOffset / alignment) * alignment;
}
