/** Entry of both builds (asconfig.json): what TypeScript calls. */
export { addRowSums } from "./metrics";
export { packRow, unpackRow } from "./pack";
export { compareRows, convertRows, rebuildRows } from "./rebuild";
export { tileBytes } from "./tile";
export { quantizeRowsR2q } from "./r2q";
export { quantizeRowsRtn } from "./rtn";
export { quantizeRowsHqq } from "./hqq";
export { quantizeRowsMse } from "./mse";

/** Where the arena may start. */
export function heapBase(): usize {
  return __heap_base;
}

/** 1 in the SIMD build. */
export function hasSimd(): i32 {
  return ASC_FEATURE_SIMD ? 1 : 0;
}
