/**
 * The jobs of a batch: read from a file or listed on the command line, checked all together before any work.
 *
 * A model that cannot be read is no bad entry: that job fails when its turn comes. A bad entry is one that no
 * model could make good: a misspelt key, a value out of range, an output that another job writes or reads.
 */
import { realpath } from "node:fs/promises";
import { basename, dirname, extname, join, resolve } from "node:path";
import type { ResolvedConfig } from "../config/config.js";
import { loadConfigFile } from "../config/file.js";
import { type Problem, showValue, suggest } from "../config/problem.js";
import { type ConfigSources, resolveConfig } from "../config/resolve.js";
import { CONFIG_KEYS, isConfigKey, isSection } from "../config/schema.js";
import { ArrowQuantError } from "../errors.js";
import { NATIVE_ENDING } from "../quantize/quantize.js";
import { JOB_KEYS, type JobEntry, MAX_JOBS, readJobEntries } from "./job-file.js";

export interface BatchJob {
  /** Position in the list, from 0. */
  readonly index: number;
  /** As given; relative paths are relative to the working directory. */
  readonly modelPath: string;
  /** As given. With `addsEnding`, `.parquet` is added where the model turns out to be a single component. */
  readonly outputPath: string;
  readonly addsEnding: boolean;
  readonly config: ResolvedConfig;
}

/** A job as programs give it. */
export interface BatchRequest {
  readonly input: string;
  readonly output: string;
  /** Settings by their configuration keys. */
  readonly config?: Readonly<Record<string, unknown>>;
}

/** Settings that all jobs share: flags are stronger than a job's own, environment and file weaker. */
export type SharedSettings = Pick<ConfigSources, "flags" | "environment" | "file">;

/** A fault of one entry, or of the list as a whole. */
export interface JobProblem {
  /** From 1; null where it is not about one job. */
  readonly job: number | null;
  readonly key: string | null;
  /** A whole sentence, with the place in front. */
  readonly message: string;
}

/** More than these help nobody. */
const MAX_PROBLEMS_SHOWN = 50;

/**
 * The jobs of a YAML or JSON file.
 * @throws E_CONFIG where it cannot be read, E_JOB_FILE with every fault of every entry
 */
export async function readJobs(path: string, shared: SharedSettings): Promise<BatchJob[]> {
  const { entries, problems } = readJobEntries((await loadConfigFile(path)).text, path);
  return checkJobs(entries, shared, problems);
}

/**
 * One job per model, its output named after the model's file or folder.
 * @throws E_JOB_FILE where two models have the same name
 */
export function listJobs(models: readonly string[], outputFolder: string, shared: SharedSettings): Promise<BatchJob[]> {
  const entries = models.map((modelPath, index): JobEntry => {
    const name = basename(resolve(modelPath));
    const stem = extname(name) === ".safetensors" ? basename(name, ".safetensors") : name;
    return {
      index,
      modelPath,
      outputPath: join(outputFolder, stem),
      addsEnding: true,
      settings: {},
      placeOf: () => `--model ${modelPath}`,
      labelOf: () => `job ${index + 1}`,
    };
  });
  return checkJobs(entries, shared, []);
}

/** The jobs of a program. @throws E_JOB_FILE with every fault of every job */
export function checkRequests(requests: readonly BatchRequest[]): Promise<BatchJob[]> {
  const entries = requests.map(
    ({ input, output, config = {} }, index): JobEntry => ({
      index,
      modelPath: input,
      outputPath: output,
      addsEnding: false,
      settings: config,
      placeOf: () => `jobs[${index}]`,
      labelOf: () => `job ${index + 1}`,
    }),
  );
  return checkJobs(entries, {}, []);
}

/**
 * Resolves every entry's settings and looks for outputs that get in each other's way.
 * @throws E_JOB_FILE with all faults, `found` among them; E_CONFIG for faults of the shared settings
 */
async function checkJobs(
  entries: readonly JobEntry[],
  shared: SharedSettings,
  found: readonly JobProblem[],
): Promise<BatchJob[]> {
  // Faults of flags, environment and configuration file are not the jobs': reported once, as what they are.
  await resolveConfig(shared);
  const problems: JobProblem[] = [...found];
  const jobs: BatchJob[] = [];
  // Settings cost a millisecond a job: not for a list that is refused for its length anyway.
  if (found.length > 0 && entries.length > MAX_JOBS) throw jobError(problems);
  for (const entry of entries) {
    const { config, faults } = await resolveEntry(entry, shared);
    for (const fault of [...findMisplacedKeys(entry), ...faults]) problems.push(fault);
    const { index, modelPath, outputPath, addsEnding } = entry;
    if (config !== null && modelPath !== null && outputPath !== null) {
      jobs.push({ index, modelPath, outputPath, addsEnding, config });
    }
  }
  for (const collision of await findCollisions(entries)) problems.push(collision);
  // A fault of the file's defaults is found with every job.
  const distinct = [...new Map(problems.map((problem) => [problem.message, problem])).values()];
  distinct.sort((a, b) => (a.job ?? 0) - (b.job ?? 0));
  if (distinct.length > 0) throw jobError(distinct);
  return jobs;
}

