/** What a quantization was written as, where that is not the native form. Pure. */
import type { ExportedOutput } from "../quantize/result.js";
import { exportBody, exportSections } from "./export.js";
import { onnxBody, onnxSections } from "./export-onnx.js";
import type { DocumentBody, JsonObject } from "./json.js";
import type { Section } from "./sections.js";

/** @param extent `worst`: for a terminal; `all`: for a file */
export function exportedSections(exported: ExportedOutput | null, input: string, extent: "worst" | "all"): Section[] {
  if (exported === null) return [];
  const sections =
    exported.format === "onnx"
      ? onnxSections(exported.result, input)
      : exportSections(exported.result, { input, dtype: exported.dtype, showAll: extent === "all" });
  return sections.map((section, index) =>
    index === 0 ? { ...section, title: `Written as ${exported.format}` } : section,
  );
}

export function exportedJson(exported: ExportedOutput | null): JsonObject | null {
  if (exported === null) return null;
  const body: DocumentBody =
    exported.format === "onnx" ? onnxBody(exported.result) : exportBody(exported.result, exported.dtype);
  const { output: _output, layers: _layers, warnings: _warnings, ...rest } = body;
  return { format: exported.format, ...rest };
}
