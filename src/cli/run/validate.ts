import { Session } from "../../engine/session.js";
import { ArrowQuantError } from "../../errors.js";
import { validateBody } from "../../report/json.js";
import { renderText } from "../../report/text.js";
import { validateSections, validateVerdict } from "../../report/validate.js";
import type { ValidateResult } from "../../validate/result.js";
import type { RunResult } from "../../validate/run-result.js";
import { validateModel } from "../../validate/validate.js";
import type { Invocation, Outcome } from "../command.js";
import { refuseDash } from "../paths.js";
import { openProgress } from "../progress.js";
import { resolveInvocation } from "../resolve.js";
import { readRunOptions } from "../run-flags.js";

/** Layers named in an error's message; the others stand in the tables. */
const MAX_NAMED = 3;

function nameSome(names: readonly string[]): string {
  const shown = names.slice(0, MAX_NAMED).map((name) => JSON.stringify(name));
  return names.length > shown.length ? `${shown.join(", ")} and ${names.length - shown.length} more` : shown.join(", ");
}

/** The error that a result with `passed: false` ends the command with. */
export function validationFailure(result: ValidateResult): ArrowQuantError | null {
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
  if (failed.length === 0 && result.run !== null) return runFailure(result.run);
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

/** The error of a run that differs too much. */
function runFailure({ variants }: RunResult): ArrowQuantError {
  const shown = variants.map(
    ({ quantized, predictionError, psnrDb }) =>
      `${quantized}: prediction error ${predictionError.toFixed(4)}` +
      (psnrDb === null ? "" : `, PSNR ${psnrDb.toFixed(1)} dB`),
  );
  return new ArrowQuantError("E_QUALITY", `the quantized model predicts too differently (${shown.join("; ")})`, {
    hint: "quantize with more bits, a smaller group or --calibration, or set --max-prediction-error and --min-psnr",
    details: {
      variants: variants.map(({ quantized, predictionError, psnrDb }) => ({
        quantized,
        prediction_error: predictionError,
        psnr_db: psnrDb,
      })),
    },
  });
}

export async function runValidate(invocation: Invocation): Promise<Outcome> {
  const { args, flags, terminal, signal } = invocation;
  const original = refuseDash(args[0] as string, "ORIGINAL");
  const quantized = refuseDash(args[1] as string, "QUANTIZED");
  const { values } = await resolveInvocation(invocation);
  const run = readRunOptions(flags);
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
        run,
        signal,
        onProgress: (event) => progress.update(event),
      },
      session,
    );
    const failure = validationFailure(result);
    return {
      body: validateBody(result),
      text: (style) => {
        // Warnings are among the notes on stderr.
        const sections = validateSections({ ...result, warnings: [] }, terminal.verbose ? "all" : "worst");
        return renderText(null, sections, style);
      },
      report: { title: `Validation of ${quantized}`, sections: validateSections(result, "all") },
      notes: result.warnings.map((warning) => `warning: ${warning}`),
      ...(failure === null ? {} : { failure }),
    };
  } finally {
    progress.stop();
  }
}
