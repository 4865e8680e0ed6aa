import type { ProgressEvent } from "../../engine/progress.js";
import { Session } from "../../engine/session.js";
import { writePlanText } from "../../quantize/plan-text.js";
import type { QuantizePlan } from "../../quantize/result.js";
import { planBody } from "../../report/json.js";
import { planSections } from "../../report/plan.js";
import { renderText } from "../../report/text.js";
import type { Invocation, Outcome } from "../command.js";
import { refuseDash } from "../paths.js";
import { openProgress } from "../progress.js";
import { writeNewFile } from "../report.js";
import { resolveInvocation } from "../resolve.js";
import { readRoles } from "../role-flags.js";
import { phaseLabel } from "./phase.js";

/** @param output the plan file that was written; null: none */
export function planOutcome(plan: QuantizePlan, output: string | null): Outcome {
  const all = [...plan.warnings, ...plan.components.flatMap((component) => component.warnings)];
  const written = output === null ? [] : [{ kind: "facts", facts: [["plan file", output]] } as const];
  return {
    body: { ...planBody(plan), output, warnings: all },
    text: (style) => renderText(null, [...planSections(plan, "worst"), ...written], style),
    report: { title: `Plan for ${plan.input}`, sections: planSections(plan, "all") },
    notes: all.map((warning) => `warning: ${warning}`),
  };
}

export async function runPlan(invocation: Invocation): Promise<Outcome> {
  const { args, flags, terminal, signal } = invocation;
  const input = refuseDash(args[0] as string, "MODEL");
  const output = refuseDash(flags.output as string, "--output");
  const config = await resolveInvocation(invocation);
  const { values } = config;
  await using session = new Session({ threads: values.num_threads ?? undefined, memoryBytes: values.memory });
  const progress = await openProgress(terminal, "planning");
  try {
    const onProgress = (event: ProgressEvent) => {
      progress.label(`${phaseLabel(event.phase) ?? "planning"} ${event.component}`.trimEnd());
      progress.update(event);
    };
    const { plan, text } = await writePlanText({ input, config, roles: readRoles(flags), signal, onProgress }, session);
    await writeNewFile(output, text, flags.force === true);
    return planOutcome(plan, output);
  } finally {
    progress.stop();
  }
}
