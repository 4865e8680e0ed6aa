import { Session } from "../../engine/session.js";
import { ArrowQuantError } from "../../errors.js";
import { exportNative } from "../../quantize/export.js";
import { exportBody, exportSections } from "../../report/export.js";
import { renderText } from "../../report/text.js";
import type { Invocation, Outcome } from "../command.js";
import { refuseDash } from "../paths.js";
import { openProgress } from "../progress.js";
import { resolveInvocation } from "../resolve.js";
import { readDtype } from "../safetensors-flags.js";

export async function runExport(invocation: Invocation): Promise<Outcome> {
  const { args, flags, terminal, signal } = invocation;
  const input = refuseDash(args[0] as string, "NATIVE");
  const output = refuseDash(flags.output as string, "--output");
  const like = flags.like === undefined ? undefined : refuseDash(flags.like as string, "--like");
  const dtype = readDtype(flags);
  if (dtype === undefined) {
    throw new ArrowQuantError("E_USAGE", "--dtype is missing", {
      hint: "f32, f16 or bf16; an ONNX output, which needs none, ends in .onnx",
      details: { flag: "dtype" },
    });
  }
  const { values } = await resolveInvocation(invocation);
  await using session = new Session({ threads: values.num_threads ?? undefined, memoryBytes: values.memory });
  const progress = await openProgress(terminal, "exporting");
  try {
    const result = await exportNative(
      {
        input,
        output,
        dtype,
        like,
        // A variant set for quantize, in the environment, has nothing to say where there is no original.
        variant: like === undefined && flags.variant === undefined ? undefined : (values.variant ?? undefined),
        packed: flags.packed === true,
        maxShardBytes: flags["max-shard-size"] as number | undefined,
        force: flags.force === true,
        signal,
        onProgress: (event) => progress.update(event),
      },
      session,
    );
    const sections = exportSections(result, { input, dtype, showAll: terminal.verbose });
    return {
      body: exportBody(result, dtype),
      text: (style) => renderText(null, sections, style),
      notes: result.warnings.map((warning) => `warning: ${warning}`),
    };
  } finally {
    progress.stop();
  }
}
