/** What running two models side by side showed, as sections. Pure. */
import type { RunResult, RunVariant } from "../validate/run-result.js";
import { formatQuantity } from "./figures.js";
import { listSection, type Section, type TableSection } from "./sections.js";

function inputsText({ inputs }: RunResult): string {
  const { source, samples, steps, seed, scheduler } = inputs;
  if (scheduler === null) return `${formatQuantity(samples, "sample")} of ${source}`;
  return `${formatQuantity(samples, "sample")} denoised in ${steps} steps of ${scheduler}, seed ${seed}`;
}

function variantRow({ quantized, predictionError, predictionCosine, psnrDb }: RunVariant): string[] {
  return [quantized, predictionError.toFixed(4), predictionCosine.toFixed(6), psnrDb === null ? "" : psnrDb.toFixed(1)];
}

function timeTable({ variants }: RunResult): TableSection {
  const times = variants[0]?.times ?? [];
  return {
    kind: "table",
    title: "Prediction by time",
    columns: [
      { title: "time", align: "right" },
      ...variants.flatMap(({ quantized }) => [
        { title: `error, ${quantized}`, align: "right" as const },
        { title: "cosine", align: "right" as const },
      ]),
    ],
    rows: times.map(({ time }, index) => [
      String(time),
      ...variants.flatMap((variant) => {
        const { relativeError = 0, cosineSimilarity = 0 } = variant.times[index] ?? {};
        return [relativeError.toFixed(4), cosineSimilarity.toFixed(6)];
      }),
    ]),
  };
}

/** `worst`: for a terminal; `all`: for a file, time by time. */
export function runSections(run: RunResult, extent: "worst" | "all"): Section[] {
  return [
    {
      kind: "facts",
      facts: [
        ["run", `${run.runtime}, ${run.graph}`],
        ["inputs", inputsText(run)],
        ["layers run", `${run.layerCount}${run.notRun.length === 0 ? "" : `, ${run.notRun.length} not in the graph`}`],
        ...(run.images === null ? [] : [["pictures", run.images] as const]),
      ],
    },
    {
      kind: "table",
      title: "Run side by side",
      columns: [
        { title: "quantized" },
        { title: "prediction error", align: "right" },
        { title: "cosine", align: "right" },
        { title: "PSNR dB", align: "right" },
      ],
      rows: run.variants.map(variantRow),
    },
    ...(extent === "all" ? [timeTable(run)] : []),
    ...listSection(
      "Quantized but not run",
      run.notRun.map(({ name, reason }) => `${name}: ${reason}`),
    ),
  ];
}
