import type { ProgressEvent } from "../../engine/progress.js";
import { Session } from "../../engine/session.js";
import { quantizeInto } from "../../quantize/output-format.js";
import { planModel } from "../../quantize/quantize.js";
import type { QuantizeResult } from "../../quantize/result.js";
import { exportedJson, exportedSections } from "../../report/exported.js";
import { quantizeBody, validateBody } from "../../report/json.js";
import { quantizeSections } from "../../report/quantize.js";
import { renderText } from "../../report/text.js";
import { validateSections } from "../../report/validate.js";
import type { ValidateResult } from "../../validate/result.js";
import { validateModel } from "../../validate/validate.js";
import type { Invocation, Outcome } from "../command.js";
import { GGUF_FLAG_NAMES } from "../gguf-flags.js";
import { type FormatFlags, readOutputFormat } from "../output-format.js";
import { refuseDash } from "../paths.js";
import { openProgress } from "../progress.js";
import { resolveInvocation } from "../resolve.js";
import { readRoles } from "../role-flags.js";
import { readDtype } from "../safetensors-flags.js";
import { phaseLabel } from "./phase.js";
import { planOutcome } from "./plan.js";
import { validationFailure } from "./validate.js";

export async function runQuantize(invocation: Invocation): Promise<Outcome> {
  const { args, flags, terminal, signal } = invocation;
  const format = readOutputFormat(flags, OWN_FLAGS, "native");
  // Its types settle what bits, groups and methods do elsewhere: a plan and a result of its own.
  if (format === "gguf") return (await import("./quantize-gguf.js")).runQuantizeGguf(invocation);
  const input = refuseDash(args[0] as string, "MODEL");
  const config = await resolveInvocation(invocation);
  const { values } = config;
  const roles = readRoles(flags);
  await using session = new Session({ threads: values.num_threads ?? undefined, memoryBytes: values.memory });
  const progress = await openProgress(terminal, "quantizing");
  const onProgress = (event: ProgressEvent) => {
    progress.label(`${phaseLabel(event.phase) ?? "quantizing"} ${event.component}`.trimEnd());
    progress.update(event);
  };
  try {
    const plan = flags.plan as string | undefined;
    if (flags["dry-run"] === true) {
      return planOutcome(await planModel({ input, config, plan, roles, signal, onProgress }, session), null);
    }
    const output = refuseDash(flags.output as string, "--output");
    let validation: ValidateResult | null = null;
    const validateNative = async (quantized: string): Promise<void> => {
      if (flags.validate === undefined) return;
      const { variant, graph } = values;
      const run = flags.validate === "run" ? { graph, roles } : undefined;
      validation = await validateModel(
        { original: input, quantized, ...(variant === null ? {} : { variant }), run, signal, onProgress },
        session,
      );
    };
    const result = await quantizeInto(
      {
        input,
        output,
        format,
        dtype: readDtype(flags),
        packed: flags.packed === true,
        activations: flags.activations === true,
        config,
        plan,
        roles,
        force: flags.force === true,
        resume: flags.resume === true,
        signal,
        onProgress,
      },
      session,
      { onNative: validateNative },
    );
    if (result.exported === null) await validateNative(result.output);
    return quantizeOutcome(input, result, validation, terminal.verbose ? "all" : "worst");
  } finally {
    progress.stop();
  }
}

/** Flags that have a meaning for one format of the output. */
const OWN_FLAGS: FormatFlags = {
  native: ["plan"],
  onnx: ["activations", "dtype", "plan"],
  safetensors: ["dtype", "packed", "plan"],
  gguf: GGUF_FLAG_NAMES,
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
    ...exportedSections(result.exported, input, shown),
    ...(validation === null ? [] : validateSections({ ...validation, warnings: [] }, shown)),
  ];
  return {
    body: {
      ...quantizeBody(result),
      exported: exportedJson(result.exported),
      ...(validation === null ? {} : { validation: validateBody(validation) }),
    },
    text: (style) => renderText(null, sections(extent, []), style),
    report: { title: `Quantization of ${input}`, sections: sections("all", result.warnings) },
    notes: [...result.warnings, ...(validation?.warnings ?? [])].map((warning) => `warning: ${warning}`),
    ...(failure === null ? {} : { failure }),
  };
}
