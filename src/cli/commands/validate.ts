import { resolveConfig } from "../../config/resolve.js";
import { Session } from "../../engine/session.js";
import { ArrowQuantError } from "../../errors.js";
import { validateBody } from "../../report/json.js";
import { renderText } from "../../report/text.js";
import { validateSections, validateVerdict } from "../../report/validate.js";
import type { ValidateResult } from "../../validate/result.js";
import { validateModel } from "../../validate/validate.js";
import type { Command, Invocation, Outcome } from "../command.js";
import { openProgress } from "../progress.js";
import { DISPLAY_FLAGS, ENGINE_FLAGS, refuseDash, REPORT_FLAG, SETTING_FLAGS } from "../settings.js";

/** Layers named in an error's message; the others stand in the tables. */
const MAX_NAMED = 3;

function nameSome(names: readonly string[]): string {
  const shown = names.slice(0, MAX_NAMED).map((name) => JSON.stringify(name));
  return names.length > shown.length ? `${shown.join(", ")} and ${names.length - shown.length} more` : shown.join(", ");
}

/** The error that a result with `passed: false` ends the command with. */
function validationFailure(result: ValidateResult): ArrowQuantError | null {
  if (result.passed) return null;
  const { missing, extra, misshapen } = result;
  const failed = result.layers.filter((layer) => !layer.passed);
  const changed = failed.filter((layer) => layer.metrics === null).map(({ name }) => name);
  const mismatches = [
    ["missing", missing],
    ["extra", extra],
    ["of another shape or type", misshapen],
    ["kept but changed", changed],
  ] as const;
  const found = mismatches.filter(([, names]) => names.length > 0);
  if (found.length > 0) {
    const parts = found.map(([what, names]) => `${names.length} ${what} (${nameSome(names)})`);
    return new ArrowQuantError("E_MISMATCH", `layers do not match: ${parts.join("; ")}`, {
      hint: "is this the model that the file was quantized from?",
      details: { missing, extra, misshapen, changed },
    });
  }
  const below = failed.map(({ name, metrics, threshold }) => ({
    name,
    cosine_similarity: metrics?.cosineSimilarity ?? null,
    threshold,
  }));
  return new ArrowQuantError(
    "E_QUALITY",
    `${validateVerdict(result).replace(/^failed: /, "")}: ${nameSome(below.map(({ name }) => name))}`,
    { hint: "quantize with more bits or a smaller group, or set --min-accuracy", details: { layers: below } },
  );
}

async function run({ args, flags, settings, terminal, signal }: Invocation): Promise<Outcome> {
  const original = refuseDash(args[0] as string, "ORIGINAL");
  const quantized = refuseDash(args[1] as string, "QUANTIZED");
  const { values } = await resolveConfig({ flags: settings, environment: process.env });
  const minAccuracy = flags["min-accuracy"] === undefined ? {} : { minAccuracy: values.min_accuracy };
  await using session = new Session({ threads: values.num_threads ?? undefined, memoryBytes: values.memory });
  const progress = await openProgress(terminal, "validating");
  try {
    const result = await validateModel(
      {
        original,
        quantized,
        ...minAccuracy,
        ...(values.variant === null ? {} : { variant: values.variant }),
        signal,
        onProgress: (event) => progress.update(event),
      },
      session,
    );
    const failure = validationFailure(result);
    return {
      body: validateBody(result),
      text: (style) => renderText(null, validateSections(result, "worst"), style),
      report: { title: `Validation of ${quantized}`, sections: validateSections(result, "all") },
      notes: result.warnings.map((warning) => `warning: ${warning}`),
      ...(failure === null ? {} : { failure }),
    };
  } finally {
    progress.stop();
  }
}

export const validate: Command = {
  name: "validate",
  description:
    "Reads the quantized file back from disk, checks its checksums, rebuilds every tensor and compares it with the " +
    "original. Ends with exit code 4 if a layer is below its threshold (0.70, 0.90, 0.95 at 2, 4, 8 bits, unless " +
    "--min-accuracy says otherwise), missing, extra, of another shape, or kept but changed.",
  args: [
    { name: "ORIGINAL", description: "The model that was quantized: a file, component or pipeline folder" },
    { name: "QUANTIZED", description: "The .parquet file, or the folder of one per component" },
  ],
  flags: [
    ...SETTING_FLAGS.filter(({ name }) => name === "min-accuracy").map((flag) => ({
      ...flag,
      description: "Least cosine similarity of every layer, instead of the thresholds by bit width",
    })),
    ...SETTING_FLAGS.filter(({ name }) => name === "variant"),
    REPORT_FLAG,
    ...ENGINE_FLAGS,
    ...DISPLAY_FLAGS,
  ],
  examples: [
    {
      description: "Prove what quantize wrote",
      command: "arrowquant validate ./my-model ./my-model-int4.parquet",
    },
    {
      description: "Hold every layer to 0.98 and keep the figures",
      command: "arrowquant validate ./my-model ./my-model-int4.parquet --min-accuracy 0.98 --report report.md",
    },
  ],
  run,
};
