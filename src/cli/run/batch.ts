import { runJobs } from "../../batch/batch.js";
import { type BatchJob, listJobs, readJobs, type SharedSettings } from "../../batch/jobs.js";
import type { BatchResult } from "../../batch/result.js";
import { resolveConfig } from "../../config/resolve.js";
import { Session } from "../../engine/session.js";
import { ArrowQuantError, toArrowQuantError } from "../../errors.js";
import { batchSections } from "../../report/batch.js";
import { batchBody } from "../../report/json.js";
import { renderText } from "../../report/text.js";
import type { Invocation, Outcome } from "../command.js";
import { refuseDash } from "../paths.js";
import { openProgress } from "../progress.js";
import { gatherSources } from "../resolve.js";

/** The jobs of the file or of the listed models; exactly one of the two is given. */
function gatherJobs({ args, flags }: Invocation, shared: SharedSettings): Promise<BatchJob[]> {
  const file = args[0];
  const models = flags.model as readonly string[] | undefined;
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

export async function runBatch(invocation: Invocation): Promise<Outcome> {
  const { flags, terminal, signal } = invocation;
  const shared = await gatherSources(invocation);
  const jobs = await gatherJobs(invocation, shared);
  const { values } = await resolveConfig(shared);
  await using session = new Session({ threads: values.num_threads ?? undefined, memoryBytes: values.memory });
  const progress = await openProgress(terminal, "looking at the models");
  try {
    const result = await runJobs(
      jobs,
      {
        failFast: flags["fail-fast"] === true,
        resume: flags.resume !== false,
        force: flags.force === true,
        concurrency: (flags.jobs as number | undefined) ?? 1,
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
