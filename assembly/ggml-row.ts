/**
 * Rows of ggml's block formats. Blocks follow each other over the whole tensor, and a row may begin and end in the
 * middle of one: ComfyUI-GGUF stores convolutions as rows of 256 that are none of the convolution's own.
 */
import {
  BLOCK_ELEMENTS,
  Q4_0_BYTES,
  Q4_1_BYTES,
  Q5_0_BYTES,
  Q5_1_BYTES,
  Q8_0_BYTES,
  q4_0ToFloats,
  q4_1ToFloats,
  q5_0ToFloats,
  q5_1ToFloats,
  q8_0ToFloats,
} from "./ggml-blocks";
import {
  Q2_K_BYTES,
  Q3_K_BYTES,
  Q4_K_BYTES,
  Q5_K_BYTES,
  Q6_K_BYTES,
  SUPER_BLOCK_ELEMENTS,
  q2kToFloats,
  q3kToFloats,
  q4kToFloats,
  q5kToFloats,
  q6kToFloats,
} from "./ggml-super-blocks";

/** `kernelCode` of src/tensor/dtype.ts; types of blocks are those from Q4_0 on. */
export const Q4_0: i32 = 6;
export const Q4_1: i32 = 7;
export const Q5_0: i32 = 8;
export const Q5_1: i32 = 9;
export const Q8_0: i32 = 10;
export const Q2_K: i32 = 11;
export const Q3_K: i32 = 12;
export const Q4_K: i32 = 13;
export const Q5_K: i32 = 14;
export const Q6_K: i32 = 15;

/** float32 of the block that a row shares with the row before or after it. */
const SHARED_BLOCK = memory.data(4 * 256, 16);

export function blockBytes(dtype: i32): i32 {
  switch (dtype) {
    case Q4_0:
      return Q4_0_BYTES;
    case Q4_1:
      return Q4_1_BYTES;
    case Q5_0:
      return Q5_0_BYTES;
    case Q5_1:
      return Q5_1_BYTES;
    case Q8_0:
      return Q8_0_BYTES;
    case Q2_K:
      return Q2_K_BYTES;
    case Q3_K:
      return Q3_K_BYTES;
    case Q4_K:
      return Q4_K_BYTES;
    case Q5_K:
      return Q5_K_BYTES;
    default:
      return Q6_K_BYTES;
  }
}

function blocksToFloats(blocks: usize, dst: usize, count: i32, dtype: i32): void {
  switch (dtype) {
    case Q4_0:
      return q4_0ToFloats(blocks, dst, count);
    case Q4_1:
      return q4_1ToFloats(blocks, dst, count);
    case Q5_0:
      return q5_0ToFloats(blocks, dst, count);
    case Q5_1:
      return q5_1ToFloats(blocks, dst, count);
    case Q8_0:
      return q8_0ToFloats(blocks, dst, count);
    case Q2_K:
      return q2kToFloats(blocks, dst, count);
    case Q3_K:
      return q3kToFloats(blocks, dst, count);
    case Q4_K:
      return q4kToFloats(blocks, dst, count);
    case Q5_K:
      return q5kToFloats(blocks, dst, count);
    default:
      return q6kToFloats(blocks, dst, count);
  }
}

/** `n` elements, from number `first` of the blocks at `blocks` on, to float32 at `dst`. */
export function convertBlockRow(blocks: usize, first: i32, dst: usize, n: i32, dtype: i32): void {
  const size = dtype < Q2_K ? BLOCK_ELEMENTS : SUPER_BLOCK_ELEMENTS;
  const bytes = blockBytes(dtype);
  let block = blocks + <usize>(first / size) * bytes;
  const skip = first & (size - 1);
  if (skip != 0) {
    const count = min<i32>(size - skip, n);
    blocksToFloats(block, SHARED_BLOCK, 1, dtype);
    memory.copy(dst, SHARED_BLOCK + (skip << 2), <usize>count << 2);
    block += bytes;
    dst += <usize>count << 2;
    n -= count;
  }
  const whole = n / size;
  blocksToFloats(block, dst, whole, dtype);
  const rest = n - whole * size;
  if (rest == 0) return;
  blocksToFloats(block + <usize>whole * bytes, SHARED_BLOCK, 1, dtype);
  memory.copy(dst + ((<usize>whole * size) << 2), SHARED_BLOCK, <usize>rest << 2);
}
