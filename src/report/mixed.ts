/** What mixed precision chose, as sections. Pure. */
import type { ComponentPlan, MixedAllocation, MixedLayer, MixedPrecision, MixedSearch } from "../plan/plan.js";
import { formatBytes, formatCount, formatQuantity, formatSignificant } from "./figures.js";
import type { ChartSection, Section } from "./sections.js";

/** Errors are shown as roots: what is added up is squared, what people compare is not. */
function root(squared: number): string {
  return formatSignificant(Math.sqrt(squared));
}

function allocationFacts(allocation: MixedAllocation): [string, string][] {
  const { sensitivity, bitsPerWeight, meanGroupSize, bytes, fileBytes, error, gap, search } = allocation;
  const percent = `${formatSignificant(100 * gap)} %`;
  const sum = sensitivity === "entropy" ? formatSignificant(error) : root(error);
  return [
    ["bits per weight", `${bitsPerWeight.toFixed(3)} (${formatBytes(bytes)} of codes, scales and zero points)`],
    ["mean group size", meanGroupSize.toFixed(1)],
    ...(fileBytes === null ? [] : ([["output", `at most ${(fileBytes / 1e6).toFixed(3)} MB`]] as [string, string][])),
    ["sensitivity", sensitivity === "entropy" ? "entropy (a baseline: it measures no error)" : sensitivity],
    [
      sensitivity === "entropy" ? "heuristic cost" : "error added up",
      search === null ? `${sum}, at most ${percent} above the least there is` : sum,
    ],
    ...(search === null ? [] : ([["search", searchText(search)]] as [string, string][])),
  ];
}

function searchText({ fitness, generations, evaluations, seedError, error }: MixedSearch): string {
  const what = fitness === "model" ? "prediction error" : "error added up";
  return (
    `${formatQuantity(evaluations, "plan")} measured in ${formatQuantity(generations, "generation")}: ` +
    `${what} ${formatSignificant(seedError)} → ${formatSignificant(error)}`
  );
}

function widthFacts(layers: readonly MixedLayer[]): [string, string][] {
  const widths = [...new Set(layers.map(({ bits }) => bits))].sort((a, b) => a - b);
  const shares = widths.map((width) => {
    const own = layers.filter(({ bits }) => bits === width);
    const weights = own.reduce((sum, { parameterCount }) => sum + parameterCount, 0);
    return `${width} bits: ${formatQuantity(own.length, "layer")}, ${formatCount(weights)}`;
  });
  return [["widths", shares.join("; ")]];
}

function charts({ layers, allocation }: MixedPrecision, name: string): ChartSection[] {
  const isEntropy = allocation?.sensitivity === "entropy";
  const errorAxis = isEntropy ? "cost" : "error";
  const rootOf = (error: number | null): number | null => (error === null || isEntropy ? error : Math.sqrt(error));
  const bars: ChartSection = {
    kind: "chart",
    title: `Bits and error of each layer${name}`,
    chart: {
      kind: "bars",
      barAxis: "bits",
      pointAxis: errorAxis,
      bars: layers.map(({ name: label, bits, error }) => ({ label, value: bits, point: rootOf(error) })),
    },
  };
  if (allocation === null || allocation.front.length < 2) return [bars];
  const { front, search, bitsPerWeight, error } = allocation;
  const curve: ChartSection = {
    kind: "chart",
    title: `Size against error${search === null ? ", errors added up" : ""}`,
    chart: {
      kind: "curve",
      xAxis: "bits per weight",
      yAxis: search?.fitness === "model" ? "prediction error" : errorAxis,
      points: front.map(({ bitsPerWeight: x, error: y }) => ({ x, y })),
      chosen: { x: bitsPerWeight, y: search?.error ?? Math.sqrt(error) },
    },
  };
  return [bars, curve];
}

function layerTable({ layers, allocation }: MixedPrecision, name: string): Section {
  const isEntropy = allocation?.sensitivity === "entropy";
  return {
    kind: "table",
    title: `Mixed precision${name}`,
    columns: [
      { title: "layer", elastic: true },
      { title: "bits", align: "right" },
      { title: "group", align: "right" },
      { title: "weights", align: "right", drop: 2 },
      { title: "size", align: "right", drop: 1 },
      { title: isEntropy ? "cost" : "error", align: "right" },
    ],
    rows: layers.map(({ name: layer, bits, groupSize, parameterCount, bytes, error }) => [
      layer,
      String(bits),
      String(groupSize),
      formatCount(parameterCount),
      formatBytes(bytes),
      error === null ? "" : isEntropy ? formatSignificant(error) : root(error),
    ]),
  };
}

/** @param extent `worst`: for a terminal, figures alone; `all`: for a file, with every layer and charts */
export function mixedSections(components: readonly ComponentPlan[], extent: "worst" | "all"): Section[] {
  const mixed = components.flatMap(({ component, mixed: own }) => (own === null ? [] : [{ component, own }]));
  const [first] = mixed;
  if (first === undefined) return [];
  const { origin, allocation } = first.own;
  const facts: Section = {
    kind: "facts",
    title: "Mixed precision",
    facts: [
      ["chosen by", origin],
      ...(allocation === null ? [] : allocationFacts(allocation)),
      ...widthFacts(mixed.flatMap(({ own }) => own.layers)),
    ],
  };
  if (extent === "worst") return [facts];
  return [
    facts,
    ...mixed.flatMap(({ component, own }, index) => {
      const name = mixed.length === 1 ? "" : `: ${component}`;
      const [bars, ...others] = charts(own, name) as [ChartSection, ...ChartSection[]];
      // The front is of all components together.
      return [bars, ...(index === 0 ? others : []), layerTable(own, name)];
    }),
  ];
}
