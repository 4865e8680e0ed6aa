/** The result of a quantization as sections. Pure. */
import type { LayerReport, QuantizeResult, Summary } from "../quantize/result.js";
import type { ErrorMetrics } from "../tensor/metrics.js";
import {
  formatBitsPerWeight,
  formatBytes,
  formatCosine,
  formatCount,
  formatDecibels,
  formatGain,
  formatQuantity,
  formatRatio,
  formatSeconds,
  formatShape,
  formatSignificant,
} from "./figures.js";
import { type Column, listSection, type Section, type TableSection } from "./sections.js";

/** Rows of a "worst layers" table: as many as one sees at a glance. */
export const WORST_LAYERS = 10;

export const METRIC_COLUMNS: readonly Column[] = [
  { title: "cosine", align: "right" },
  { title: "SQNR dB", align: "right" },
  { title: "rel. RMSE", align: "right", drop: 1 },
  { title: "gain", align: "right", drop: 5 },
  { title: "largest error", align: "right", drop: 6 },
];

export function metricCells(metrics: ErrorMetrics | null): string[] {
  if (metrics === null) return METRIC_COLUMNS.map(() => "");
  return [
    formatCosine(metrics.cosineSimilarity),
    formatDecibels(metrics.sqnrDb),
    formatSignificant(metrics.relativeRmse),
    formatGain(metrics.gain),
    formatSignificant(metrics.maxAbsError),
  ];
}

/** Figures of a summary. */
export function summaryFacts(summary: Summary): [string, string][] {
  const { metrics } = summary;
  return [
    ["tensors", `${summary.tensors}: ${summary.quantized} quantized, ${summary.kept} kept`],
    ["parameters", formatCount(summary.parameters)],
    [
      "size",
      `${formatBytes(summary.bytesIn)} → ${formatBytes(summary.bytesOut)} (${formatRatio(summary.compressionRatio)})`,
    ],
    ["bits per weight", formatBitsPerWeight(summary.bitsPerWeight)],
    ...(metrics === null
      ? []
      : ([
          ["cosine similarity", formatCosine(metrics.cosineSimilarity)],
          ["SQNR", `${formatDecibels(metrics.sqnrDb)} dB`],
          ["relative RMSE", formatSignificant(metrics.relativeRmse)],
        ] as [string, string][])),
    ["time", formatSeconds(summary.seconds)],
  ];
}

/** Of layers with figures, those of lowest cosine similarity, the worst first. */
export function worstLayers<Layer extends { readonly metrics: ErrorMetrics | null }>(
  layers: readonly Layer[],
): Layer[] {
  const cosine = (layer: Layer): number => layer.metrics?.cosineSimilarity ?? 1;
  return layers
    .filter((layer) => layer.metrics !== null)
    .sort((a, b) => cosine(a) - cosine(b))
    .slice(0, WORST_LAYERS);
}

function layerRow(layer: LayerReport): string[] {
  return [
    layer.name,
    formatShape(layer.shape),
    layer.quantType === "none" ? `kept (${layer.dtype})` : layer.quantType,
    layer.groupSize === null ? "" : String(layer.groupSize),
    layer.method ?? "",
    ...metricCells(layer.metrics),
  ];
}

const LAYER_COLUMNS: readonly Column[] = [
  { title: "layer", elastic: true },
  { title: "shape", drop: 4 },
  { title: "type" },
  { title: "group", align: "right", drop: 2 },
  { title: "method", drop: 3 },
  ...METRIC_COLUMNS,
];

function layerTable(layers: readonly LayerReport[], extent: "worst" | "all"): TableSection[] {
  if (extent === "all") {
    return [
      {
        kind: "table",
        title: "Layers",
        columns: [...LAYER_COLUMNS, { title: "reason" }],
        rows: layers.map((layer) => [...layerRow(layer), layer.reason]),
      },
    ];
  }
  const worst = worstLayers(layers);
  if (worst.length === 0) return [];
  const rest = layers.filter((layer) => layer.metrics !== null).length - worst.length;
  return [
    {
      kind: "table",
      title: "Worst layers",
      columns: LAYER_COLUMNS,
      rows: worst.map(layerRow),
      ...(rest > 0 ? { note: `and ${formatQuantity(rest, "better layer")}` } : {}),
    },
  ];
}

function fallbackText(layer: LayerReport): string {
  const tried = layer.fallbackFrom.map(
    ({ quantType, cosineSimilarity }) => `${quantType} (cosine ${formatCosine(cosineSimilarity)})`,
  );
  return `${layer.name}: ${[...tried, layer.quantType === "none" ? "kept" : layer.quantType].join(" → ")}`;
}

/** `worst`: for a terminal; `all`: for a file. */
export function quantizeSections(result: QuantizeResult, extent: "worst" | "all"): Section[] {
  const { plan, summary, layers } = result;
  const components = plan.components.map(
    ({ component, architecture, modality }) => `${component} (${architecture}, ${modality})`,
  );
  return [
    {
      kind: "facts",
      facts: [
        ["input", plan.input],
        ["output", result.output],
        [components.length === 1 ? "component" : "components", components.join(", ")],
        ...summaryFacts(summary),
      ],
    },
    ...layerTable(layers, extent),
    ...listSection("Raised for quality", layers.filter((layer) => layer.fallbackFrom.length > 0).map(fallbackText)),
    ...listSection(
      "Not applied",
      plan.components.flatMap(({ notApplied }) => notApplied.map(({ setting, reason }) => `${setting}: ${reason}`)),
    ),
    ...(extent === "all" ? listSection("Warnings", result.warnings) : []),
  ];
}
