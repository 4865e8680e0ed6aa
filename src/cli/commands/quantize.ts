import { loadConfigFile } from "../../config/file.js";
import { resolveConfig } from "../../config/resolve.js";
import { Session } from "../../engine/session.js";
import { planModel, quantizeModel } from "../../quantize/quantize.js";
import type { QuantizePlan } from "../../quantize/result.js";
import { planBody, quantizeBody } from "../../report/json.js";
import { planSections } from "../../report/plan.js";
import { quantizeSections } from "../../report/quantize.js";
import { renderText } from "../../report/text.js";
import type { Command, Invocation, Outcome } from "../command.js";
import { openProgress } from "../progress.js";
import {
  CONFIG_FLAG,
  DISPLAY_FLAGS,
  ENGINE_FLAGS,
  FAIL_FAST_FLAG,
  FORCE_FLAG,
  OUTPUT_GROUP,
  refuseDash,
  REPORT_FLAG,
  SETTING_FLAGS,
} from "../settings.js";

function planOutcome(plan: QuantizePlan): Outcome {
  const all = [...plan.warnings, ...plan.components.flatMap((component) => component.warnings)];
  return {
    body: { ...planBody(plan), warnings: all },
    text: (style) => renderText(null, planSections(plan), style),
    report: { title: `Plan for ${plan.input}`, sections: planSections(plan) },
    notes: all.map((warning) => `warning: ${warning}`),
  };
}

async function run({ args, flags, settings, terminal, signal }: Invocation): Promise<Outcome> {
  const input = refuseDash(args[0] as string, "MODEL");
  const configPath = flags["config"] as string | undefined;
  const file = configPath === undefined ? {} : { file: await loadConfigFile(configPath) };
  const config = await resolveConfig({ flags: settings, environment: process.env, ...file });
  const { values } = config;
  if (flags["dry-run"] === true) return planOutcome(await planModel({ input, config }));

  const output = refuseDash(flags["output"] as string, "--output");
  await using session = new Session({ threads: values.num_threads ?? undefined, memoryBytes: values.memory });
  const progress = await openProgress(terminal, "quantizing");
  try {
    const result = await quantizeModel(
      {
        input,
        output,
        config,
        force: flags["force"] === true,
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
      text: (style) => renderText(null, quantizeSections(result, "worst"), style),
      report: { title: `Quantization of ${input}`, sections: quantizeSections(result, "all") },
      notes: result.warnings.map((warning) => `warning: ${warning}`),
    };
  } finally {
    progress.stop();
  }
}

export const quantize: Command = {
  name: "quantize",
  description:
    "MODEL is a .safetensors file, a folder with a sharded set and its index, a diffusers component folder or a " +
    "diffusers pipeline folder, whose denoiser is quantized unless --components says otherwise.\n" +
    "A layer whose cosine similarity falls below --min-accuracy falls back, alone, to the next width (2, 4, 8 bits, " +
    "then kept). With --fail-fast the first such layer ends the run with exit code 4 and without output.\n" +
    "Flags go before environment variables (ARROW_QUANT_BIT_WIDTH, ...), those before the file of --config, that " +
    "before the profile; arrowquant config show prints what results.",
  args: [{ name: "MODEL", description: "A model file or folder" }],
  flags: [
    {
      name: "output",
      short: "o",
      value: "path",
      required: true,
      unless: "dry-run",
      description: "A .parquet file for one component, a folder for several",
      group: OUTPUT_GROUP,
    },
    { name: "dry-run", description: "Show the plan, from headers alone, and stop", group: OUTPUT_GROUP },
    REPORT_FLAG,
    FORCE_FLAG,
    CONFIG_FLAG,
    ...SETTING_FLAGS,
    FAIL_FAST_FLAG,
    ...ENGINE_FLAGS,
    ...DISPLAY_FLAGS,
  ],
  examples: [
    { description: "4 bits, the usual settings", command: "arrowquant quantize ./my-model -o my-model-int4.parquet" },
    {
      description: "See first what would be done, and why",
      command: "arrowquant quantize ./my-model -o my-model-int2.parquet --bit-width 2 --dry-run",
    },
    {
      description: "2 bits in small groups, one kind of layer at 8 bits",
      command:
        "arrowquant quantize ./my-model -o out.parquet -b 2 -g 32 --layer-bits 'norm1\\.linear=8' --report report.md",
    },
  ],
  run,
};
