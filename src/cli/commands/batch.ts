import { runJobs } from "../../batch/batch.js";
import { type BatchJob, listJobs, readJobs, type SharedSettings } from "../../batch/jobs.js";
import type { BatchResult } from "../../batch/result.js";
import { loadConfigFile } from "../../config/file.js";
import { resolveConfig } from "../../config/resolve.js";
import { Session } from "../../engine/session.js";
import { ArrowQuantError, toArrowQuantError } from "../../errors.js";
import { batchSections } from "../../report/batch.js";
import { batchBody } from "../../report/json.js";
import { renderText } from "../../report/text.js";
import type { Command, Invocation, Outcome } from "../command.js";
import { openProgress } from "../progress.js";
import {
  CONFIG_FLAG,
  DISPLAY_FLAGS,
  ENGINE_FLAGS,
  FORCE_FLAG,
  refuseDash,
  REPORT_FLAG,
  SETTING_FLAGS,
} from "../settings.js";

const JOB_GROUP = "JOB FLAGS";

/** More jobs at a time than this only wait for each other's memory. */
const MAX_CONCURRENCY = 16;

function jobCount(given: string | readonly string[]): number {
  const count = Number(given);
  if (Number.isInteger(count) && count >= 1 && count <= MAX_CONCURRENCY) return count;
  throw new ArrowQuantError("E_USAGE", `--jobs ${given as string}: expected an integer from 1 to ${MAX_CONCURRENCY}`);
}

/** The jobs of the file or of the listed models; exactly one of the two is given. */
function gatherJobs({ args, flags }: Invocation, shared: SharedSettings): Promise<BatchJob[]> {
  const file = args[0];
  const models = flags["model"] as readonly string[] | undefined;
  const folder = flags["output-dir"] as string | undefined;
  if (file !== undefined) {
    const other = models !== undefined ? "--model" : folder !== undefined ? "--output-dir" : null;
    if (other === null) return readJobs(refuseDash(file, "JOBS"), shared);
    throw new ArrowQuantError("E_CONFLICT", `the job file ${file} and ${other} contradict each other`, {
      hint: "jobs stand in a file, or are listed with --model and --output-dir",
    });
  }
  if (models === undefined || folder === undefined) {
    const missing = models === undefined ? (folder === undefined ? "a job file" : "--model") : "--output-dir";
    throw new ArrowQuantError("E_USAGE", `missing ${missing}`, {
      hint: "arrowquant batch JOBS, or arrowquant batch --model DIR --model DIR --output-dir OUT",
    });
  }
  return listJobs(
    models.map((model) => refuseDash(model, "--model")),
    refuseDash(folder, "--output-dir"),
    shared,
  );
}

function batchFailure(result: BatchResult): ArrowQuantError | null {
  const { summary, interruption, results } = result;
  if (interruption !== null) return toArrowQuantError(interruption);
  if (summary.failed === 0) return null;
  const failed = results.filter(({ status }) => status === "failed");
  const rest = summary.notRun === 0 ? "" : `, ${summary.notRun} not run`;
  return new ArrowQuantError("E_JOBS", `${summary.failed} of ${summary.totalJobs} jobs failed${rest}`, {
    hint: "run the same batch again when the cause is mended: jobs that are done are skipped",
    details: { failed: failed.map(({ index, modelPath, error }) => ({ job: index + 1, model: modelPath, error })) },
  });
}

async function run(invocation: Invocation): Promise<Outcome> {
  const { flags, settings, terminal, signal } = invocation;
  const configPath = flags["config"] as string | undefined;
  const file = configPath === undefined ? {} : { file: await loadConfigFile(configPath) };
  const shared = { flags: settings, environment: process.env, ...file };
  const jobs = await gatherJobs(invocation, shared);
  const { values } = await resolveConfig(shared);
  await using session = new Session({ threads: values.num_threads ?? undefined, memoryBytes: values.memory });
  const progress = await openProgress(terminal, "looking at the models");
  try {
    const result = await runJobs(
      jobs,
      {
        failFast: flags["fail-fast"] === true,
        resume: flags["resume"] !== false,
        force: flags["force"] === true,
        concurrency: (flags["jobs"] as number | undefined) ?? 1,
        signal,
        onProgress: (event) => {
          progress.label(`${event.jobsDone}/${event.jobsTotal} jobs  ${event.modelPath}`);
          progress.update(event);
        },
      },
      session,
    );
    const failure = batchFailure(result);
    return {
      body: batchBody(result),
      text: (style) => renderText(null, batchSections(result), style),
      report: { title: "Batch", sections: batchSections(result) },
      notes: result.results.flatMap(({ index, warnings }) =>
        warnings.map((warning) => `warning: job ${index + 1}: ${warning}`),
      ),
      ...(failure === null ? {} : { failure }),
    };
  } finally {
    progress.stop();
  }
}

export const batch: Command = {
  name: "batch",
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
  run,
};
