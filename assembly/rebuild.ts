/**
 * Stored parts back to weights, in the operations of FORMAT.md ("Rebuilding"), and their comparison with a
 * source.
 */
import { checkRow, loadSourceRow } from "./convert";
import { rebuildFromCodes } from "./encode";
import { divideByScales } from "./equalize";
import { addImportanceSums } from "./importance-error";
import { addRowSums } from "./metrics";
import { narrowRow } from "./narrow";
import { copyFloats } from "./number";
import { packedBytes, unpackRow } from "./pack";
import { rebuildFromCodesR2q } from "./r2q";
import { endOfSuper, fillSymmetricZeroPoints, zeroPointStep } from "./storage";
import { Tile } from "./tile";

/** scales[S]·code of every group of the row, from codes of `scaleBits` bits at `packed`. */
function decodeScales(tile: Tile, packed: usize, codes: usize, scales: usize): void {
  unpackRow(packed, codes, tile.groupsPerRow, tile.scaleBits);
  for (let i = 0; i < tile.supersPerRow; ++i) {
    const superScale = load<f32>(tile.storedScales + (i << 2));
    for (let g = i * tile.groupsPerSuper; g < endOfSuper(tile, i); ++g) {
      store<f32>(scales + (g << 2), superScale * <f32>load<u8>(codes + g));
    }
  }
}

/** Reads the next stored row into `tile.codes`, `scales`, `residualScales` and `zeroPoints`. */
export function decodeRow(tile: Tile): void {
  const groups = tile.groupsPerRow;
  unpackRow(tile.data, tile.codes, tile.cols, tile.storageBits);
  tile.data += packedBytes(tile.cols, tile.storageBits);
  if (tile.scaleBits != 0) {
    const codeBytes = packedBytes(groups, tile.scaleBits);
    decodeScales(tile, tile.storedScaleCodes, tile.scaleCodes, tile.scales);
    tile.storedScaleCodes += codeBytes;
    if (tile.isR2q) {
      decodeScales(tile, tile.storedResidualScaleCodes, tile.residualScaleCodes, tile.residualScales);
      tile.storedResidualScaleCodes += codeBytes;
    }
    tile.storedScales += tile.supersPerRow << 2;
  } else {
    copyFloats(tile.scales, tile.storedScales, groups);
    tile.storedScales += groups << 2;
  }
  if (tile.isR2q) return;
  if (tile.symmetric) {
    fillSymmetricZeroPoints(tile);
  } else if (tile.zeroPointBits != 0) {
    unpackRow(tile.storedZeroPointCodes, tile.zeroPointCodes, groups, tile.zeroPointBits);
    tile.storedZeroPointCodes += packedBytes(groups, tile.zeroPointBits);
    const step = zeroPointStep(tile);
    for (let g = 0; g < groups; ++g) {
      store<f32>(tile.zeroPoints + (g << 2), <f32>load<u8>(tile.zeroPointCodes + g) * step);
    }
  } else {
    copyFloats(tile.zeroPoints, tile.storedZeroPoints, groups);
    tile.storedZeroPoints += groups << 2;
  }
}

/** The next stored row to `tile.rebuilt`, padded with zeros to a multiple of four. */
function rebuildRow(tile: Tile): void {
  decodeRow(tile);
  if (tile.isR2q) rebuildFromCodesR2q(tile);
  else rebuildFromCodes(tile);
  divideByScales(tile);
  for (let i = tile.cols; i & 3; ++i) store<f32>(tile.rebuilt + (i << 2), 0);
}

/** The next `rowCount` stored rows to `tile.out`, in `tile.outDtype`. */
export function rebuildRows(tile: Tile, rowCount: i32): void {
  let out = tile.out;
  for (let row = 0; row < rowCount; ++row) {
    rebuildRow(tile);
    narrowRow(tile.rebuilt, out, tile.cols, tile.outDtype);
    out += tile.cols << (tile.outDtype == 1 ? 2 : 1);
  }
}

/**
 * Adds the errors of the next `rowCount` stored rows against the slab's, where there is importance weighted by it
 * as well; −1, or the row that cannot be compared.
 */
export function compareRows(tile: Tile, rowCount: i32): i32 {
  for (let row = 0; row < rowCount; ++row) {
    loadSourceRow(tile, row, tile.weights);
    if (!checkRow(tile)) return row;
    rebuildRow(tile);
    addRowSums(tile.weights, tile.rebuilt, tile.cols, tile.sums);
    if (tile.importance != 0) {
      addImportanceSums(tile.weights, tile.rebuilt, tile.importance, tile.cols, tile.outputSums);
    }
  }
  return -1;
}

/**
 * The slab's rows, source scale applied, to `tile.out` in `tile.outDtype`; NaN and Inf stay what they are.
 */
export function convertRows(tile: Tile, rowCount: i32): void {
  let out = tile.out;
  for (let row = 0; row < rowCount; ++row) {
    loadSourceRow(tile, row, tile.weights);
    narrowRow(tile.weights, out, tile.cols, tile.outDtype);
    out += tile.cols << (tile.outDtype == 1 ? 2 : 1);
  }
}
