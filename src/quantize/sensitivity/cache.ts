/**
 * Figures of candidates that were measured before, each by everything that it depends on: a file of lines, one per
 * figure, added to as figures come. So a run that is stopped has lost nothing, and one with more candidates measures
 * only the new ones.
 */
import { createHash } from "node:crypto";
import { type FileHandle, mkdir, open, readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { writeError } from "../../io/output.js";
import { ENTROPY_CLASSES } from "./table.js";

/** Raised whenever the same settings give other figures than before. */
const VERSION = 2;

/** A thousand layers with thirty candidates come to some 6 MB; a file beyond this is not ours. */
const MAX_FILE_BYTES = 256 * 1024 * 1024;

const error = z.number().min(0);

const record = z.object({
  /** SHA-256 of what the figure is of, in hex. */
  key: z.string().regex(/^[0-9a-f]{64}$/),
  value: z.union([
    z.object({ weight: error, output: error.nullable(), outputEnergy: error.nullable() }),
    z.object({ model: error }),
    z.object({ entropy: z.number().min(0).max(1), entropyClass: z.enum(ENTROPY_CLASSES) }),
  ]),
});

export type Figure = z.infer<typeof record>["value"];

/** Figures of one model with one set of statistics. */
export interface FigureCache {
  get(key: string): Figure | undefined;
  put(key: string, value: Figure): Promise<void>;
  close(): Promise<void>;
}

/** SHA-256 of a list of texts, in hex. */
export function hashTexts(texts: readonly string[]): string {
  return createHash("sha256").update(JSON.stringify(texts)).digest("hex");
}

/**
 * Opens the figures of `subject`, what all of them depend on. Lines that are not ours, such as half a line of a killed
 * run, are passed over.
 * @param folder null: figures are kept in memory alone
 * @param fresh nothing that is there is used
 * @throws E_WRITE
 */
export async function openFigures(
  folder: string | null,
  subject: readonly string[],
  fresh: boolean,
): Promise<FigureCache> {
  const figures = new Map<string, Figure>();
  if (folder === null) {
    return {
      get: (key) => figures.get(key),
      put: async (key, value) => void figures.set(key, value),
      close: async () => undefined,
    };
  }
  const path = join(folder, "sensitivity", `${hashTexts([String(VERSION), ...subject])}.jsonl`);
  let handle: FileHandle;
  try {
    await mkdir(join(folder, "sensitivity"), { recursive: true });
    handle = await open(path, "a+");
  } catch (thrown) {
    throw writeError(thrown, path);
  }
  // A line of its own even behind half of one.
  let start = "";
  if (!fresh && (await handle.stat()).size <= MAX_FILE_BYTES) {
    const text = await readFile(path, "utf8");
    if (text !== "" && !text.endsWith("\n")) start = "\n";
    for (const line of text.split("\n")) {
      const found = parseLine(line);
      if (found !== null) figures.set(found.key, found.value);
    }
  }
  return {
    get: (key) => figures.get(key),
    put: async (key, value) => {
      figures.set(key, value);
      try {
        // One write in append mode: lines of two runs at once do not mix.
        await handle.write(`${start}${JSON.stringify({ key, value })}\n`);
        start = "";
      } catch (thrown) {
        throw writeError(thrown, path);
      }
    },
    close: () => handle.close(),
  };
}

function parseLine(line: string): z.infer<typeof record> | null {
  if (line === "") return null;
  try {
    return record.safeParse(JSON.parse(line)).data ?? null;
  } catch {
    return null;
  }
}
