/**
 * The parameter block of the kernels, seen from TypeScript: the fields of assembly/tile.ts in the same order,
 * four bytes each. What they mean stands there.
 */
import type { Arena } from "./arena.js";

export const TILE_FIELDS = [
  "cols",
  "bits",
  "storageBits",
  "groupSize",
  "groupsPerRow",
  "groupsPerSuper",
  "supersPerRow",
  "symmetric",
  "isR2q",
  "scaleBits",
  "zeroPointBits",
  "weighting",
  "preserveGain",
  "sourceDtype",
  "source",
  "sourceSkip",
  "sourceScaleMode",
  "sourceScales",
  "importance",
  "equalizationScales",
  "colsPerChannel",
  "factor",
  "order",
  "deadColumns",
  "heldBackPanels",
  "heldBackPanelCount",
  "quantizedPanels",
  "sourcePanel",
  "rebuiltPanel",
  "panelRows",
  "outputSums",
  "weights",
  "originals",
  "rebuilt",
  "codes",
  "scales",
  "zeroPoints",
  "residualScales",
  "superScales",
  "scaleCodes",
  "zeroPointCodes",
  "residualScaleCodes",
  "scratch",
  "data",
  "storedScales",
  "storedZeroPoints",
  "storedScaleCodes",
  "storedZeroPointCodes",
  "storedResidualScaleCodes",
  "outDtype",
  "out",
  "sums",
  "badColumn",
  "badValue",
] as const;

export type TileField = (typeof TILE_FIELDS)[number];

export const TILE_BYTES = 4 * TILE_FIELDS.length;

const FIELD_INDEX = Object.fromEntries(TILE_FIELDS.map((name, index) => [name, index])) as Record<TileField, number>;

/** Fills the tile at `tilePtr`; fields that are not given become 0. */
export function fillTile(arena: Arena, tilePtr: number, fields: Partial<Record<TileField, number>>): void {
  const words = arena.words(tilePtr, TILE_FIELDS.length);
  for (const [index, name] of TILE_FIELDS.entries()) words[index] = fields[name] ?? 0;
}

/** Changes one field of the tile at `tilePtr`. */
export function setTileField(arena: Arena, tilePtr: number, field: TileField, value: number): void {
  arena.words(tilePtr, TILE_FIELDS.length)[FIELD_INDEX[field]] = value;
}

/** Where a kernel stopped: the column of a weight that cannot be quantized, and the weight. */
export function readBadWeight(arena: Arena, tilePtr: number): { col: number; value: number } {
  return {
    col: arena.words(tilePtr, TILE_FIELDS.length)[FIELD_INDEX.badColumn] as number,
    value: arena.floats(tilePtr, TILE_FIELDS.length)[FIELD_INDEX.badValue] as number,
  };
}
