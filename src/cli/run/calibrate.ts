import { defaultCacheFolder } from "../../calibration/cache.js";
import { calibrateModel } from "../../calibration/calibrate.js";
import { Session } from "../../engine/session.js";
import { calibrateBody, calibrateSections } from "../../report/calibrate.js";
import { renderText } from "../../report/text.js";
import type { Invocation, Outcome } from "../command.js";
import { refuseDash } from "../paths.js";
import { openProgress } from "../progress.js";
import { resolveInvocation } from "../resolve.js";
import { readRoles } from "../role-flags.js";

export async function runCalibrate(invocation: Invocation): Promise<Outcome> {
  const { args, flags, terminal, signal } = invocation;
  const input = refuseDash(args[0] as string, "MODEL");
  const output = refuseDash(flags.output as string, "--output");
  const { values } = await resolveInvocation(invocation);
  await using session = new Session({ threads: values.num_threads ?? undefined, memoryBytes: values.memory });
  const progress = await openProgress(terminal, "calibrating");
  try {
    const result = await calibrateModel(
      {
        input,
        output,
        graph: values.graph,
        source: values.calibration ?? "sampling",
        samples: values.calibration_samples,
        steps: values.calibration_steps,
        seed: values.seed,
        roles: readRoles(flags),
        variant: values.variant,
        components: values.components,
        hessians: flags.hessians !== false,
        cacheFolder: defaultCacheFolder(process.env),
        fresh: flags.fresh === true,
        force: flags.force === true,
        signal,
        onProgress: (event) => {
          progress.label(event.phase === "sample" ? "sampling" : "calibrating");
          progress.update(event);
        },
      },
      session,
    );
    const extent = terminal.verbose ? "all" : "some";
    return {
      body: calibrateBody(result),
      text: (style) => renderText(null, calibrateSections({ ...result, warnings: [] }, input, extent), style),
      report: { title: `Calibration of ${input}`, sections: calibrateSections(result, input, "all") },
      notes: result.warnings.map((warning) => `warning: ${warning}`),
    };
  } finally {
    progress.stop();
  }
}
