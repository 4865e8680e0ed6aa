import { resolveConfig } from "../../config/resolve.js";
import { Session } from "../../engine/session.js";
import { type ExportDtype, exportNative } from "../../quantize/export.js";
import { formatBytes, formatSeconds } from "../../report/figures.js";
import { EMPTY_BODY } from "../../report/json.js";
import type { Section } from "../../report/sections.js";
import { renderText } from "../../report/text.js";
import type { Command, Invocation, Outcome } from "../command.js";
import { openProgress } from "../progress.js";
import { DISPLAY_FLAGS, ENGINE_FLAGS, FORCE_FLAG, OUTPUT_GROUP, refuseDash } from "../settings.js";

async function run({ args, flags, settings, terminal, signal }: Invocation): Promise<Outcome> {
  const input = refuseDash(args[0] as string, "NATIVE");
  const output = refuseDash(flags["output"] as string, "--output");
  const dtype = (flags["dtype"] as string).toUpperCase() as ExportDtype;
  const { values } = await resolveConfig({ flags: settings, environment: process.env });
  await using session = new Session({ threads: values.num_threads ?? undefined, memoryBytes: values.memory });
  const progress = await openProgress(terminal, "exporting");
  try {
    const result = await exportNative(
      { input, output, dtype, force: flags["force"] === true, signal, onProgress: (event) => progress.update(event) },
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

export const exportCommand: Command = {
  name: "export",
  description:
    "Every tensor of the quantized file comes back under its own name and shape: quantized and floating-point ones " +
    "in the type asked for, all others as they are.",
  args: [{ name: "NATIVE", description: "A .parquet file that quantize wrote, or a plain Parquet V2 file" }],
  flags: [
    {
      name: "output",
      short: "o",
      value: "file",
      required: true,
      description: "A .safetensors file",
      group: OUTPUT_GROUP,
    },
    {
      name: "dtype",
      choices: ["f32", "f16", "bf16"],
      required: true,
      description: "Type of the rebuilt weights",
      group: OUTPUT_GROUP,
    },
    FORCE_FLAG,
    ...ENGINE_FLAGS,
    ...DISPLAY_FLAGS,
  ],
  examples: [
    {
      description: "Weights that PyTorch loads, as float16",
      command: "arrowquant export my-model-int4.parquet -o my-model-int4.safetensors --dtype f16",
    },
  ],
  run,
};
