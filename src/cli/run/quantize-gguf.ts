import type { ProgressEvent } from "../../engine/progress.js";
import { Session } from "../../engine/session.js";
import { ArrowQuantError } from "../../errors.js";
import type { GgufResult } from "../../quantize/gguf/job.js";
import { planGguf, quantizeGguf } from "../../quantize/gguf/quantize.js";
import { ggufBody, ggufPlanBody, ggufPlanSections, ggufSections } from "../../report/gguf.js";
import { validateBody } from "../../report/json.js";
import { renderText } from "../../report/text.js";
import { validateSections } from "../../report/validate.js";
import type { ValidateResult } from "../../validate/result.js";
import { validateModel } from "../../validate/validate.js";
import type { Invocation, Outcome } from "../command.js";
import { readGgufOptions } from "../gguf-flags.js";
import { refuseDash } from "../paths.js";
import { openProgress } from "../progress.js";
import { resolveInvocation } from "../resolve.js";
import { readRoles } from "../role-flags.js";
import { validationFailure } from "./validate.js";

/** Flags of `quantize` that GGUF has nothing for, and why. */
const FOREIGN_FLAGS = {
  resume: "a GGUF output is written in one go",
  plan: "a plan file is of bits and groups, a GGUF type settles both",
} as const;

export async function runQuantizeGguf(invocation: Invocation): Promise<Outcome> {
  const { args, flags, terminal, signal } = invocation;
  const input = refuseDash(args[0] as string, "MODEL");
  refuseForeign(flags);
  const options = readGgufOptions(flags);
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
    if (flags["dry-run"] === true) {
      const plan = await planGguf({ input, ...options, config, roles, signal, onProgress }, session);
      return {
        body: ggufPlanBody(plan),
        text: (style) => renderText(null, ggufPlanSections(plan), style),
        report: { title: `Plan for ${input}`, sections: ggufPlanSections(plan) },
        notes: plan.warnings.map((warning) => `warning: ${warning}`),
      };
    }
    const output = refuseDash(flags["output"] as string, "--output");
    const force = flags["force"] === true;
    const result = await quantizeGguf({ input, output, ...options, config, roles, force, signal, onProgress }, session);
    const variant = values.variant === null ? {} : { variant: values.variant };
    const validation =
      flags["validate"] === undefined
        ? null
        : await validateModel({ original: input, quantized: result.output, ...variant, signal, onProgress }, session);
    return outcomeOf(input, result, validation, terminal.verbose ? "all" : "worst");
  } finally {
    progress.stop();
  }
}

/** What the progress is called in each phase; "quantizing" otherwise. */
const PHASE_LABELS: Partial<Record<ProgressEvent["phase"], string>> = {
  sample: "sampling",
  calibrate: "calibrating",
  validate: "validating",
};

/** @throws E_CONFLICT */
function refuseForeign(flags: Readonly<Record<string, unknown>>): void {
  const refuse = (flag: string, because: string): ArrowQuantError =>
    new ArrowQuantError("E_CONFLICT", `--${flag} has no meaning for a GGUF output: ${because}`, {
      hint: "leave it out",
      details: { flag },
    });
  for (const [flag, because] of Object.entries(FOREIGN_FLAGS)) {
    if (flags[flag] !== undefined && flags[flag] !== false) throw refuse(flag, because);
  }
  if (flags["validate"] === "run") throw refuse("validate run", "ONNX Runtime runs native files; validate layers");
}

function outcomeOf(
  input: string,
  result: GgufResult,
  validation: ValidateResult | null,
  extent: "worst" | "all",
): Outcome {
  const failure = validation === null ? null : validationFailure(validation);
  // Warnings are among the notes on stderr.
  const sections = (shown: "worst" | "all", warnings: readonly string[]) => [
    ...ggufSections({ ...result, warnings }, shown),
    ...(validation === null ? [] : validateSections({ ...validation, warnings: [] }, shown)),
  ];
  return {
    body: { ...ggufBody(result), ...(validation === null ? {} : { validation: validateBody(validation) }) },
    text: (style) => renderText(null, sections(extent, []), style),
    report: { title: `Quantization of ${input}`, sections: sections("all", result.warnings) },
    notes: [...result.warnings, ...(validation?.warnings ?? [])].map((warning) => `warning: ${warning}`),
    ...(failure === null ? {} : { failure }),
  };
}
