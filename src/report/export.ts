/** The result of an export: as sections for people, as plain objects for `--json`. Pure. */
import type { ExportDtype, ExportResult, PackedSummary } from "../quantize/export-job.js";
import { formatBytes, formatQuantity, formatSeconds, formatSignificant } from "./figures.js";
import type { DocumentBody } from "./json.js";
import { listSection, type Section } from "./sections.js";

/** Lines of a list that a terminal shows. */
const SHOWN_LINES = 10;

function packedText({ layers, scaleRounding }: PackedSummary, dtype: ExportDtype): string {
  const rounding = scaleRounding === 0 ? "exact" : `rounded by up to ${formatSignificant(scaleRounding)} of each`;
  return `${formatQuantity(layers, "layer")}, scales as ${dtype}, ${rounding}`;
}

export function exportSections(
  result: ExportResult,
  { input, dtype, showAll }: { readonly input: string; readonly dtype: ExportDtype; readonly showAll: boolean },
): Section[] {
  const { packed, files, leftOut } = result;
  const list = (title: string, items: readonly string[]): Section[] => {
    const shown = showAll ? items : items.slice(0, SHOWN_LINES);
    const rest = items.length - shown.length;
    return listSection(title, rest > 0 ? [...shown, `and ${rest} more`] : shown);
  };
  const plain = (packed?.dequantized ?? []).map(({ name, reason }) => `${name}: ${reason}`);
  return [
    {
      kind: "facts",
      facts: [
        ["input", input],
        ["output", files.length === 1 ? result.output : `${result.output} (${formatQuantity(files.length, "file")})`],
        ["tensors", `${result.tensors}, floating-point ones as ${dtype}`],
        ...(packed === null ? [] : ([["packed", packedText(packed, dtype)]] as [string, string][])),
        ["size", formatBytes(result.bytesOut)],
        ["time", formatSeconds(result.seconds)],
      ],
    },
    ...list("not packed, written as plain weights", plain),
    ...list("of the original, left out", leftOut),
  ];
}

export function exportBody(result: ExportResult, dtype: ExportDtype): DocumentBody {
  const { packed } = result;
  return {
    output: result.output,
    summary: { tensors: result.tensors, bytes_out: result.bytesOut, seconds: result.seconds, dtype },
    layers: [],
    warnings: result.warnings,
    files: result.files,
    left_out: result.leftOut,
    packed:
      packed === null
        ? null
        : { layers: packed.layers, dequantized: packed.dequantized, scale_rounding: packed.scaleRounding },
  };
}
