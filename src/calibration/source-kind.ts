/** What a calibration source is. */
import { stat } from "node:fs/promises";
import { readExactly, withFile } from "../io/read.js";
import { isGguf, looksLikeLegacyImatrix } from "./imatrix.js";
import { isStatisticsFile } from "./statistics.js";

export type SourceKind = "sampling" | "synthetic" | "statistics" | "imatrix" | "data";

/** Words that are no paths; a file of such a name is given as `./sampling`. */
const WORDS: readonly SourceKind[] = ["sampling", "synthetic"];

const HEAD_BYTES = 64;

/** Tells imports from data by the file's first bytes; whatever is no import is data, a missing file too. */
export async function classifySource(source: string): Promise<SourceKind> {
  const word = WORDS.find((candidate) => candidate === source);
  if (word !== undefined) return word;
  const found = await stat(source).catch(() => null);
  if (found === null || !found.isFile()) return "data";
  const head = await withFile(source, async (file) => {
    const bytes = Buffer.alloc(Math.min(HEAD_BYTES, file.byteLength));
    await readExactly(file, bytes, 0);
    return bytes;
  });
  if (isGguf(head) || looksLikeLegacyImatrix(head)) return "imatrix";
  return (await isStatisticsFile(source)) ? "statistics" : "data";
}
