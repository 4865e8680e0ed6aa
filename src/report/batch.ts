/** The result of a batch as sections. Pure. */
import type { BatchResult, JobResult } from "../batch/result.js";
import { formatBytes, formatCosine, formatRatio, formatSeconds } from "./figures.js";
import { listSection, type Section } from "./sections.js";

function jobRow(job: JobResult): string[] {
  const { summary } = job;
  return [
    String(job.index + 1),
    job.modelPath,
    job.outputPath,
    job.status.replace("_", " "),
    job.outputBytes === null ? "" : formatBytes(job.outputBytes),
    summary === null ? "" : formatRatio(summary.compressionRatio),
    summary?.metrics ? formatCosine(summary.metrics.cosineSimilarity) : "",
    job.summary === null ? "" : formatSeconds(job.seconds),
  ];
}

function jobNote(job: JobResult): string | null {
  const about = job.error === null ? job.reason : `${job.error.code}: ${job.error.message}`;
  return about === null ? null : `${job.index + 1} ${job.modelPath}: ${about}`;
}

export function batchSections(result: BatchResult): Section[] {
  const { summary, results } = result;
  const notes = (status: (job: JobResult) => boolean): string[] =>
    results.filter(status).flatMap((job) => jobNote(job) ?? []);
  return [
    {
      kind: "table",
      title: "Jobs",
      columns: [
        { title: "#", align: "right" },
        { title: "model", elastic: true },
        { title: "output", drop: 1 },
        { title: "status" },
        { title: "size", align: "right" },
        { title: "ratio", align: "right" },
        { title: "cosine", align: "right" },
        { title: "time", align: "right" },
      ],
      rows: results.map(jobRow),
    },
    ...listSection(
      "Failed",
      notes((job) => job.status === "failed"),
    ),
    ...listSection(
      "Not quantized",
      notes((job) => job.status !== "failed"),
    ),
    {
      kind: "facts",
      title: "In all",
      facts: [
        [
          "jobs",
          `${summary.totalJobs}: ${summary.successful} successful, ${summary.failed} failed, ` +
            `${summary.skipped} skipped${summary.notRun > 0 ? `, ${summary.notRun} not run` : ""}`,
        ],
        ["success rate", `${(100 * summary.successRate).toFixed(1)} %`],
        ["size", `${summary.totalSizeMb.toFixed(1)} MB`],
        ...(summary.avgCompressionRatio === null
          ? []
          : ([["mean compression ratio", formatRatio(summary.avgCompressionRatio)]] as [string, string][])),
        ...(summary.avgCosineSimilarity === null
          ? []
          : ([["mean cosine similarity", formatCosine(summary.avgCosineSimilarity)]] as [string, string][])),
        ["time", formatSeconds(summary.totalSeconds)],
      ],
    },
    ...listSection("Warnings", result.warnings),
  ];
}
