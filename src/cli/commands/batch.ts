import { ArrowQuantError } from "../../errors.js";
import type { Command } from "../command.js";
import { CONFIG_FLAG, DISPLAY_FLAGS, ENGINE_FLAGS, FORCE_FLAG, REPORT_FLAG, SETTING_FLAGS } from "../settings.js";

const JOB_GROUP = "JOB FLAGS";

/** More jobs at a time than this only wait for each other's memory. */
const MAX_CONCURRENCY = 16;

function jobCount(given: string | readonly string[]): number {
  const count = Number(given);
  if (Number.isInteger(count) && count >= 1 && count <= MAX_CONCURRENCY) return count;
  throw new ArrowQuantError("E_USAGE", `--jobs ${given as string}: expected an integer from 1 to ${MAX_CONCURRENCY}`);
}

export const batch: Command = {
  name: "batch",
  summary: "Quantize many models, from a job file or a list of folders",
  description:
    'JOBS is {"jobs": [{"model_path": ..., "output_path": ..., any setting: ...}]}, in YAML or JSON, with settings ' +
    'for all jobs under "defaults". Relative paths are relative to the working directory. Flags of settings win over ' +
    "what a job says.\n" +
    "All bad entries are reported together before any work starts. A job whose output stands complete for the same " +
    "source and settings is skipped, so an interrupted batch is resumed by running it again.",
  args: [{ name: "JOBS", description: "A job file, YAML or JSON", optional: true }],
  flags: [
    {
      name: "model",
      value: "path",
      repeatable: true,
      description: "A model to quantize, instead of a job file",
      group: JOB_GROUP,
    },
    {
      name: "output-dir",
      value: "folder",
      description: "With --model: where outputs go, each named after its model",
      group: JOB_GROUP,
    },
    {
      name: "jobs",
      value: "n",
      description: `Jobs at a time, 1 to ${MAX_CONCURRENCY}, sharing threads and memory (default: 1)`,
      group: JOB_GROUP,
      parse: jobCount,
    },
    { name: "continue-on-error", description: "Go on when a job fails (the default)", group: JOB_GROUP },
    {
      name: "fail-fast",
      contradicts: "continue-on-error",
      description: "Stop at the first job that fails",
      group: JOB_GROUP,
    },
    {
      name: "resume",
      negatable: true,
      description: "Skip jobs that are done already (the default)",
      group: JOB_GROUP,
    },
    REPORT_FLAG,
    { ...FORCE_FLAG, description: "Redo every job, and replace outputs that arrowquant did not write" },
    CONFIG_FLAG,
    ...SETTING_FLAGS,
    ...ENGINE_FLAGS,
    ...DISPLAY_FLAGS,
  ],
  examples: [
    { description: "All jobs of a file", command: "arrowquant batch jobs.yaml --report batch.json" },
    {
      description: "Several models with the same settings",
      command: "arrowquant batch --model ./dit --model ./unet --output-dir ./quantized --profile edge",
    },
  ],
  run: async (invocation) => (await import("../run/batch.js")).runBatch(invocation),
};
