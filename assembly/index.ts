/** Entry of both builds (asconfig.json): what TypeScript calls. */
export {
  addChannelStats,
  addRowStats,
  addToHistogram,
  largestMagnitudeBits,
  widenHistogram,
} from "./activation-stats";
export { decodeBlocks } from "./blocks";
export { raiseColumnMaxima } from "./column-maxima";
export { completeHessian, factorHessian, packFactorPanel, padHessian, permuteHessian } from "./factor";
export { convertRow as convertFloats } from "./convert";
export { quantizeRowsGgml } from "./ggml-quant";
export { quantizeRowsGptq } from "./gptq";
export { addGram, readGramRow } from "./gram";
export { copyImageRows } from "./image-rows";
export { addRowSums } from "./metrics";
export { copyFloats } from "./number";
export { flushOutputErrors, packHeldBack, quantizeInput } from "./output-error";
export { packRow, unpackRow } from "./pack";
export { compareRows, convertRows, rebuildRows } from "./rebuild";
export { tileBytes } from "./tile";
export { countWeights, widenWeightRange } from "./weight-histogram";
export { transposeBlock, transposeElements } from "./transpose";
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
