/** What an ONNX export says of itself. */
import type { OnnxExportResult } from "../quantize/export-onnx.js";
import { formatBytes, formatQuantity, formatSeconds } from "./figures.js";
import type { DocumentBody } from "./json.js";
import type { Section } from "./sections.js";

/** Operators that hold quantized weights, by form. */
const FORM_NAMES: Readonly<Record<keyof OnnxExportResult["forms"], string>> = {
  "matmul-nbits": "MatMulNBits",
  "dequantize-linear": "DequantizeLinear",
  arithmetic: "arithmetic",
};

export function onnxSections(result: OnnxExportResult, input: string): Section[] {
  const { files, forms, activations, check } = result;
  const layers = (Object.keys(FORM_NAMES) as (keyof typeof FORM_NAMES)[]).filter((form) => forms[form] > 0);
  return [
    {
      kind: "facts",
      facts: [
        ["input", input],
        ["graph", result.graph],
        ["output", files.length === 1 ? result.output : `${result.output} (${formatQuantity(files.length, "file")})`],
        ["layers", layers.map((form) => `${forms[form]} as ${FORM_NAMES[form]}`).join(", ")],
        ...(activations === 0 ? [] : ([["activations", `${activations} inputs of layers`]] as [string, string][])),
        ["check", checkText(check)],
        ["size", formatBytes(result.bytesOut)],
        ["time", formatSeconds(result.seconds)],
      ],
    },
  ];
}

function checkText(check: OnnxExportResult["check"]): string {
  if (check === null) return "not run";
  const { runtime, relativeError } = check;
  if (relativeError === null) return `${runtime}: opened, not run`;
  return `${runtime}: within ${relativeError.toExponential(1)} of the graph with rebuilt weights`;
}

export function onnxBody(result: OnnxExportResult): DocumentBody {
  const { forms, check } = result;
  return {
    output: result.output,
    summary: {
      bytes_out: result.bytesOut,
      seconds: result.seconds,
      graph: result.graph,
      matmul_nbits: forms["matmul-nbits"],
      dequantize_linear: forms["dequantize-linear"],
      arithmetic: forms.arithmetic,
      activations: result.activations,
    },
    layers: [],
    warnings: result.warnings,
    files: result.files,
    not_in_graph: result.notInGraph,
    check:
      check === null ? null : { runtime: check.runtime, relative_error: check.relativeError, not_run: check.notRun },
  };
}
