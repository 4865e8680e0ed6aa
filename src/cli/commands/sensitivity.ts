import { ArrowQuantError } from "../../errors.js";
import { SENSITIVITY_KINDS } from "../../plan/plan.js";
import type { Command } from "../command.js";
import { ROLE_FLAGS } from "../role-flags.js";
import {
  CONFIG_FLAG,
  DISPLAY_FLAGS,
  ENGINE_FLAGS,
  FORCE_FLAG,
  OUTPUT_GROUP,
  REPORT_FLAG,
  SETTING_FLAGS,
} from "../settings.js";

/** Settings that are about what is written, or about what becomes of the figures. */
const OTHER_SETTINGS: readonly string[] = [
  "bit-width",
  "target-bpw",
  "target-size",
  "max-error",
  "mean-group-size",
  "sensitivity",
  "tie-layers",
  "tie-patterns",
  "knapsack-gap",
  "enable-mixed-precision",
  "disable-mixed-precision",
  "search",
  "population",
  "generations",
  "mutation",
  "crossover",
  "elite",
  "evaluations",
  "min-accuracy",
];

/** @throws E_USAGE */
function readKinds(given: string | readonly string[]): readonly string[] {
  const kinds = (given as string).split(",").map((kind) => kind.trim());
  const unknown = kinds.find((kind) => !SENSITIVITY_KINDS.some((known) => known === kind));
  if (unknown === undefined) return [...new Set(kinds)];
  throw new ArrowQuantError("E_USAGE", `--kinds ${given}: "${unknown}" is no kind of sensitivity`, {
    hint: `there are ${SENSITIVITY_KINDS.join(", ")}, with commas between`,
    details: { value: given, allowed: SENSITIVITY_KINDS },
  });
}

export const sensitivity: Command = {
  name: "sensitivity",
  summary: "Measure what fewer bits cost each layer of a model",
  description:
    "Quantizes each layer by every candidate (--candidate-bits, --candidate-group-sizes) as quantize would, and " +
    "measures the error of its weights, with --calibration that of its output on inputs that calibration held back, and " +
    "with --kinds model that of the whole model's prediction, by running it with this layer alone quantized.\n" +
    "These are the figures that quantize --target-bpw and the other targets choose bits by. They are kept in a cache, " +
    "one by one, so that a stopped run goes on where it was. Errors are shown relative; in JSON they are squared, since " +
    "squares are what adds up.\n" +
    "The entropy of the weights is an older heuristic, shown to be compared with. model needs onnxruntime-node: npm " +
    "install onnxruntime-node.",
  args: [{ name: "MODEL", description: "A model file or folder" }],
  flags: [
    {
      name: "output",
      short: "o",
      value: "file",
      description: "Also write the figures to a .json file",
      group: OUTPUT_GROUP,
      parse: (given) => {
        if ((given as string).toLowerCase().endsWith(".json")) return given;
        throw new ArrowQuantError("E_USAGE", `--output ${given}: a file that ends in .json is expected`, {
          details: { output: given },
        });
      },
    },
    {
      name: "kinds",
      value: "list",
      description:
        "Of weight, output, model, entropy, e.g. output,model (default: all but model that there is data for)",
      group: OUTPUT_GROUP,
      parse: readKinds,
    },
    REPORT_FLAG,
    FORCE_FLAG,
    { name: "fresh", description: "Measure anew even what the cache has", group: OUTPUT_GROUP },
    CONFIG_FLAG,
    ...SETTING_FLAGS.filter(({ name }) => !OTHER_SETTINGS.includes(name)),
    ...ROLE_FLAGS,
    ...ENGINE_FLAGS,
    ...DISPLAY_FLAGS,
  ],
  examples: [
    {
      description: "Weights alone, without any data",
      command: "arrowquant sensitivity ./my-model",
    },
    {
      description: "By the prediction of the model, into a file",
      command: "arrowquant sensitivity ./my-model --calibration sampling --kinds output,model -o sensitivity.json",
    },
  ],
  run: async (invocation) => (await import("../run/sensitivity.js")).runSensitivity(invocation),
};
