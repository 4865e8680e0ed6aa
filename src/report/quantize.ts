/** The result of a quantization as sections. Pure. */
import type { ComponentPlan } from "../plan/plan.js";
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
import { mixedSections } from "./mixed.js";
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

/** What only calibrated layers have; a column that none of them fills is left out. */
const CALIBRATED_COLUMNS: readonly { readonly column: Column; readonly cell: (layer: LayerReport) => string }[] = [
  {
    column: { title: "output error", align: "right" },
    cell: ({ output }) => (output === null ? "" : formatSignificant(output.relativeError)),
  },
  {
    column: { title: "α", align: "right", drop: 7 },
    cell: ({ smoothing }) => (smoothing === null ? "" : String(smoothing)),
  },
  {
    column: { title: "time groups", align: "right", drop: 8 },
    cell: ({ timeGroups }) => (timeGroups === null ? "" : String(timeGroups)),
  },
];

function layerTable(layers: readonly LayerReport[], extent: "worst" | "all"): TableSection[] {
  const filled = CALIBRATED_COLUMNS.filter(({ cell }) => layers.some((layer) => cell(layer) !== ""));
  const columns = [...LAYER_COLUMNS, ...filled.map(({ column }) => column)];
  const row = (layer: LayerReport): string[] => [...layerRow(layer), ...filled.map(({ cell }) => cell(layer))];
  if (extent === "all") {
    return [
      {
        kind: "table",
        title: "Layers",
        columns: [...columns, { title: "reason" }],
        rows: layers.map((layer) => [...row(layer), layer.reason]),
      },
    ];
  }
  const quantized = layers.filter((layer) => layer.metrics !== null);
  // The error of outputs says more than that of weights, but only where every layer has one can they be compared.
  const byOutput = quantized.length > 0 && quantized.every(({ output }) => output !== null);
  const worst = byOutput ? worstOutputs(quantized) : worstLayers(layers);
  if (worst.length === 0) return [];
  const rest = quantized.length - worst.length;
  return [
    {
      kind: "table",
      title: byOutput ? "Worst layers, by output error on held-back samples" : "Worst layers, by cosine of weights",
      columns,
      rows: worst.map(row),
      ...(rest > 0 ? { note: `and ${formatQuantity(rest, "better layer")}` } : {}),
    },
  ];
}

function worstOutputs(layers: readonly LayerReport[]): LayerReport[] {
  const error = ({ output }: LayerReport): number => output?.relativeError ?? 0;
  return layers.toSorted((a, b) => error(b) - error(a)).slice(0, WORST_LAYERS);
}

/** What was compared where a layer had a choice, the least error first. */
function trialSections(layers: readonly LayerReport[]): Section[] {
  const chosen = layers.filter(({ trials }) => trials.length > 1);
  const describe = ({ method, alpha, outputError }: LayerReport["trials"][number]): string =>
    `${method}${alpha === null ? "" : ` α ${alpha}`} ${formatSignificant(outputError)}`;
  return listSection(
    "Chosen by output error",
    chosen.map(({ name, trials }) => {
      const sorted = trials.toSorted((a, b) => a.outputError - b.outputError);
      return `${name}: ${sorted.map(describe).join(", ")}`;
    }),
  );
}

function fallbackText(layer: LayerReport): string {
  const tried = layer.fallbackFrom.map(
    ({ quantType, cosineSimilarity }) => `${quantType} (cosine ${formatCosine(cosineSimilarity)})`,
  );
  return `${layer.name}: ${[...tried, layer.quantType === "none" ? "kept" : layer.quantType].join(" → ")}`;
}

/** What was learned from, once; synthetic inputs are named as such by their label. */
function calibrationFacts(components: readonly ComponentPlan[]): [string, string][] {
  const labels = new Set(components.flatMap(({ calibration }) => (calibration === null ? [] : [calibration.label])));
  return labels.size === 0 ? [] : [["calibration", [...labels].join(", ")]];
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
        ...calibrationFacts(plan.components),
        ...summaryFacts(summary),
      ],
    },
    ...mixedSections(plan.components, extent),
    ...layerTable(layers, extent),
    ...(extent === "all" ? trialSections(layers) : []),
    ...listSection("Raised for quality", layers.filter((layer) => layer.fallbackFrom.length > 0).map(fallbackText)),
    ...listSection(
      "Not applied",
      plan.components.flatMap(({ notApplied }) => notApplied.map(({ setting, reason }) => `${setting}: ${reason}`)),
    ),
    ...(extent === "all" ? listSection("Warnings", result.warnings) : []),
  ];
}
