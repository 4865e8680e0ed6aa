import { stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { Session } from "../../engine/session.js";
import { ArrowQuantError } from "../../errors.js";
import { exportOnnx } from "../../quantize/export-onnx.js";
import { onnxBody, onnxSections } from "../../report/export-onnx.js";
import { renderText } from "../../report/text.js";
import type { Invocation, Outcome } from "../command.js";
import { refuseDash } from "../paths.js";
import { openProgress } from "../progress.js";
import { resolveInvocation } from "../resolve.js";
import { readRoles } from "../role-flags.js";
import { readDtype } from "../safetensors-flags.js";

/** Files by which a folder is a model's. */
const MODEL_FILES = ["model_index.json", "config.json"] as const;

export async function runExportOnnx(invocation: Invocation): Promise<Outcome> {
  const { args, flags, terminal, signal } = invocation;
  const input = refuseDash(args[0] as string, "NATIVE");
  const output = refuseDash(flags["output"] as string, "--output");
  const graph = flags["graph"] as string | undefined;
  const original = (flags["original"] as string | undefined) ?? (await findOriginal(graph));
  const { values } = await resolveInvocation(invocation);
  await using session = new Session({ threads: values.num_threads ?? undefined, memoryBytes: values.memory });
  const progress = await openProgress(terminal, "exporting");
  try {
    const result = await exportOnnx(
      {
        input,
        output,
        original,
        graph,
        variant: values.variant ?? undefined,
        roles: readRoles(flags),
        dtype: readDtype(flags),
        activations: flags["activations"] === true,
        force: flags["force"] === true,
        signal,
        onProgress: (event) => progress.update(event),
      },
      session,
    );
    return {
      body: onnxBody(result),
      text: (style) => renderText(null, onnxSections(result, input), style),
      notes: result.warnings.map((warning) => `warning: ${warning}`),
    };
  } finally {
    progress.stop();
  }
}

/** The model whose folder the graph lies in, or in a folder of. */
async function findOriginal(graph: string | undefined): Promise<string> {
  const folder = graph === undefined ? null : dirname(resolve(graph));
  for (const candidate of folder === null ? [] : [folder, dirname(folder)]) {
    for (const name of MODEL_FILES) {
      if ((await stat(join(candidate, name)).catch(() => null))?.isFile()) return candidate;
    }
  }
  throw new ArrowQuantError("E_USAGE", "an ONNX output needs the original, whose graph it is written from", {
    hint: "give --original MODEL, and --graph model.onnx where the graph does not lie beside it",
    details: { graph: graph ?? null },
  });
}
