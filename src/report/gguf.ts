/** GGUF outputs and plans of them as sections and as JSON. Pure. */
import type { GgufExportResult } from "../quantize/gguf/export.js";
import type { GgufLayerReport, GgufPlan, GgufResult, GgufTensorPlan } from "../quantize/gguf/job.js";
import { countElements } from "../tensor/layout.js";
import {
  formatBitsPerWeight,
  formatBytes,
  formatQuantity,
  formatRatio,
  formatShape,
  formatSignificant,
} from "./figures.js";
import { type DocumentBody, type JsonObject, metricsJson, summaryJson } from "./json.js";
import { METRIC_COLUMNS, metricCells, summaryFacts, WORST_LAYERS, worstLayers } from "./quantize.js";
import { type Column, listSection, type Section, type TableSection } from "./sections.js";

const LAYER_COLUMNS: readonly Column[] = [
  { title: "layer", elastic: true },
  { title: "shape", drop: 4 },
  { title: "dtype", drop: 2 },
  { title: "type" },
  ...METRIC_COLUMNS,
];

function layerRow(layer: GgufLayerReport): string[] {
  return [layer.name, formatShape(layer.shape), layer.dtype, layer.quantType, ...metricCells(layer.metrics)];
}

function layerTable(layers: readonly GgufLayerReport[], extent: "worst" | "all"): TableSection[] {
  if (extent === "all") {
    const rows = layers.map((layer) => [...layerRow(layer), layer.reason]);
    return [{ kind: "table", title: "Layers", columns: [...LAYER_COLUMNS, { title: "reason" }], rows }];
  }
  const worst = worstLayers(layers);
  if (worst.length === 0) return [];
  const rest = layers.filter(({ metrics }) => metrics !== null).length - worst.length;
  const note = rest > 0 ? { note: `and ${formatQuantity(rest, "better layer")}` } : {};
  return [
    {
      kind: "table",
      title: "Worst layers, by cosine of weights",
      columns: LAYER_COLUMNS,
      rows: worst.map(layerRow),
      ...note,
    },
  ];
}

/** Tensors by type: `q4_k 28, f32 60`, in order of their number. */
function typeCounts(types: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const type of types) counts.set(type, (counts.get(type) ?? 0) + 1);
  return [...counts]
    .sort(([, a], [, b]) => b - a)
    .map(([type, count]) => `${type} ${count}`)
    .join(", ");
}

function planFacts({
  input,
  architecture,
  architectureRule,
  calibration,
  prefix,
  component,
}: GgufPlan): [string, string][] {
  return [
    ["input", input],
    ["component", component],
    ["architecture", architecture === null ? `none (${architectureRule})` : `${architecture} (${architectureRule})`],
    ...(prefix === "" ? [] : ([["prefix", `"${prefix}" taken off every name`]] as [string, string][])),
    ...(calibration === null ? [] : ([["calibration", calibration]] as [string, string][])),
  ];
}

function vetoSections(
  layers: readonly { name: string; quantType: string; reason: string; vetoed: boolean }[],
  extent: "worst" | "all",
) {
  const items = layers
    .filter(({ vetoed }) => vetoed)
    .map(({ name, quantType, reason }) => `${name}: ${quantType} (${reason})`);
  const shown = extent === "all" ? items : items.slice(0, WORST_LAYERS);
  const rest = items.length - shown.length;
  return listSection("Of another type than asked for", rest > 0 ? [...shown, `and ${rest} more`] : shown);
}

/** `worst`: for a terminal; `all`: for a file. */
export function ggufSections(result: GgufResult | GgufExportResult, extent: "worst" | "all"): Section[] {
  const { plan, output, files, summary, layers, warnings } = result;
  const native = "nativeMetrics" in result ? result.nativeMetrics : null;
  return [
    {
      kind: "facts",
      facts: [
        ...planFacts(plan),
        ["output", files.length === 1 ? output : `${output} and ${files.length - 1} more`],
        ["types", typeCounts(layers.map(({ quantType }) => quantType))],
        ...summaryFacts(summary),
        ...(native === null
          ? []
          : ([["relative RMSE before", `${formatSignificant(native.relativeRmse)}, of the quantized file`]] as [
              string,
              string,
            ][])),
      ],
    },
    ...layerTable(layers, extent),
    ...vetoSections(layers, extent),
    ...(extent === "all" ? listSection("Warnings", warnings) : []),
  ];
}

