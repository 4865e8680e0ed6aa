import { Session } from "../../engine/session.js";
import { type ExportDtype, exportNative } from "../../quantize/export.js";
import { formatBytes, formatSeconds } from "../../report/figures.js";
import { EMPTY_BODY } from "../../report/json.js";
import type { Section } from "../../report/sections.js";
import { renderText } from "../../report/text.js";
import type { Invocation, Outcome } from "../command.js";
import { refuseDash } from "../paths.js";
import { openProgress } from "../progress.js";
import { resolveInvocation } from "../resolve.js";

export async function runExport(invocation: Invocation): Promise<Outcome> {
  const { args, flags, terminal, signal } = invocation;
  const input = refuseDash(args[0] as string, "NATIVE");
  const output = refuseDash(flags.output as string, "--output");
  const dtype = (flags.dtype as string).toUpperCase() as ExportDtype;
  const { values } = await resolveInvocation(invocation);
  await using session = new Session({ threads: values.num_threads ?? undefined, memoryBytes: values.memory });
  const progress = await openProgress(terminal, "exporting");
  try {
    const result = await exportNative(
      { input, output, dtype, force: flags.force === true, signal, onProgress: (event) => progress.update(event) },
      session,
    );
    const sections: Section[] = [
      {
        kind: "facts",
        facts: [
          ["input", input],
          ["output", result.output],
          ["tensors", `${result.tensors}, floating-point ones as ${dtype}`],
          ["size", formatBytes(result.bytesOut)],
          ["time", formatSeconds(result.seconds)],
        ],
      },
    ];
    return {
      body: {
        ...EMPTY_BODY,
        output: result.output,
        summary: { tensors: result.tensors, bytes_out: result.bytesOut, seconds: result.seconds, dtype },
        warnings: result.warnings,
      },
      text: (style) => renderText(null, sections, style),
      notes: result.warnings.map((warning) => `warning: ${warning}`),
    };
  } finally {
    progress.stop();
  }
}
