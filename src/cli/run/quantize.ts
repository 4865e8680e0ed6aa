import type { ProgressEvent } from "../../engine/progress.js";
import { Session } from "../../engine/session.js";
import { planModel, quantizeModel } from "../../quantize/quantize.js";
import type { QuantizePlan, QuantizeResult } from "../../quantize/result.js";
import { planBody, quantizeBody, validateBody } from "../../report/json.js";
import { planSections } from "../../report/plan.js";
import { quantizeSections } from "../../report/quantize.js";
import { renderText } from "../../report/text.js";
import { validateSections } from "../../report/validate.js";
import type { ValidateResult } from "../../validate/result.js";
import { validateModel } from "../../validate/validate.js";
import type { Invocation, Outcome } from "../command.js";
import { refuseDash } from "../paths.js";
import { openProgress } from "../progress.js";
import { resolveInvocation } from "../resolve.js";
import { readRoles } from "../role-flags.js";
import { validationFailure } from "./validate.js";

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
  const roles = readRoles(flags);
  await using session = new Session({ threads: values.num_threads ?? undefined, memoryBytes: values.memory });
  const progress = await openProgress(terminal, "quantizing");
  const onProgress = (event: ProgressEvent) => {
    progress.label(`${PHASE_LABELS[event.phase] ?? "quantizing"} ${event.component}`.trimEnd());
    progress.update(event);
  };
  try {
    if (flags["dry-run"] === true)
      return planOutcome(await planModel({ input, config, roles, signal, onProgress }, session));
    const output = refuseDash(flags.output as string, "--output");
    const result = await quantizeModel(
      { input, output, config, roles, force: flags.force === true, resume: flags.resume === true, signal, onProgress },
      session,
    );
    const validation =
      flags.validate === undefined
        ? null
        : await validateModel(
            {
              original: input,
              quantized: result.output,
              ...(values.variant === null ? {} : { variant: values.variant }),
              run: flags.validate === "run" ? { graph: values.graph, roles } : undefined,
              signal,
              onProgress,
            },
            session,
          );
    return quantizeOutcome(input, result, validation, terminal.verbose ? "all" : "worst");
  } finally {
    progress.stop();
  }
}

/** What the progress is called in each phase; "quantizing" otherwise. */
const PHASE_LABELS: Partial<Record<ProgressEvent["phase"], string>> = {
  sample: "sampling",
  calibrate: "calibrating",
  validate: "validating",
  run: "running",
};

function quantizeOutcome(
  input: string,
  result: QuantizeResult,
  validation: ValidateResult | null,
  extent: "worst" | "all",
): Outcome {
  const failure = validation === null ? null : validationFailure(validation);
  // Warnings are among the notes on stderr.
  const sections = (shown: "worst" | "all", warnings: readonly string[]) => [
    ...quantizeSections({ ...result, warnings }, shown),
    ...(validation === null ? [] : validateSections({ ...validation, warnings: [] }, shown)),
  ];
  return {
    body: { ...quantizeBody(result), ...(validation === null ? {} : { validation: validateBody(validation) }) },
    text: (style) => renderText(null, sections(extent, []), style),
    report: { title: `Quantization of ${input}`, sections: sections("all", result.warnings) },
    notes: [...result.warnings, ...(validation?.warnings ?? [])].map((warning) => `warning: ${warning}`),
    ...(failure === null ? {} : { failure }),
  };
}
