/** float32 to ggml's blocks of 32 with float16 scales of their own. Layouts: ggml-blocks.ts. */
import { BLOCK_ELEMENTS } from "./ggml-blocks";
import { encodeGroup } from "./ggml-candidates";
import { packFifths32, packNibbles32 } from "./ggml-pack";
import { storeF16 } from "./ggml-scale";
import { bestOffset, bestScale, searchScale, searchScaleAndOffset, setGroup } from "./ggml-search";

/** Codes of the block at hand. */
const CODES = memory.data(BLOCK_ELEMENTS, 16);

/** Codes −half … half − 1; scales are first tried in steps of half a code at the end of the range. */
function codeSymmetric(weights: usize, importances: usize, half: f32): void {
  setGroup(weights, importances, BLOCK_ELEMENTS, -half, half - 1, true);
  searchScale(0.5 / half);
  encodeGroup(weights, CODES, BLOCK_ELEMENTS, bestScale, 0, -half, half - 1);
}

function codeShifted(weights: usize, importances: usize, largest: f32): void {
  setGroup(weights, importances, BLOCK_ELEMENTS, 0, largest, true);
  searchScaleAndOffset(false);
  encodeGroup(weights, CODES, BLOCK_ELEMENTS, bestScale, bestOffset, 0, largest);
}

export function quantizeQ4_0(weights: usize, importances: usize, block: usize): void {
  codeSymmetric(weights, importances, 8);
  storeF16(block, bestScale);
  packNibbles32(CODES, block + 2);
}

export function quantizeQ4_1(weights: usize, importances: usize, block: usize): void {
  codeShifted(weights, importances, 15);
  storeF16(block, bestScale);
  storeF16(block + 2, bestOffset);
  packNibbles32(CODES, block + 4);
}

export function quantizeQ5_0(weights: usize, importances: usize, block: usize): void {
  codeSymmetric(weights, importances, 16);
  storeF16(block, bestScale);
  packFifths32(CODES, block + 2);
  packNibbles32(CODES, block + 6);
}

export function quantizeQ5_1(weights: usize, importances: usize, block: usize): void {
  codeShifted(weights, importances, 31);
  storeF16(block, bestScale);
  storeF16(block + 2, bestOffset);
  packFifths32(CODES, block + 4);
  packNibbles32(CODES, block + 8);
}

export function quantizeQ8_0(weights: usize, importances: usize, block: usize): void {
  codeSymmetric(weights, importances, 128);
  storeF16(block, bestScale);
  // Signed bytes: the codes less 128.
  for (let j: usize = 0; j < 32; j += 8) {
    store<u64>(block + j, load<u64>(CODES + j) ^ 0x8080808080808080, 2);
  }
}