function jobError(problems: readonly JobProblem[]): ArrowQuantError {
  const lines = problems.slice(0, MAX_PROBLEMS_SHOWN).map(({ message }) => message);
  if (problems.length > lines.length) lines.push(`and ${problems.length - lines.length} more`);
  const message =
    lines.length === 1
      ? (lines[0] as string)
      : `${problems.length} problems, nothing was started:\n${lines.join("\n")}`;
  return new ArrowQuantError("E_JOB_FILE", message, {
    hint: "a job has model_path, output_path and any key of `arrowquant config schema`",
    details: { problems: problems.slice(0, MAX_PROBLEMS_SHOWN) },
  });
}

function problemOf(entry: JobEntry, key: string | null, sentence: string): JobProblem {
  return { job: entry.index + 1, key, message: `${entry.placeOf(key)}: ${entry.labelOf(key)}: ${sentence}` };
}

/** Settings of the process: all jobs share its threads and memory. */
const SHARED_KEYS = ["num_threads", "memory"];

function findMisplacedKeys(entry: JobEntry): JobProblem[] {
  const known: readonly string[] = [...JOB_KEYS, ...CONFIG_KEYS];
  const shared = Object.keys(entry.settings)
    .filter((key) => SHARED_KEYS.includes(key))
    .map((key) => problemOf(entry, key, `${key} is shared by all jobs: give it as a flag or in --config`));
  const unknown = Object.keys(entry.settings)
    .filter((key) => !known.includes(key) && !isSection(key))
    .map((key) => {
      const likely = suggest(key, known);
      const rest = likely === null ? `the keys are ${known.join(", ")}` : `did you mean "${likely}"?`;
      return problemOf(entry, key, `unknown key ${showValue(key)}: ${rest}`);
    });
  return [...shared, ...unknown];
}

/** The entry's configuration, or null and what is wrong with its known keys. */
async function resolveEntry(
  entry: JobEntry,
  shared: SharedSettings,
): Promise<{ config: ResolvedConfig | null; faults: JobProblem[] }> {
  const known = Object.entries(entry.settings).filter(([key]) => isConfigKey(key) || isSection(key));
  const configLabel = `job ${entry.index + 1}`;
  try {
    const config = await resolveConfig({ ...shared, config: Object.fromEntries(known), configLabel });
    return { config, faults: [] };
  } catch (thrown) {
    if (!(thrown instanceof ArrowQuantError)) throw thrown;
    if (thrown.code === "E_CONFLICT") return { config: null, faults: [problemOf(entry, null, thrown.message)] };
    if (thrown.code !== "E_CONFIG") throw thrown;
    const faults = (thrown.details.problems as readonly Problem[]).map(({ key, message }) =>
      problemOf(entry, key, message.slice(configLabel.length + 2)),
    );
    return { config: null, faults };
  }
}

/** The path as the file system knows it, through links; what does not exist yet is taken as written. */
async function canonicalPath(path: string): Promise<string> {
  const full = resolve(path);
  const parent = dirname(full);
  return realpath(full).catch(async () => (parent === full ? full : join(await canonicalPath(parent), basename(full))));
}

/** Where a job may write: an output named after its model is a folder or a file by the model's components. */
function outputCandidates({ outputPath, addsEnding }: JobEntry): string[] {
  if (outputPath === null) return [];
  return addsEnding ? [outputPath, outputPath + NATIVE_ENDING] : [outputPath];
}

/**
 * Whether `path` is what a listed job writes to only if its model has several components. `--output-dir .` beside
 * the models is fine as long as they have one each; whether they do is seen when they are opened.
 */
function isMadeUp({ addsEnding }: JobEntry, path: string): boolean {
  return addsEnding && !path.endsWith(NATIVE_ENDING);
}

function* ancestors(path: string): Generator<string> {
  for (let folder = dirname(path); folder !== path; [path, folder] = [folder, dirname(folder)]) yield folder;
}

/**
 * Outputs that another job writes to, in, or reads: an output folder is replaced as a whole, so nothing else may
 * lie in it.
 */
async function findCollisions(entries: readonly JobEntry[]): Promise<JobProblem[]> {
  const problems: JobProblem[] = [];
  const writers = new Map<string, JobEntry>();
  const written: { readonly path: string; readonly entry: JobEntry }[] = [];
  const report = (entry: JobEntry, sentence: string): void => {
    problems.push(problemOf(entry, "output_path", `output ${entry.outputPath} ${sentence}`));
  };
  for (const entry of entries) {
    const paths = await Promise.all(outputCandidates(entry).map(canonicalPath));
    const taken = paths.map((path) => writers.get(path)).find((other) => other !== undefined);
    if (taken !== undefined) report(entry, `is also the output of job ${taken.index + 1}`);
    for (const path of paths) {
      written.push({ path, entry });
      if (taken === undefined) writers.set(path, entry);
    }
  }
  for (const { path, entry } of written) {
    for (const folder of ancestors(path)) {
      const other = writers.get(folder);
      if (other !== undefined) report(entry, `lies in the output of job ${other.index + 1}`);
    }
  }
  for (const reader of entries) {
    if (reader.modelPath === null) continue;
    const path = await canonicalPath(reader.modelPath);
    for (const place of [path, ...ancestors(path)]) {
      const writer = writers.get(place);
      if (writer === undefined || isMadeUp(writer, place)) continue;
      const whose = writer === reader ? "its own model" : `the model of job ${reader.index + 1}`;
      report(writer, `${place === path ? "is" : "holds"} ${whose}, ${reader.modelPath}`);
    }
  }
  return problems;
}
