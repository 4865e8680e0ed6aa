/**
 * The public API: everything the command line does, for programs. Importing it starts nothing.
 *
 * @packageDocumentation
 */

export type { BatchJobOptions, BatchOptions, BatchProgress } from "./batch/batch.js";
export type { BatchRequest } from "./batch/jobs.js";
export type { BatchResult, BatchSummary, JobResult, JobStatus } from "./batch/result.js";
export type { CalibrateJob, CalibrateResult } from "./calibration/calibration-job.js";
export type { Config, ConfigKey, ConfigSettings, Origin, OriginSource, ResolvedConfig } from "./config/config.js";
export type { ProgressEvent, ProgressListener } from "./engine/progress.js";
export {
  ArrowQuantError,
  ERRORS,
  type ErrorCode,
  type ErrorOptionsWithNumbers,
  type SerializedError,
} from "./errors.js";
export type { GgufTypeName } from "./formats/gguf/output-type.js";
export type { QuantType } from "./formats/parquet/row.js";
export type {
  ComponentPlan,
  Decision,
  FrontPoint,
  LayerPlan,
  MixedAllocation,
  MixedLayer,
  MixedPrecision,
  MixedSearch,
  Modality,
  NotApplied,
  SensitivityKind,
} from "./plan/plan.js";
export type {
  DequantizedLayer,
  ExportDtype,
  ExportJob,
  ExportResult,
  PackedSummary,
} from "./quantize/export-job.js";
export type { OnnxExportResult } from "./quantize/export-onnx.js";
export type { GgufExportResult } from "./quantize/gguf/export.js";
export type {
  GgufExportJob,
  GgufJob,
  GgufLayerReport,
  GgufOptions,
  GgufPlan,
  GgufPlanJob,
  GgufResult,
  GgufTensorPlan,
  TensorTypeRule,
} from "./quantize/gguf/job.js";
export type { OutputFormatName } from "./quantize/output-format.js";
export type { PlanText } from "./quantize/plan-text.js";
export type {
  ExportedOutput,
  LayerReport,
  PlanJob,
  QuantizeJob,
  QuantizePlan,
  QuantizeResult,
  Summary,
} from "./quantize/result.js";
export type { SensitivityJob, SensitivityResult } from "./quantize/sensitivity/sensitivity.js";
export type {
  CandidateErrors,
  EntropyClass,
  LayerSensitivity,
  SensitivityTable,
} from "./quantize/sensitivity/table.js";
export { type QuantizedTensor, quantizeTensor, rebuildTensor, type TensorOptions } from "./quantize/tensor.js";
export { ArrowQuant, type ArrowQuantOptions, type QuantizeEvent, quantize, validate } from "./quantizer.js";
export type { Dtype } from "./tensor/dtype.js";
export type { ByteRange, SourceScale, TensorInfo } from "./tensor/info.js";
export type { BitWidth, MethodName, QuantSpec } from "./tensor/layout.js";
export type { ErrorMetrics, OutputMetrics } from "./tensor/metrics.js";
export type { TimeError } from "./tensor/time-errors.js";
export type { ValidatedLayer, ValidateJob, ValidateResult } from "./validate/result.js";
export type { RunOptions, RunResult, RunVariant } from "./validate/run-result.js";
