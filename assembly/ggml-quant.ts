/** Rows of weights to ggml's block formats: codes of least importance-weighted squared error. */
import { loadRow } from "./convert";
import { BLOCK_ELEMENTS } from "./ggml-blocks";
import { findEnds, highEnd, lowEnd } from "./ggml-candidates";
import { loadF16 } from "./ggml-codes";
import { quantizeQ4_0, quantizeQ4_1, quantizeQ5_0, quantizeQ5_1, quantizeQ8_0 } from "./ggml-quant-blocks";
import { quantizeQ2K, quantizeQ3K, quantizeQ4K, quantizeQ5K, quantizeQ6K } from "./ggml-quant-super";
import { Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0, blockBytes, convertBlockRow } from "./ggml-row";
import { LARGEST_F16, roundF16, storeF16 } from "./ggml-scale";
import { SUPER_BLOCK_ELEMENTS } from "./ggml-super-blocks";
import { addRowSums } from "./metrics";
import { Tile } from "./tile";

/** Weights of at most 2^−25 are nearer to 0 than to the least step that a float16 can be. */
const NEGLIGIBLE: f32 = 2.98023223876953125e-8;
/**
 * Importances of a block are kept above this share of its largest, so that columns nothing depends on get sensible
 * codes too.
 */
const LEAST_IMPORTANCE: f32 = 9.5367431640625e-7;

function quantizeBlock(weights: usize, importances: usize, block: usize, type: i32): void {
  switch (type) {
    case Q4_0:
      return quantizeQ4_0(weights, importances, block);
    case Q4_1:
      return quantizeQ4_1(weights, importances, block);
    case Q5_0:
      return quantizeQ5_0(weights, importances, block);
    case Q5_1:
      return quantizeQ5_1(weights, importances, block);
    case Q8_0:
      return quantizeQ8_0(weights, importances, block);
    case Q2_K:
      return quantizeQ2K(weights, importances, block);
    case Q3_K:
      return quantizeQ3K(weights, importances, block);
    case Q4_K:
      return quantizeQ4K(weights, importances, block);
    case Q5_K:
      return quantizeQ5K(weights, importances, block);
    default:
      return quantizeQ6K(weights, importances, block);
  }
}

/** The columns' importances to `to`, block by block relative to the largest; ones where there are none. */
function loadImportances(tile: Tile, to: usize, size: i32): void {
  for (let first = 0; first < tile.cols; first += size) {
    let top: f32 = 0;
    if (tile.importance != 0) {
      for (let i = first; i < first + size; ++i) top = max<f32>(top, load<f32>(tile.importance + (<usize>i << 2)));
    }
    for (let i = first; i < first + size; ++i) {
      const share: f32 = top > 0 ? load<f32>(tile.importance + (<usize>i << 2)) / top : 1;
      store<f32>(to + (<usize>i << 2), max<f32>(share, LEAST_IMPORTANCE));
    }
  }
}

/**
 * Least squares shrink every weight, all in the same direction, and a network adds that up; so the scales of a row are
 * raised by this share of what is missing of ⟨w, w⟩/⟨w, ŵ⟩. All of it costs squared error, at 2 bits a sixteenth: without
 * importances three quarters leave the error below that of ggml's search at every type. Prediction error on
 * dit-mnist: Q2_K 0.127 without, 0.074 with three quarters, Q3_K 0.041 and 0.029, Q4_K 0.0152 and 0.0124.
 */
const GAIN_SHARE: f64 = 0.75;
/** Gains nearer to one are lost as float16 scales are rounded. */
const LEAST_GAIN: f32 = 0.00048828125;
/** Where more is missing, the row is hardly kept at all, and errors would grow faster than what is won. */
const LARGEST_GAIN: f64 = 1.125;

/** Byte of a block's float16 scale. */
function scaleByte(type: i32): usize {
  switch (type) {
    case Q2_K:
      return 80;
    case Q3_K:
      return 108;
    case Q6_K:
      return 208;
    default:
      return 0;
  }
}

/** Whether a float16 offset (or scale of offsets) follows the scale. */
function hasOffset(type: i32): bool {
  return type == Q4_1 || type == Q5_1 || type == Q2_K || type == Q4_K || type == Q5_K;
}

/** Raises the scales of the row in `blocks`, of which `tile.rebuilt` is what it decodes to, and decodes it again. */
function restoreGain(tile: Tile, blocks: usize, bytes: usize, type: i32): void {
  let power: f64 = 0;
  let product: f64 = 0;
  for (let i = 0; i < tile.cols; ++i) {
    const at = <usize>i << 2;
    const w: f64 = load<f32>(tile.weights + at);
    const vw = <f64>load<f32>(tile.scratch + at) * w;
    power += vw * w;
    product += vw * <f64>load<f32>(tile.rebuilt + at);
  }
  if (!(product > 0)) return;
  const missing = power / product - 1;
  const gain = <f32>min<f64>(1 + (tile.importance == 0 ? GAIN_SHARE * missing : missing), LARGEST_GAIN);
  if (gain < 1 + LEAST_GAIN) return;
  for (let block = blocks + scaleByte(type); block < tile.data; block += bytes) {
    storeF16(block, roundF16(loadF16(block) * gain));
    if (hasOffset(type)) storeF16(block + 2, roundF16(loadF16(block + 2) * gain));
  }
  convertBlockRow(blocks, 0, tile.rebuilt, tile.cols, type);
}

/** Whether float16 scales can hold the row; where not, its first weight beyond them is reported. */
function isWithinF16(tile: Tile): bool {
  findEnds(tile.weights, tile.cols);
  if (highEnd <= LARGEST_F16 && lowEnd >= -LARGEST_F16) return true;
  let col = 0;
  while (abs(load<f32>(tile.weights + (<usize>col << 2))) <= LARGEST_F16) ++col;
  tile.badColumn = col;
  tile.badValue = load<f32>(tile.weights + (<usize>col << 2));
  return false;
}

/**
 * Appends `rowCount` rows of the slab to `tile.data` as blocks of `type` (`kernelCode` of src/tensor/dtype.ts), whose
 * elements `cols` divides by. −1, or the row (of the slab) whose weight `badColumn` is not finite or beyond what
 * float16 scales can hold. `tile.scratch` takes `cols` floats.
 */
export function quantizeRowsGgml(tile: Tile, rowCount: i32, type: i32): i32 {
  const size = type < Q2_K ? BLOCK_ELEMENTS : SUPER_BLOCK_ELEMENTS;
  const bytes = <usize>blockBytes(type);
  const cols = tile.cols;
  loadImportances(tile, tile.scratch, size);
  for (let row = 0; row < rowCount; ++row) {
    if (!loadRow(tile, row) || !isWithinF16(tile)) return row;
    const blocks = tile.data;
    for (let first = 0; first < cols; first += size) {
      const weights = tile.weights + (<usize>first << 2);
      findEnds(weights, size);
      if (highEnd <= NEGLIGIBLE && lowEnd >= -NEGLIGIBLE) memory.fill(tile.data, 0, bytes);
      else quantizeBlock(weights, tile.scratch + (<usize>first << 2), tile.data, type);
      tile.data += bytes;
    }
    convertBlockRow(blocks, 0, tile.rebuilt, cols, type);
    restoreGain(tile, blocks, bytes, type);
    addRowSums(tile.weights, tile.rebuilt, cols, tile.sums);
  }
  return -1;
}
