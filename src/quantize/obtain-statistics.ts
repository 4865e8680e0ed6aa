/** Statistics for a quantization: the file that the configuration names, or those of a calibration run for it. */
import { defaultCacheFolder } from "../calibration/cache.js";
import { calibrateWithin } from "../calibration/calibrate.js";
import type { Statistics } from "../calibration/statistics.js";
import type { ResolvedConfig } from "../config/config.js";
import type { Job } from "../engine/jobs.js";
import type { Session } from "../engine/session.js";
import { DENOISERS } from "../formats/diffusers.js";
import type { Model } from "../tensor/info.js";
import type { QuantizeJob } from "./result.js";

export interface ObtainedStatistics {
  readonly statistics: Statistics;
  readonly warnings: readonly string[];
}

/** Of a pipeline's components, the one that is calibrated: the denoiser, which alone has a time. */
export function calibratedComponent({ components }: Model): string {
  const names = components.map(({ name }) => name);
  return names.find((name) => DENOISERS.includes(name)) ?? (names[0] as string);
}

/**
 * null where the configuration names no calibration.
 * @throws what `calibrateModel` does
 */
export async function obtainStatistics(
  job: Pick<QuantizeJob, "input" | "roles" | "onProgress">,
  model: Model,
  { values }: ResolvedConfig,
  session: Session,
  place: Job,
): Promise<ObtainedStatistics | null> {
  if (values.calibration === null) return null;
  const { statistics, warnings } = await calibrateWithin(
    {
      input: job.input,
      graph: values.graph,
      source: values.calibration,
      output: null,
      samples: values.calibration_samples,
      steps: values.calibration_steps,
      seed: values.seed,
      roles: job.roles ?? {},
      variant: values.variant,
      components:
        model.components.length === 1 && model.pipelineClassName === null ? null : [calibratedComponent(model)],
      hessians: values.method === null || values.method === "gptq" || values.method === "auto",
      cacheFolder: defaultCacheFolder(process.env),
      onProgress: job.onProgress,
    },
    session,
    place,
  );
  return { statistics, warnings };
}
