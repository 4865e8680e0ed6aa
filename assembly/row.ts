/** What every method does with a row after its codes are chosen. */
import { divideByScales } from "./equalize";
import { addRowSums } from "./metrics";
import { copyFloats } from "./number";
import { addOutputErrors } from "./output-error";
import { packRow, packedBytes } from "./pack";
import { Tile } from "./tile";

/** Appends the row's scales and zero points to the stored parts. */
export function appendScales(tile: Tile): void {
  const groups = tile.groupsPerRow;
  if (tile.scaleBits != 0) {
    const codeBytes = packedBytes(groups, tile.scaleBits);
    copyFloats(tile.storedScales, tile.superScales, tile.supersPerRow);
    tile.storedScales += tile.supersPerRow << 2;
    packRow(tile.scaleCodes, tile.storedScaleCodes, groups, tile.scaleBits);
    tile.storedScaleCodes += codeBytes;
    if (tile.isR2q) {
      packRow(tile.residualScaleCodes, tile.storedResidualScaleCodes, groups, tile.scaleBits);
      tile.storedResidualScaleCodes += codeBytes;
    }
  } else {
    copyFloats(tile.storedScales, tile.scales, groups);
    tile.storedScales += groups << 2;
  }
  if (!tile.symmetric && !tile.isR2q) {
    if (tile.zeroPointBits != 0) {
      packRow(tile.zeroPointCodes, tile.storedZeroPointCodes, groups, tile.zeroPointBits);
      tile.storedZeroPointCodes += packedBytes(groups, tile.zeroPointBits);
    } else {
      copyFloats(tile.storedZeroPoints, tile.zeroPoints, groups);
      tile.storedZeroPoints += groups << 2;
    }
  }
}

/** Appends the row's codes and adds its errors, as rebuilt in `tile.rebuilt`, to the sums. */
export function finishCodes(tile: Tile): void {
  packRow(tile.codes, tile.data, tile.cols, tile.bits);
  tile.data += packedBytes(tile.cols, tile.bits);
  divideByScales(tile);
  for (let i = tile.cols; i & 3; ++i) store<f32>(tile.rebuilt + (i << 2), 0);
  addRowSums(tile.originals, tile.rebuilt, tile.cols, tile.sums);
  addOutputErrors(tile);
}

/** Everything that is left to do for a row once its codes are chosen. */
export function finishRow(tile: Tile): void {
  appendScales(tile);
  finishCodes(tile);
}
