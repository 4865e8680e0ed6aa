/** The flags of `validate --run`, and what they ask for. */
import { ArrowQuantError } from "../errors.js";
import type { RunOptions } from "../validate/run-result.js";
import type { Flag } from "./command.js";
import { ROLE_FLAGS, readRoles } from "./role-flags.js";

const RUN = "RUN FLAGS";

/** A number from `least` to `most`. @throws E_USAGE */
function parseNumber(name: string, least: number, most: number, isWhole: boolean) {
  return (given: string | readonly string[]): number => {
    const value = Number(given);
    const isGiven = typeof given === "string" && given.trim() !== "";
    if (isGiven && value >= least && value <= most && (!isWhole || Number.isInteger(value))) return value;
    throw new ArrowQuantError(
      "E_USAGE",
      `--${name} ${String(given)}: ${isWhole ? "an integer" : "a number"} is expected`,
      {
        hint: `from ${least} to ${most}`,
        details: { flag: name, value: given },
      },
    );
  };
}

export const RUN_FLAGS: readonly Flag[] = [
  { name: "run", description: "Run the original and the quantized model as well", group: RUN },
  { name: "graph", value: "path", description: "ONNX graph of the original, instead of the one beside it", group: RUN },
  {
    name: "run-data",
    value: "path",
    description: "Inputs to predict for, as for --calibration, instead of those that sampling visits",
    group: RUN,
  },
  {
    name: "run-samples",
    value: "n",
    description: "Samples to denoise or to read (default: 16)",
    group: RUN,
    parse: parseNumber("run-samples", 1, 4096, true),
  },
  {
    name: "run-steps",
    value: "n",
    description: "Steps of the sampler (default: 20)",
    group: RUN,
    parse: parseNumber("run-steps", 1, 1000, true),
  },
  {
    name: "run-seed",
    value: "n",
    description: "Seed of the noise and the class labels (default: 1)",
    group: RUN,
    parse: parseNumber("run-seed", 0, 2 ** 32 - 1, true),
  },
  {
    name: "dynamic-bits",
    value: "n",
    description: "Quantize activations to 2 to 8 bits, per token while running, whatever the file says",
    group: RUN,
    parse: parseNumber("dynamic-bits", 2, 8, true),
  },
  {
    name: "images",
    value: "path.png",
    description: "Write samples of the original and the quantized model, side by side",
    group: RUN,
  },
  {
    name: "max-prediction-error",
    value: "x",
    description: "Largest relative error of the prediction; above it the exit code is 4",
    group: RUN,
    parse: parseNumber("max-prediction-error", 0, 1e6, false),
  },
  ...ROLE_FLAGS,
  {
    name: "min-psnr",
    value: "dB",
    description: "Least PSNR of the samples; below it the exit code is 4",
    group: RUN,
    parse: parseNumber("min-psnr", -200, 1000, false),
  },
];

/** What `--run` asks for; undefined without it. @throws E_USAGE for its flags without it */
export function readRunOptions(flags: Readonly<Record<string, unknown>>): RunOptions | undefined {
  if (flags.run !== true) {
    const stray = RUN_FLAGS.find(({ name }) => name !== "run" && flags[name] !== undefined);
    if (stray === undefined) return undefined;
    throw new ArrowQuantError("E_USAGE", `--${stray.name} needs --run`, { details: { flag: stray.name } });
  }
  return {
    graph: flags.graph as string | undefined,
    data: flags["run-data"] as string | undefined,
    samples: flags["run-samples"] as number | undefined,
    steps: flags["run-steps"] as number | undefined,
    seed: flags["run-seed"] as number | undefined,
    dynamicBits: flags["dynamic-bits"] as number | undefined,
    images: flags.images as string | undefined,
    roles: readRoles(flags),
    maxPredictionError: flags["max-prediction-error"] as number | undefined,
    minPsnr: flags["min-psnr"] as number | undefined,
  };
}
