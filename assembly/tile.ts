/**
 * The parameter block of every kernel: filled in from TypeScript (src/kernels/tile.ts holds the same fields
 * in the same order), read here. Every field takes four bytes, so a field's offset is four times its index.
 */

@unmanaged
export class Tile {
  // ---- What is quantized or rebuilt -----------------------------------------------------------------------
  /** Elements per row of the 2-D view. */
  cols: i32;
  /** Bit width of the values: codes lie in 0 … 2^bits − 1. */
  bits: i32;
  /** Bits a code takes in `outCodes`; equal to `bits` in everything written here. */
  storageBits: i32;
  /** Elements per group; the last group of a row may be shorter. */
  groupSize: i32;
  /** ceil(cols / groupSize). */
  groupsPerRow: i32;
  /**
   * Groups per super-group; the last super-group of a row may have fewer. groupsPerRow without scale codes.
   */
  groupsPerSuper: i32;
  /** ceil(groupsPerRow / groupsPerSuper). */
  supersPerRow: i32;
  /** 1: symmetric, zero point 2^(bits − 1) and not stored. */
  symmetric: i32;
  /** 1: two scales per group, no zero point (method r2q). */
  isR2q: i32;
  /** Bits of a scale code; 0: scales are float32. */
  scaleBits: i32;
  /** Bits of a zero-point code; 0: zero points are float32. */
  zeroPointBits: i32;
  /** mse: 1 weights squared errors by magnitude. */
  weighting: i32;
  /** mse: 1 restores each row's gain. */
  preserveGain: i32;

  // ---- Source ---------------------------------------------------------------------------------------------
  /** `kernelCode` of src/tensor/dtype.ts. */
  sourceDtype: i32;
  /** Raw rows of the slab, as they stand in the file. */
  source: usize;
  /** Types of blocks: elements of the slab's first block that stand before its first row. */
  sourceSkip: i32;
  /** 0: no source scale; 1: one for all rows; 2: one per row of the slab. */
  sourceScaleMode: i32;
  /** float32. */
  sourceScales: usize;
  /** float32 importance per input column, ≥ 0, of mean about one; 0: all ones. */
  importance: usize;
  /** float32[channels], what each input channel's weights are, or were, multiplied by; 0: none. */
  equalizationScales: usize;
  /** Consecutive columns of one input channel. */
  colsPerChannel: i32;

  // ---- Calibration ----------------------------------------------------------------------------------------
  /** gptq: the layer's factor in panels (factor.ts). */
  factor: usize;
  /** gptq: i32[cols], the natural column visited i-th. */
  order: usize;
  /** gptq: u8[cols], 1 where a column's input is always zero. */
  deadColumns: usize;
  /** Held-back inputs of the layer in panels of eight rows (output-error.ts), and their number; 0: none. */
  heldBackPanels: usize;
  heldBackPanelCount: i32;
  /** The same as quantized activations have them; `heldBackPanels` where activations stay as they are. */
  quantizedPanels: usize;
  /** float32[cols][8] each: up to eight rows and what is rebuilt of them, waiting for the held-back inputs. */
  sourcePanel: usize;
  rebuiltPanel: usize;
  /** Rows in the panels. */
  panelRows: i32;
  /**
   * float64[3]: Σ y², Σ ŷ², Σ (y − ŷ)² of the layer's output over held-back inputs, or where rebuilt weights are
   * compared, over inputs whose columns are independent and have the importance as second moments.
   */
  outputSums: usize;

  // ---- Scratch of one row ---------------------------------------------------------------------------------
  /** float32[cols], what is quantized, padded with zeros to a multiple of four. */
  weights: usize;
  /** float32[cols], the row before it was equalized; `weights` where there is nothing to equalize. */
  originals: usize;
  /** float32[cols], what a reader rebuilds; padded with zeros to a multiple of four. */
  rebuilt: usize;
  /** u8[cols], one code each. */
  codes: usize;
  /** float32[groupsPerRow]: proposed by the method, then replaced by what a reader decodes. */
  scales: usize;
  /** float32[groupsPerRow]: as `scales`, zero points. */
  zeroPoints: usize;
  /** float32[groupsPerRow]: as `scales`, second scales of r2q. */
  residualScales: usize;
  /** float32[supersPerRow]. */
  superScales: usize;
  /** u8[groupsPerRow] each, unpacked. */
  scaleCodes: usize;
  zeroPointCodes: usize;
  residualScaleCodes: usize;
  /** Whatever the method asked for (`scratchBytes` in src/quantize/methods), 16-byte aligned. */
  scratch: usize;

  // ---- Stored parts: written by quantize*, read by rebuild*; each moves on by what a row takes ------------
  data: usize;
  storedScales: usize;
  storedZeroPoints: usize;
  storedScaleCodes: usize;
  storedZeroPointCodes: usize;
  storedResidualScaleCodes: usize;

  // ---- Rebuilding -----------------------------------------------------------------------------------------
  /** `kernelCode` of the type rows are written in; 1, 2 or 3. */
  outDtype: i32;
  out: usize;

  // ---- Results --------------------------------------------------------------------------------------------
  /** float64[5]: Σ w·ŵ, Σ w², Σ ŵ², Σ (w − ŵ)², max |w − ŵ|; rows are added in order. */
  sums: usize;
  /** Column of the first weight that is not finite or too large, where a call stopped at a row. */
  badColumn: i32;
  /** That weight. */
  badValue: f32;
}

/** For the check that both sides hold the same fields. */
export function tileBytes(): i32 {
  return offsetof<Tile>();
}
