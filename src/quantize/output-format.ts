/** What a quantization can be written as: a closed table, chosen by the output's ending or by name. */
import type { Session } from "../engine/session.js";
import { ArrowQuantError } from "../errors.js";
import type { QuantizeWatcher } from "./quantize.js";
import type { QuantizeJob, QuantizeResult } from "./result.js";

export const OUTPUT_FORMAT_NAMES = ["native", "onnx", "safetensors", "gguf"] as const;
export type OutputFormatName = (typeof OUTPUT_FORMAT_NAMES)[number];

export interface OutputFormat {
  /** Of its files; an output with none of these endings is a folder. */
  readonly ending: string;
  readonly describes: string;
  /** Quantizes a model into this format. */
  readonly quantize: (job: QuantizeJob, session: Session, watcher: QuantizeWatcher) => Promise<QuantizeResult>;
}

export const OUTPUT_FORMATS: Readonly<Record<OutputFormatName, OutputFormat>> = {
  native: {
    ending: ".parquet",
    describes: "a .parquet file, or a folder of one per component",
    quantize: async (...args) => (await import("./quantize.js")).quantizeModel(...args),
  },
  onnx: {
    ending: ".onnx",
    describes: "an .onnx file, or a folder for it",
    quantize: async (...args) => (await import("./quantize-export.js")).quantizeIntoOnnx(...args),
  },
  safetensors: {
    ending: ".safetensors",
    describes: "a .safetensors file of rebuilt weights, or the model's folder again",
    quantize: async (...args) => (await import("./quantize-export.js")).quantizeIntoSafetensors(...args),
  },
  gguf: {
    ending: ".gguf",
    describes: "a .gguf file",
    quantize: async ({ output }) => {
      throw new ArrowQuantError("E_USAGE", `output ${output} is GGUF, which has types instead of bits and groups`, {
        hint: "quantize with --type; in programs by ArrowQuant.quantizeGguf",
        details: { output },
      });
    },
  },
};

/**
 * The format of an output: that of its ending, or of the name given, which must not contradict it; else `fallback`.
 * @throws E_CONFLICT
 */
export function chooseOutputFormat(
  output: string,
  given: OutputFormatName | undefined,
  fallback: OutputFormatName,
): OutputFormatName {
  const ending = output.toLowerCase();
  const evident = OUTPUT_FORMAT_NAMES.find((name) => ending.endsWith(OUTPUT_FORMATS[name].ending));
  if (evident !== undefined && given !== undefined && given !== evident) {
    throw new ArrowQuantError(
      "E_CONFLICT",
      `output ${output} is named as ${evident}, the format asked for is ${given}`,
      {
        hint: `${given} is ${OUTPUT_FORMATS[given].describes}`,
        details: { output, format: given, ending: OUTPUT_FORMATS[evident].ending },
      },
    );
  }
  return given ?? evident ?? fallback;
}

/** Quantizes a model into the format that the output's name, or `job.format`, asks for. */
export async function quantizeInto(
  job: QuantizeJob,
  session: Session,
  watcher: QuantizeWatcher = {},
): Promise<QuantizeResult> {
  return OUTPUT_FORMATS[chooseOutputFormat(job.output, job.format, "native")].quantize(job, session, watcher);
}
