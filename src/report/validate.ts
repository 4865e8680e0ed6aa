/** The result of a validation as sections. Pure. */
import type { ValidatedLayer, ValidateResult } from "../validate/result.js";
import { formatQuantity, formatShape } from "./figures.js";
import { METRIC_COLUMNS, metricCells, summaryFacts, WORST_LAYERS, worstLayers } from "./quantize.js";
import { runSections } from "./run.js";
import { type Column, listSection, type Section, type TableSection } from "./sections.js";

const LAYER_COLUMNS: readonly Column[] = [
  { title: "layer", elastic: true },
  { title: "shape", drop: 4 },
  { title: "type" },
  { title: "group", align: "right", drop: 2 },
  { title: "method", drop: 3 },
  ...METRIC_COLUMNS,
  { title: "threshold", align: "right" },
  { title: "result" },
];

function verdict(layer: ValidatedLayer): string {
  if (layer.passed) return "ok";
  return layer.identical === false ? "CHANGED" : "BELOW";
}

function layerRow(layer: ValidatedLayer): string[] {
  return [
    layer.name,
    formatShape(layer.shape),
    layer.quantType === "none" ? `kept (${layer.dtype})` : layer.quantType,
    layer.groupSize === null ? "" : String(layer.groupSize),
    layer.method ?? "",
    ...metricCells(layer.metrics),
    layer.threshold === null ? "" : layer.threshold.toFixed(2),
    verdict(layer),
  ];
}

function layerTable(layers: readonly ValidatedLayer[], extent: "worst" | "all"): TableSection[] {
  if (extent === "all") {
    return [{ kind: "table", title: "Layers", columns: LAYER_COLUMNS, rows: layers.map(layerRow) }];
  }
  // Every layer that failed is shown, however many; good ones fill the table up.
  const failed = layers.filter((layer) => !layer.passed);
  const good = worstLayers(layers.filter((layer) => layer.passed));
  const rows = [...failed, ...good.slice(0, Math.max(0, WORST_LAYERS - failed.length))];
  if (rows.length === 0) return [];
  const rest = layers.length - rows.length;
  return [
    {
      kind: "table",
      title: "Worst layers",
      columns: LAYER_COLUMNS,
      rows: rows.map(layerRow),
      ...(rest > 0 ? { note: `and ${formatQuantity(rest, "better or kept layer")}` } : {}),
    },
  ];
}

function componentTable(result: ValidateResult): TableSection {
  const parts = Object.entries(result.components).map(([name, metrics]) => [name, ...metricCells(metrics)]);
  return {
    kind: "table",
    title: "By component",
    columns: [{ title: "component" }, ...METRIC_COLUMNS],
    rows: [...parts, ["over all", ...metricCells(result.summary.metrics)]],
  };
}

/** One line: what is wrong, or that nothing is. */
export function validateVerdict(result: ValidateResult): string {
  const below = result.layers.filter((layer) => !layer.passed && layer.metrics !== null).length;
  const changed = result.layers.filter((layer) => !layer.passed && layer.metrics === null).length;
  const faults = [
    [below, "layer below its threshold", "layers below their thresholds"],
    [changed, "kept layer changed", "kept layers changed"],
    [result.missing.length, "layer missing", "layers missing"],
    [result.extra.length, "extra layer", "extra layers"],
    [result.misshapen.length, "misshapen layer", "misshapen layers"],
  ] as const;
  const ranBadly = result.run !== null && !result.run.passed ? 1 : 0;
  const all = [...faults, [ranBadly, "prediction too different", ""] as const];
  const found = all.filter(([count]) => count > 0).map(([count, one, many]) => `${count} ${count === 1 ? one : many}`);
  return found.length === 0 ? "passed" : `failed: ${found.join(", ")}`;
}

/** `worst`: for a terminal; `all`: for a file. */
export function validateSections(result: ValidateResult, extent: "worst" | "all"): Section[] {
  return [
    {
      kind: "facts",
      facts: [
        ["original", result.original],
        ["quantized", result.quantized],
        ...summaryFacts(result.summary),
        ["result", validateVerdict(result)],
      ],
    },
    componentTable(result),
    ...(result.run === null ? [] : runSections(result.run, extent)),
    ...layerTable(result.layers, extent),
    ...listSection("Missing from the quantized file", result.missing),
    ...listSection("Not in the original", result.extra),
    ...listSection("Of another shape or type", result.misshapen),
    ...(extent === "all" ? listSection("Warnings", result.warnings) : []),
  ];
}
