/** Job files, YAML or JSON: what stands in them and where. */
import { z } from "zod";
import { type Leaf, listLeaves } from "../config/nested.js";
import { type Place, suggest } from "../config/problem.js";
import { isSection } from "../config/schema.js";
import { type GivenValue, readYaml } from "../config/yaml.js";
import type { JobProblem } from "./jobs.js";

/** Keys of a job that are no settings. */
export const JOB_KEYS = ["model_path", "output_path"] as const;

/** One job as somebody wrote it. */
export interface JobEntry {
  /** From 0. */
  readonly index: number;
  /** null where it is missing, which is among the problems. */
  readonly modelPath: string | null;
  readonly outputPath: string | null;
  /** The output is named after the model: a folder or, with `.parquet` added, a file, by its components. */
  readonly addsEnding: boolean;
  /** By configuration key, the file's defaults among them; unknown keys too. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** Where the entry, or the value of its key, stands: `jobs.yaml:7:5`. */
  readonly placeOf: (key: string | null) => string;
  /** `job 3`, or `defaults` for a key that it takes from there. */
  readonly labelOf: (key: string | null) => string;
}

/** A batch that large is a script's mistake. */
export const MAX_JOBS = 10_000;

const mapping = { error: "expected a mapping of keys to values" };
/** Linux takes no longer path (PATH_MAX), and comparing paths costs more than their length. */
const MAX_PATH_LENGTH = 4096;
const path = z
  .string({ error: "expected a path" })
  .min(1, { error: "the path is empty" })
  .max(MAX_PATH_LENGTH, { error: `the path is longer than ${MAX_PATH_LENGTH} characters` });
const jobFileSchema = z.object({
  jobs: z
    .array(z.looseObject({ model_path: path, output_path: path }, mapping), { error: "expected a list of jobs" })
    .min(1, { error: "the list is empty" })
    .max(MAX_JOBS, { error: `more than ${MAX_JOBS} jobs` }),
  defaults: z.looseObject({}, mapping).optional(),
});

const FILE_KEYS = Object.keys(jobFileSchema.shape);

/** `jobs[2].bit_width`, counted as people do: `job 3: bit_width`. */
function subjectOf(issuePath: readonly PropertyKey[]): string {
  const [root, index, ...rest] = issuePath;
  if (root !== "jobs") return issuePath.map(String).join(".");
  const parts = [...(index === undefined ? ["jobs"] : [`job ${Number(index) + 1}`]), ...rest.map(String)];
  return parts.join(": ");
}

/** The entries of a job file's text, and what is wrong with its form; faults of settings are found later. */
export function readJobEntries(text: string, file: string): { entries: JobEntry[]; problems: JobProblem[] } {
  const read = readYaml(text, file, "object");
  const problems: JobProblem[] = read.problems.map(({ message }) => ({ job: null, key: null, message }));
  if (problems.length > 0) return { entries: [], problems };
  const given = new Map(read.given.map((value) => [value.key, value]));
  for (const [key, { keyPlace }] of given) {
    if (FILE_KEYS.includes(key)) continue;
    const likely = suggest(key, FILE_KEYS);
    const rest = likely === null ? `the keys are ${FILE_KEYS.join(" and ")}` : `did you mean "${likely}"?`;
    problems.push({ job: null, key, message: `${keyPlace.text}: unknown key "${key}": ${rest}` });
  }
  if (!given.has("jobs")) {
    problems.push({ job: null, key: "jobs", message: `${file}: there is no list "jobs"` });
    return { entries: [], problems };
  }
  const values = Object.fromEntries([...given].map(([key, { value }]) => [key, value]));
  const parsed = jobFileSchema.safeParse(values);
  for (const issue of parsed.error?.issues ?? []) {
    const [root, index, key] = issue.path;
    const place = (given.get(String(root)) as GivenValue).placeOf(issue.path.slice(1));
    problems.push({
      job: root === "jobs" && index !== undefined ? Number(index) + 1 : null,
      key: key === undefined ? null : String(key),
      message: `${place.text}: ${subjectOf(issue.path)}: ${issue.message}`,
    });
  }
  return { entries: readEntries(values, given, problems), problems };
}

/** Every entry that is a mapping, so that all its faults are found in one go, whatever others there are. */
function readEntries(
  values: Readonly<Record<string, unknown>>,
  given: ReadonlyMap<string, GivenValue>,
  problems: JobProblem[],
): JobEntry[] {
  const readLeaves = (entry: unknown, job: number | null): Map<string, Leaf> => {
    const leaves = new Map<string, Leaf>();
    for (const leaf of isMapping(entry) ? listLeaves(entry, isSection) : []) {
      const { key, path } = leaf;
      if (leaves.has(key)) {
        const place = given.get(job === null ? "defaults" : "jobs")?.placeOf(job === null ? path : [job - 1, ...path]);
        const message = `${place?.text}: ${key} is given twice, with dots and as a mapping`;
        problems.push({ job, key, message });
      }
      leaves.set(key, leaf);
    }
    return leaves;
  };
  const defaults = readLeaves(values.defaults, null);
  const list = Array.isArray(values.jobs) ? values.jobs : [];
  return list.flatMap((entry: unknown, index): JobEntry[] => {
    if (!isMapping(entry)) return [];
    const { model_path: modelPath, output_path: outputPath, ...rest } = entry;
    const own = readLeaves(rest, index + 1);
    const isDefault = (key: string | null): key is string => key !== null && !own.has(key) && defaults.has(key);
    return [
      {
        index,
        modelPath: typeof modelPath === "string" && modelPath !== "" ? modelPath : null,
        outputPath: typeof outputPath === "string" && outputPath !== "" ? outputPath : null,
        addsEnding: false,
        settings: Object.fromEntries([...defaults, ...own].map(([key, { value }]) => [key, value])),
        placeOf: (key) => {
          const place = isDefault(key)
            ? given.get("defaults")?.placeOf((defaults.get(key) as Leaf).path)
            : given.get("jobs")?.placeOf(key === null ? [index] : [index, ...(own.get(key)?.path ?? [key])]);
          return (place as Place).text;
        },
        labelOf: (key) => (isDefault(key) ? "defaults" : `job ${index + 1}`),
      },
    ];
  });
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
