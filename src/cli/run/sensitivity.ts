import type { ProgressEvent } from "../../engine/progress.js";
import { Session } from "../../engine/session.js";
import type { SensitivityKind } from "../../plan/plan.js";
import { measureModel } from "../../quantize/sensitivity/sensitivity.js";
import { sensitivityBody, sensitivitySections } from "../../report/sensitivity.js";
import { renderText } from "../../report/text.js";
import type { Invocation, Outcome } from "../command.js";
import { refuseDash } from "../paths.js";
import { openProgress } from "../progress.js";
import { checkNewFile, writeNewFile } from "../report.js";
import { resolveInvocation } from "../resolve.js";
import { readRoles } from "../role-flags.js";

/** What the progress is called in each phase; "measuring" otherwise. */
const PHASE_LABELS: Partial<Record<ProgressEvent["phase"], string>> = {
  sample: "sampling",
  calibrate: "calibrating",
  run: "running",
};

export async function runSensitivity(invocation: Invocation): Promise<Outcome> {
  const { args, flags, terminal, signal } = invocation;
  const input = refuseDash(args[0] as string, "MODEL");
  const output = flags.output === undefined ? null : refuseDash(flags.output as string, "--output");
  const force = flags.force === true;
  const config = await resolveInvocation(invocation);
  if (output !== null) await checkNewFile(output, force);
  const { values } = config;
  await using session = new Session({ threads: values.num_threads ?? undefined, memoryBytes: values.memory });
  const progress = await openProgress(terminal, "measuring");
  try {
    const result = await measureModel(
      {
        input,
        config,
        roles: readRoles(flags),
        fresh: flags.fresh === true,
        ...(flags.kinds === undefined ? {} : { kinds: flags.kinds as readonly SensitivityKind[] }),
        signal,
        onProgress: (event) => {
          progress.label(`${PHASE_LABELS[event.phase] ?? "measuring"} ${event.component}`.trimEnd());
          progress.update(event);
        },
      },
      session,
    );
    const body = sensitivityBody(result, output);
    if (output !== null) await writeNewFile(output, `${JSON.stringify(body, null, 2)}\n`, force);
    const extent = terminal.verbose ? "all" : "some";
    return {
      body,
      text: (style) => renderText(null, sensitivitySections({ ...result, warnings: [] }, extent), style),
      report: { title: `Sensitivity of ${input}`, sections: sensitivitySections(result, "all") },
      notes: result.warnings.map((warning) => `warning: ${warning}`),
    };
  } finally {
    progress.stop();
  }
}