function typeOf({ dtype }: GgufTensorPlan): string {
  return dtype.toLowerCase();
}

export function ggufPlanSections(plan: GgufPlan): Section[] {
  const { tensors, sizes, format } = plan;
  return [
    { kind: "facts", facts: [...planFacts(plan), ["types", typeCounts(tensors.map(typeOf))]] },
    {
      kind: "table",
      title: "Layers",
      columns: [
        { title: "layer", elastic: true },
        { title: "shape", drop: 3 },
        { title: "dtype", drop: 2 },
        { title: "to" },
        { title: "size", align: "right", drop: 4 },
        { title: "reason" },
      ],
      rows: tensors.map((planned) => [
        planned.tensor.name,
        formatShape(planned.tensor.shape),
        planned.tensor.dtype,
        typeOf(planned),
        formatBytes(planned.byteLength),
        planned.reason,
      ]),
    },
    {
      kind: "facts",
      title: "In all",
      facts: [
        ["format", format],
        [
          "size",
          `${formatBytes(sizes.bytesIn)} → ${formatBytes(sizes.bytesOut)} (${formatRatio(sizes.compressionRatio)})`,
        ],
        ["bits per weight", formatBitsPerWeight(sizes.bitsPerWeight)],
      ],
    },
  ];
}

function ggufJson({ architecture, architectureRule, prefix, calibration, component, type }: GgufPlan): JsonObject {
  return { type, architecture, architecture_rule: architectureRule, name_prefix: prefix, calibration, component };
}

export function ggufPlanBody(plan: GgufPlan): DocumentBody {
  const { tensors, sizes } = plan;
  const vetoes = tensors.filter(({ vetoed }) => vetoed).length;
  return {
    output: null,
    summary: {
      tensors: tensors.length,
      parameters: tensors.reduce((sum, { tensor }) => sum + countElements(tensor.shape), 0),
      bytes_in: sizes.bytesIn,
      bytes_out: sizes.bytesOut,
      compression_ratio: Number.isFinite(sizes.compressionRatio) ? sizes.compressionRatio : null,
      bits_per_weight: sizes.bitsPerWeight,
      vetoes,
    },
    layers: tensors.map((planned) => ({
      name: planned.tensor.name,
      stored_name: planned.name,
      shape: planned.tensor.shape,
      stored_shape: planned.shape,
      dtype: planned.tensor.dtype,
      component: plan.component,
      quant_type: typeOf(planned),
      reason: planned.reason,
      vetoed: planned.vetoed,
      metrics: null,
      parameters: countElements(planned.tensor.shape),
      bytes_in: planned.tensor.location.byteLength,
      bytes_out: planned.byteLength,
    })),
    warnings: plan.warnings,
    dry_run: true,
    format: plan.format,
    gguf: ggufJson(plan),
  };
}

export function ggufBody(result: GgufResult | GgufExportResult): DocumentBody {
  const native = "nativeMetrics" in result ? result.nativeMetrics : null;
  return {
    output: result.output,
    summary: summaryJson(result.summary),
    layers: result.layers.map((layer) => ({
      name: layer.name,
      shape: layer.shape,
      dtype: layer.dtype,
      component: layer.component,
      quant_type: layer.quantType,
      reason: layer.reason,
      vetoed: layer.vetoed,
      metrics: metricsJson(layer.metrics),
      parameters: layer.parameterCount,
      bytes_in: layer.bytesIn,
      bytes_out: layer.bytesOut,
    })),
    warnings: result.warnings,
    dry_run: false,
    format: result.plan.format,
    gguf: ggufJson(result.plan),
    files: result.files,
    fingerprints: result.fingerprints,
    native_metrics: metricsJson(native),
  };
}
