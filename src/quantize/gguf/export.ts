/**
 * A native file as GGUF: its weights rebuilt on the way, as a folder beside the output, and quantized again. Both
 * errors add up, so it is done only where that is allowed, and what it cost is told.
 */
import { rm } from "node:fs/promises";
import type { Session } from "../../engine/session.js";
import { ArrowQuantError } from "../../errors.js";
import { listNativeFiles } from "../../formats/parquet/native-files.js";
import { openNative } from "../../formats/parquet/reader.js";
import { OutputTarget } from "../../io/output.js";
import type { Dtype } from "../../tensor/dtype.js";
import { addSums, deriveMetrics, type ErrorMetrics, zeroSums } from "../../tensor/metrics.js";
import { exportNative } from "../export.js";
import type { GgufExportJob, GgufResult } from "./job.js";
import { quantizeGguf } from "./quantize.js";

export interface GgufExportResult extends GgufResult {
  /** Of the native file against its original, as it says; null where it does not. */
  readonly nativeMetrics: ErrorMetrics | null;
}

interface NativeSummary {
  readonly component: string;
  readonly keptDtypes: ReadonlyMap<string, Dtype>;
  readonly metrics: ErrorMetrics | null;
}

/**
 * @throws E_PREQUANTIZED without `allowRequantize`, E_USAGE for several components; what `exportNative` and
 *   `quantizeGguf` throw
 */
export async function exportGguf(job: GgufExportJob, session: Session): Promise<GgufExportResult> {
  const startedAt = performance.now();
  const { input, output, allowRequantize, force, signal, onProgress, ...options } = job;
  if (!allowRequantize) {
    throw new ArrowQuantError("E_PREQUANTIZED", `"${input}" is quantized already, and GGUF quantizes in its own way`, {
      hint: "quantize the original weights with -o FILE.gguf, or accept both errors with --allow-requantize",
      details: { input },
    });
  }
  const native = await summarizeNative(input);
  const place = await OutputTarget.prepare(output, {
    kind: "folder",
    force: true,
    inputs: [],
    isOurs: async () => true,
  });
  const folder = place.temporaryPath;
  try {
    const rebuilt = await exportNative({ input, output: folder, dtype: "F32", signal, onProgress }, session);
    const result = await quantizeGguf({ ...options, input: folder, output, force, signal, onProgress }, session, {
      label: input,
      format: "native",
      componentName: native.component,
      keptDtypes: native.keptDtypes,
    });
    return {
      ...result,
      nativeMetrics: native.metrics,
      summary: { ...result.summary, seconds: (performance.now() - startedAt) / 1000 },
      warnings: [
        ...new Set([...rebuilt.warnings.filter((warning) => !isOfFolder(warning)), ...result.warnings]),
        costOf(native.metrics, result),
      ],
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** That the native file holds no config.json matters to loaders of folders only. */
function isOfFolder(warning: string): boolean {
  return warning.endsWith("the folder has none");
}

async function summarizeNative(input: string): Promise<NativeSummary> {
  const [path, second] = await listNativeFiles(input);
  if (second !== undefined) {
    throw new ArrowQuantError("E_USAGE", `"${input}" holds several components, a GGUF file one`, {
      hint: "export one of the files",
      details: { input },
    });
  }
  const native = await openNative(path as string);
  try {
    const keptDtypes = new Map<string, Dtype>();
    const sums = zeroSums();
    let isMeasured = false;
    for await (const { layerName, quantType, storedDtype, dtype, metrics } of native.rowHeaders()) {
      if (quantType === "none") keptDtypes.set(layerName, storedDtype ?? dtype);
      if (metrics === null) continue;
      addSums(sums, metrics);
      isMeasured = true;
    }
    return { component: native.component, keptDtypes, metrics: isMeasured ? deriveMetrics(sums) : null };
  } finally {
    native.close();
  }
}

/** What quantizing again cost, in the words of a warning. */
function costOf(native: ErrorMetrics | null, { summary }: GgufResult): string {
  const percent = (metrics: ErrorMetrics): string => `${(100 * metrics.relativeRmse).toPrecision(3)} %`;
  const added = summary.metrics === null ? "no error" : `a relative RMSE of ${percent(summary.metrics)}`;
  const had = native === null ? "" : `, on top of its own of ${percent(native)} against the original`;
  return `requantized: ${added} against what the quantized file holds${had}`;
}
