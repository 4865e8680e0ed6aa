/** How sensitive layers are: as sections for people, as plain objects for `--json`. Pure. */
import type { SensitivityKind } from "../plan/plan.js";
import type { SensitivityResult } from "../quantize/sensitivity/sensitivity.js";
import type { CandidateErrors, LayerSensitivity, SensitivityTable } from "../quantize/sensitivity/table.js";
import type { QuantSpec } from "../tensor/layout.js";
import { formatQuantity, formatSeconds, formatSignificant } from "./figures.js";
import type { DocumentBody, JsonObject } from "./json.js";
import { listSection, type Section } from "./sections.js";

/** Layers of a table that a terminal shows, the most sensitive. */
const SHOWN_LAYERS = 20;

/** Kinds with a figure for every candidate, and what it is called. */
const ERROR_TITLES = {
  weight: "Weight error, ‖w − ŵ‖/‖w‖, by the importance of columns where it is known",
  output: "Output error, ‖y − ŷ‖/‖y‖ on held-back rows",
  model: "Prediction error of the model, one layer quantized at a time, ‖p − p̂‖/‖p‖",
} as const;
type ErrorKind = keyof typeof ERROR_TITLES;

/** Candidates as columns: equal labels stand for equal choices in every layer. */
function labelsOf(layers: readonly LayerSensitivity[]): { labels: string[]; labelOf: (spec: QuantSpec) => string } {
  const specs = layers.flatMap(({ candidates }) => candidates.map(({ spec }) => spec));
  const count = (part: (spec: QuantSpec) => unknown) => new Set(specs.map(part)).size;
  const hasGroups = count(({ groupSize }) => groupSize) > 1;
  const hasMethods = count(({ method }) => method) > 1;
  const labelOf = ({ bits, groupSize, method }: QuantSpec) =>
    `int${bits}${hasGroups ? `/${groupSize}` : ""}${hasMethods ? ` ${method}` : ""}`;
  return { labels: [...new Set(specs.map(labelOf))], labelOf };
}

function errorSections(table: SensitivityTable, kind: ErrorKind, extent: "some" | "all"): Section[] {
  const known = table.layers.filter(({ candidates }) => candidates.some((candidate) => candidate[kind] !== null));
  if (known.length === 0) return [];
  const { labels, labelOf } = labelsOf(known);
  const most = ({ candidates }: LayerSensitivity) => Math.max(...candidates.map((candidate) => candidate[kind] ?? 0));
  const shown = extent === "all" ? known : [...known].sort((a, b) => most(b) - most(a)).slice(0, SHOWN_LAYERS);
  const rest = known.length - shown.length;
  return [
    {
      kind: "table",
      title: ERROR_TITLES[kind],
      columns: [
        { title: "layer", elastic: true },
        ...labels.map((title, index) => ({ title, align: "right" as const, drop: index + 1 })),
      ],
      rows: shown.map(({ name, candidates }) => {
        const byLabel = new Map(candidates.map((candidate) => [labelOf(candidate.spec), candidate[kind]]));
        return [name, ...labels.map((label) => rootText(byLabel.get(label)))];
      }),
      ...(rest > 0 ? { note: `the most sensitive ${shown.length}; ${rest} more with --verbose` } : {}),
    },
  ];
}

function rootText(squared: number | null | undefined): string {
  return squared == null ? "" : formatSignificant(Math.sqrt(squared));
}

function entropySections({ layers }: SensitivityTable): Section[] {
  const classes = [...new Set(layers.map(({ entropyClass }) => entropyClass))];
  const counts = classes.map((name) => {
    const members = layers.filter(({ entropyClass }) => entropyClass === name).map(({ entropy }) => entropy);
    const range = `${Math.min(...members).toFixed(3)} to ${Math.max(...members).toFixed(3)}`;
    return [name, `${formatQuantity(members.length, "layer")}, ${range}`] as const;
  });
  return [{ kind: "facts", title: "Entropy of the weights (an older heuristic, as a baseline)", facts: counts }];
}

const KIND_ORDER: readonly SensitivityKind[] = ["model", "output", "weight", "entropy"];

function tableSections(table: SensitivityTable, extent: "some" | "all"): Section[] {
  const kinds = KIND_ORDER.filter((kind) => table.kinds.includes(kind));
  return [
    {
      kind: "facts",
      title: table.component,
      facts: [
        ["layers", String(table.layers.length)],
        ["candidates", labelsOf(table.layers).labels.join(", ")],
        ["measured", kinds.join(", ")],
      ],
    },
    ...kinds.flatMap((kind) => (kind === "entropy" ? entropySections(table) : errorSections(table, kind, extent))),
  ];
}

/** `some`: for a terminal; `all`: for a file, and with --verbose. */
export function sensitivitySections(result: SensitivityResult, extent: "some" | "all"): Section[] {
  return [
    ...result.tables.flatMap((table) => tableSections(table, extent)),
    {
      kind: "facts",
      facts: [
        ["input", result.input],
        ["time taken", formatSeconds(result.seconds)],
      ],
    },
    ...(extent === "all" ? listSection("Warnings", result.warnings) : []),
  ];
}

function candidateJson({ spec, bytes, weight, output, model }: CandidateErrors): JsonObject {
  return {
    bits: spec.bits,
    group_size: spec.groupSize,
    method: spec.method,
    symmetric: spec.symmetric,
    scale_bits: spec.scaleBits,
    zero_point_bits: spec.zeroPointBits,
    super_group_size: spec.superGroupSize,
    bytes,
    weight_error: weight,
    output_error: output,
    model_error: model,
  };
}

function layerJson(component: string, layer: LayerSensitivity): JsonObject {
  return {
    name: layer.name,
    component,
    parameters: layer.parameterCount,
    entropy: layer.entropy,
    entropy_class: layer.entropyClass,
    output_share: layer.outputShare,
    candidates: layer.candidates.map(candidateJson),
  };
}

/** Errors are squared and relative. @param output the file that holds this document; null: none */
export function sensitivityBody(
  { input, tables, seconds, warnings }: SensitivityResult,
  output: string | null,
): DocumentBody {
  const layers = tables.flatMap(({ component, layers: ofTable }) =>
    ofTable.map((layer) => layerJson(component, layer)),
  );
  return {
    output,
    summary: { input, layers: layers.length, seconds },
    layers,
    warnings,
    components: tables.map(({ component, kinds, fingerprint }) => ({ name: component, kinds, fingerprint })),
  };
}
