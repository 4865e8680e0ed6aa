/** A plan as sections: what will be done with each tensor, and why. Pure. */
import type { ComponentPlan, LayerPlan } from "../plan/plan.js";
import { estimateLayerBytes } from "../plan/size.js";
import type { QuantizePlan } from "../quantize/result.js";
import { formatBitsPerWeight, formatBytes, formatQuantity, formatRatio, formatShape } from "./figures.js";
import { mixedSections } from "./mixed.js";
import { listSection, type Section } from "./sections.js";

/** Bits of scale and zero-point codes: `6/6`; `f32` where they are not coded, `–` where there are none. */
function storageText(layer: LayerPlan): string {
  const { spec } = layer;
  if (spec === null) return "";
  const scales = spec.scaleBits === null ? "f32" : `${spec.scaleBits}`;
  const coded = spec.symmetric || spec.method === "r2q";
  const zeroPoints = coded ? "–" : spec.zeroPointBits === null ? "f32" : `${spec.zeroPointBits}`;
  return `${scales}/${zeroPoints}`;
}

function layerRow(layer: LayerPlan): string[] {
  const { tensor, spec } = layer;
  const common = [tensor.name, formatShape(tensor.shape), tensor.dtype];
  const stored = layer.storedDtype === tensor.dtype ? "kept" : `kept as ${layer.storedDtype}`;
  return spec === null
    ? [...common, stored, "", "", "", formatBytes(estimateLayerBytes(layer)), layer.reason]
    : [
        ...common,
        `int${spec.bits}`,
        String(spec.groupSize),
        storageText(layer),
        spec.method,
        formatBytes(estimateLayerBytes(layer)),
        layer.reason,
      ];
}

function componentSections(plan: ComponentPlan): Section[] {
  const quantized = plan.layers.filter((layer) => layer.spec !== null).length;
  return [
    {
      kind: "facts",
      title: plan.component,
      facts: [
        ["architecture", plan.architecture],
        ["modality", `${plan.modality} (${plan.modalityEvidence.join("; ")})`],
        ["tensors", `${plan.layers.length}: ${quantized} quantized, ${plan.layers.length - quantized} kept`],
      ],
    },
    {
      kind: "table",
      title: "Decisions",
      columns: [{ title: "setting" }, { title: "value" }, { title: "rule" }],
      rows: plan.decisions.map(({ what, value, rule }) => [what, value, rule]),
    },
    ...listSection(
      "Not applied",
      plan.notApplied.map(({ setting, reason }) => `${setting}: ${reason}`),
    ),
    {
      kind: "table",
      title: "Layers",
      columns: [
        { title: "layer", elastic: true },
        { title: "shape", drop: 3 },
        { title: "dtype", drop: 2 },
        { title: "to" },
        { title: "group", align: "right", drop: 1 },
        { title: "scale/zp bits", drop: 5 },
        { title: "method" },
        { title: "size", align: "right", drop: 4 },
        { title: "reason" },
      ],
      rows: plan.layers.map(layerRow),
    },
  ];
}

/** @param extent `worst`: for a terminal; `all`: for a file, with charts */
export function planSections(plan: QuantizePlan, extent: "worst" | "all" = "all"): Section[] {
  const { bytesIn, bytesOut, compressionRatio, bitsPerWeight } = plan.sizes;
  return [
    ...plan.components.flatMap(componentSections),
    ...mixedSections(plan.components, extent),
    {
      kind: "facts",
      title: "In all",
      facts: [
        ["input", `${plan.input} (${plan.format}, ${formatQuantity(plan.components.length, "component")})`],
        ["size", `${formatBytes(bytesIn)} → ${formatBytes(bytesOut)} (${formatRatio(compressionRatio)})`],
        ["bits per weight", formatBitsPerWeight(bitsPerWeight)],
      ],
    },
  ];
}
