/** Whether a job's output already stands: complete, from the same source, with the same settings. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import type { ResolvedConfig } from "../config/config.js";
import { configThatChangesTensors } from "../config/record.js";
import { ArrowQuantError } from "../errors.js";
import { fingerprintComponent } from "../formats/fingerprint.js";
import { openModel } from "../formats/open.js";
import { openNative, wasWrittenByUs } from "../formats/parquet/reader.js";
import type { ComponentPlan } from "../plan/plan.js";
import { NATIVE_ENDING } from "../quantize/quantize.js";
import { type Summary, summarizeLayers } from "../quantize/summary.js";
import { type Inspection, inspectPath } from "../report/inspect.js";
import { DTYPES } from "../tensor/dtype.js";

/** The file of each component, by component name. */
function componentFiles(outputPath: string, plans: readonly ComponentPlan[]): Map<string, string> {
  const isFolder = plans.length > 1;
  return new Map(
    plans.map(({ component }) => [component, isFolder ? join(outputPath, component + NATIVE_ENDING) : outputPath]),
  );
}

/**
 * Figures of the standing output, or null where the job is to be done. Outputs appear under their name only when
 * they are complete, so what is compared is what they say of themselves: settings and fingerprint of the source.
 * @throws errors of reading the source
 */
export async function findStandingOutput(
  modelPath: string,
  outputPath: string,
  config: ResolvedConfig,
  plans: readonly ComponentPlan[],
): Promise<Summary | null> {
  const files = componentFiles(outputPath, plans);
  if (!(await holdsExactly(outputPath, files))) return null;
  const { variant, components } = config.values;
  const model = await openModel(modelPath, {
    ...(variant === null ? {} : { variant }),
    ...(components === null ? {} : { components }),
  });
  let bytesOut = 0;
  for (const plan of plans) {
    const path = files.get(plan.component) as string;
    const metadata = await readMetadata(path);
    if (metadata?.get("arrowquant.config") !== configThatChangesTensors(config, plan)) return null;
    const component = model.components.find(({ name }) => name === plan.component);
    if (component === undefined) return null;
    if (readFingerprint(metadata) !== (await fingerprintComponent(component))) return null;
    bytesOut += (await stat(path)).size;
  }
  return summarize(await inspectPath(outputPath), bytesOut);
}

/** What the files say of their layers, as the run that wrote them reported it. */
function summarize({ components }: Inspection, bytesOut: number): Summary {
  const layers = components
    .flatMap(({ tensors }) => tensors)
    .map(({ parameterCount, dtype, byteLength, metrics }) => ({
      parameterCount,
      bytesIn: (parameterCount * DTYPES[dtype].bits) / 8,
      bytesOut: byteLength,
      metrics,
    }));
  return summarizeLayers(layers, bytesOut, 0);
}

/** A folder output holds the files of its components and no others: not those of an earlier choice. */
async function holdsExactly(outputPath: string, files: ReadonlyMap<string, string>): Promise<boolean> {
  for (const path of files.values()) if (!(await wasWrittenByUs(path))) return false;
  return files.size === 1 || (await readdir(outputPath)).length === files.size;
}

async function readMetadata(path: string): Promise<ReadonlyMap<string, string> | null> {
  try {
    const native = await openNative(path);
    native.close();
    return native.metadata;
  } catch (thrown) {
    // Damaged outputs are written again.
    if (thrown instanceof ArrowQuantError) return null;
    throw thrown;
  }
}

function readFingerprint(metadata: ReadonlyMap<string, string>): unknown {
  try {
    return (JSON.parse(metadata.get("arrowquant.source") ?? "null") as { fingerprint?: unknown } | null)?.fingerprint;
  } catch {
    return undefined;
  }
}
