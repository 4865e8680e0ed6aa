/** Rows chosen out of more than are wanted: deterministic, evenly over samples and over the positions in them. Pure. */

/** The golden ratio's fraction: its multiples modulo 1 stay evenly spread however many there are. */
const GOLDEN_FRACTION = 0.6180339887498949;

/** How many of `limit` rows sample `rank` of `sampleCount` gives; the quotas add up to `limit`. */
export function rowQuota(rank: number, sampleCount: number, limit: number): number {
  return Math.floor(((rank + 1) * limit) / sampleCount) - Math.floor((rank * limit) / sampleCount);
}

/**
 * Positions of sample `rank`, ascending and distinct: all where the quota allows, else evenly spaced from a start that
 * moves from sample to sample, so that no position is preferred.
 */
export function chooseRows(positionCount: number, quota: number, rank: number): Int32Array {
  const rowCount = Math.min(positionCount, quota);
  const start = rowCount === positionCount ? 0 : ((rank + 0.5) * GOLDEN_FRACTION) % 1;
  return Int32Array.from({ length: rowCount }, (_, row) => Math.floor(((row + start) * positionCount) / rowCount));
}
