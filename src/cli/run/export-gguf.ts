import { Session } from "../../engine/session.js";
import { exportGguf } from "../../quantize/gguf/export.js";
import { ggufBody, ggufSections } from "../../report/gguf.js";
import { renderText } from "../../report/text.js";
import type { Invocation, Outcome } from "../command.js";
import { readGgufOptions } from "../gguf-flags.js";
import { refuseDash } from "../paths.js";
import { openProgress } from "../progress.js";
import { resolveInvocation } from "../resolve.js";

export async function runExportGguf(invocation: Invocation): Promise<Outcome> {
  const { args, flags, terminal, signal } = invocation;
  const input = refuseDash(args[0] as string, "NATIVE");
  const output = refuseDash(flags["output"] as string, "--output");
  const options = readGgufOptions(flags);
  const { values } = await resolveInvocation(invocation);
  await using session = new Session({ threads: values.num_threads ?? undefined, memoryBytes: values.memory });
  const progress = await openProgress(terminal, "exporting");
  try {
    const result = await exportGguf(
      {
        input,
        output,
        ...options,
        allowRequantize: values.allow_requantize,
        force: flags["force"] === true,
        signal,
        onProgress: (event) => progress.update(event),
      },
      session,
    );
    const sections = ggufSections({ ...result, warnings: [] }, terminal.verbose ? "all" : "worst");
    return {
      body: ggufBody(result),
      text: (style) => renderText(null, sections, style),
      notes: result.warnings.map((warning) => `warning: ${warning}`),
    };
  } finally {
    progress.stop();
  }
}
