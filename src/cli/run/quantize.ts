import { Session } from "../../engine/session.js";
import { planModel, quantizeModel } from "../../quantize/quantize.js";
import type { QuantizePlan } from "../../quantize/result.js";
import { planBody, quantizeBody } from "../../report/json.js";
import { planSections } from "../../report/plan.js";
import { quantizeSections } from "../../report/quantize.js";
import { renderText } from "../../report/text.js";
import type { Invocation, Outcome } from "../command.js";
import { refuseDash } from "../paths.js";
import { openProgress } from "../progress.js";
import { resolveInvocation } from "../resolve.js";

function planOutcome(plan: QuantizePlan): Outcome {
  const all = [...plan.warnings, ...plan.components.flatMap((component) => component.warnings)];
  return {
    body: { ...planBody(plan), warnings: all },
    text: (style) => renderText(null, planSections(plan), style),
    report: { title: `Plan for ${plan.input}`, sections: planSections(plan) },
    notes: all.map((warning) => `warning: ${warning}`),
  };
}

export async function runQuantize(invocation: Invocation): Promise<Outcome> {
  const { args, flags, terminal, signal } = invocation;
  const input = refuseDash(args[0] as string, "MODEL");
  const config = await resolveInvocation(invocation);
  const { values } = config;
  if (flags["dry-run"] === true) return planOutcome(await planModel({ input, config }));

  const output = refuseDash(flags.output as string, "--output");
  await using session = new Session({ threads: values.num_threads ?? undefined, memoryBytes: values.memory });
  const progress = await openProgress(terminal, "quantizing");
  try {
    const result = await quantizeModel(
      {
        input,
        output,
        config,
        force: flags.force === true,
        resume: flags.resume === true,
        signal,
        onProgress: (event) => {
          progress.label(`quantizing ${event.component}`.trimEnd());
          progress.update(event);
        },
      },
      session,
    );
    return {
      body: quantizeBody(result),
      text: (style) => {
        // Warnings are among the notes on stderr.
        const sections = quantizeSections({ ...result, warnings: [] }, terminal.verbose ? "all" : "worst");
        return renderText(null, sections, style);
      },
      report: { title: `Quantization of ${input}`, sections: quantizeSections(result, "all") },
      notes: result.warnings.map((warning) => `warning: ${warning}`),
    };
  } finally {
    progress.stop();
  }
}
