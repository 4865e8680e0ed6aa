/** The public API: everything the command line does, for programs. Importing it starts nothing. */
export { ArrowQuant, type ArrowQuantOptions, quantize, validate } from "./quantizer.js";
export { ArrowQuantError, ERRORS, type ErrorCode } from "./errors.js";
export type { ProgressEvent, ProgressListener } from "./engine/progress.js";
export type { ExportJob, ExportResult } from "./quantize/export.js";
export type { LayerReport, QuantizeJob, QuantizePlan, QuantizeResult, Summary } from "./quantize/result.js";
export { quantizeTensor, rebuildTensor } from "./quantize/tensor.js";
export type { ErrorMetrics } from "./tensor/metrics.js";
export type { ValidatedLayer, ValidateJob, ValidateResult } from "./validate/result.js";
