/** Folders of calibration data: a saved Hugging Face data set, or files of one format. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { ArrowQuantError } from "../../errors.js";
import { describe, isJsonObject, type JsonObject, type JsonValue, parseJsonObject } from "../../formats/json.js";
import { confinePath } from "../../io/confine.js";
import { readError, readSmallFile } from "../../io/read.js";

/** state.json names some files; a data set of this many shards has a larger one. */
const MAX_STATE_BYTES = 16 * 1024 * 1024;

/** Far above any data set that calibrates; each file is opened to learn its rows. */
const MAX_FILES = 10_000;

/** Written by `Dataset.save_to_disk` and `DatasetDict.save_to_disk`. */
const STATE_FILE = "state.json";
const SPLITS_FILE = "dataset_dict.json";

/** What a folder without a state may hold, by the ends of file names. */
const FORMATS: readonly { readonly name: string; readonly ends: readonly string[] }[] = [
  { name: "Parquet", ends: [".parquet"] },
  { name: "Arrow", ends: [".arrow"] },
  { name: "JSON lines", ends: [".jsonl", ".ndjson"] },
];

/**
 * The data files of a folder, in the order of their rows.
 * @throws E_CALIBRATION where it holds none, or leaves open which; E_JSON, E_PATH, E_LIMIT where its state is malformed
 */
export async function listDataFiles(folder: string): Promise<readonly string[]> {
  const names = await readdir(folder).catch((error) => {
    throw readError(error, folder, "open");
  });
  if (names.includes(STATE_FILE)) return listStateFiles(folder);
  if (names.includes(SPLITS_FILE)) return listStateFiles(await findSplit(folder));
  const found = FORMATS.map(({ name, ends }) => ({
    name,
    files: names.filter((file) => !file.startsWith(".") && ends.some((end) => file.endsWith(end))).sort(),
  })).filter(({ files }) => files.length > 0);
  const [first, second] = found;
  if (first === undefined) {
    throw new ArrowQuantError("E_CALIBRATION", `folder "${folder}" holds no calibration data`, {
      hint: `name a data file, a saved data set (${STATE_FILE}), or a folder of .parquet, .arrow or .jsonl files`,
      details: { folder },
    });
  }
  if (second !== undefined) {
    throw new ArrowQuantError("E_CALIBRATION", `folder "${folder}" holds ${first.name} and ${second.name} files`, {
      hint: `name one of the files, for example ${join(folder, first.files[0] as string)}`,
      details: { folder, files: found.flatMap(({ files }) => files).slice(0, 100) },
    });
  }
  checkCount(folder, first.files.length);
  return first.files.map((file) => join(folder, file));
}

async function readState(folder: string, name: string): Promise<JsonObject> {
  const path = join(folder, name);
  return parseJsonObject(await readSmallFile(path, MAX_STATE_BYTES), `"${path}"`);
}

/** The shards that state.json names, in its order: that is the order of the rows. */
async function listStateFiles(folder: string): Promise<string[]> {
  const state = await readState(folder, STATE_FILE);
  const indices = state.get("_indices_data_files");
  if (Array.isArray(indices) && indices.length > 0) {
    throw new ArrowQuantError("E_CALIBRATION", `data set "${folder}" takes its rows through an index`, {
      hint: "call flatten_indices() on it and save it again",
      details: { folder },
    });
  }
  const entries = state.get("_data_files");
  if (!Array.isArray(entries) || entries.length === 0) throw badState(folder, `_data_files is ${describe(entries)}`);
  checkCount(folder, entries.length);
  const files: string[] = [];
  for (const entry of entries as readonly JsonValue[]) {
    const name = isJsonObject(entry) ? entry.get("filename") : undefined;
    if (typeof name !== "string") throw badState(folder, "an entry of _data_files has no filename");
    files.push(await confinePath(folder, name));
  }
  return files;
}

/** Folder of one split of a dictionary of data sets: the only one, or that named train. */
async function findSplit(folder: string): Promise<string> {
  const splits = (await readState(folder, SPLITS_FILE)).get("splits");
  const names = Array.isArray(splits) ? splits.filter((name) => typeof name === "string") : [];
  const name = names.length === 1 ? names[0] : names.find((candidate) => candidate === "train");
  if (name === undefined) {
    throw new ArrowQuantError(
      "E_CALIBRATION",
      `data set "${folder}" has the splits ${names.join(", ") || "of no name"}`,
      {
        hint: `name one of them: ${join(folder, names[0] ?? "SPLIT")}`,
        details: { folder, splits: names },
      },
    );
  }
  return confinePath(folder, name);
}

function badState(folder: string, problem: string): ArrowQuantError {
  return new ArrowQuantError("E_CALIBRATION", `"${join(folder, STATE_FILE)}": ${problem}`, {
    hint: "save the data set again with save_to_disk",
    details: { folder },
  });
}

function checkCount(folder: string, count: number): void {
  if (count <= MAX_FILES) return;
  throw new ArrowQuantError("E_LIMIT", `"${folder}" has ${count} data files, the limit is ${MAX_FILES}`, {
    hint: "name some of them, or join them",
    details: { folder, count, limit: MAX_FILES },
  });
}
