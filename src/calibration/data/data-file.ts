/** Opens one file of calibration data by what it begins with. */
import { ArrowQuantError } from "../../errors.js";
import { readExactly } from "../../io/read.js";
import { ARROW_MAGIC } from "./arrow-messages.js";
import { openJsonl } from "./jsonl.js";
import { openLocalFile, withLocalFile } from "./local-file.js";
import type { RowSource } from "./row-source.js";

export type DataFormat = "jsonl" | "parquet" | "arrow";

/** So much of a file is looked at to tell its format; blank space before JSON may be longer only out of malice. */
export const SNIFFED_BYTES = 1024;

export interface DataFile extends RowSource {
  readonly format: DataFormat;
}

/**
 * @throws E_UNKNOWN_FORMAT for what is none of the formats, E_CALIBRATION where it is empty, and whatever the
 *   format's reader finds
 */
export async function openDataFile(path: string, signal: AbortSignal): Promise<DataFile> {
  const file = await openLocalFile(path);
  const start = Buffer.alloc(Math.min(SNIFFED_BYTES, file.byteLength));
  await withLocalFile(file, (open) => readExactly(open, start, 0));
  switch (sniff(start, path)) {
    case "parquet": {
      const { openParquet } = await import("./parquet-file.js");
      return { ...(await openParquet(file)), format: "parquet" };
    }
    case "arrow file":
    case "arrow stream": {
      const { openArrow } = await import("./arrow-file.js");
      return { ...(await openArrow(file, isArrowFile(start) ? "file" : "stream")), format: "arrow" };
    }
    case "jsonl":
      return { ...(await openJsonl(file, signal)), format: "jsonl" };
  }
}

/** Beginnings of files that are often tried, with what to do about them. */
const OTHER_FORMATS: readonly { readonly start: string; readonly name: string; readonly hint: string }[] = [
  { start: "\x1f\x8b", name: "compressed with gzip", hint: "unpack it first" },
  { start: "\x28\xb5\x2f\xfd", name: "compressed with zstd", hint: "unpack it first" },
  { start: "PK\x03\x04", name: "a zip archive or .npz", hint: "write it as Parquet or JSON lines" },
  { start: "\x93NUMPY", name: "a NumPy array", hint: "write it as Parquet or JSON lines" },
  { start: "[", name: "one JSON list", hint: "write one object per line" },
  { start: "<", name: "a web page or XML", hint: "the address of a file on the hub holds /resolve/, not /blob/" },
];

/** @param start the first bytes of the file, up to SNIFFED_BYTES of them */
export function sniff(start: Buffer, name: string): "parquet" | "arrow file" | "arrow stream" | "jsonl" {
  if (start.length === 0) {
    throw new ArrowQuantError("E_CALIBRATION", `"${name}" is empty`, { details: { file: name } });
  }
  if (start.subarray(0, 4).toString("latin1") === "PAR1") return "parquet";
  if (isArrowFile(start)) return "arrow file";
  if (start.length >= 4 && start.readUInt32LE(0) === 0xffffffff) return "arrow stream";
  const text = start.toString("utf8").trimStart();
  if (text.startsWith("{")) return "jsonl";
  const bytes = start.toString("latin1");
  const known = OTHER_FORMATS.find((format) => bytes.startsWith(format.start) || text.startsWith(format.start));
  const what = known === undefined ? "neither Parquet, Arrow nor JSON lines" : known.name;
  throw new ArrowQuantError("E_UNKNOWN_FORMAT", `"${name}" is ${what}`, {
    hint: known?.hint ?? "give calibration data as JSON lines, Parquet or Arrow IPC",
    details: { file: name, start: start.subarray(0, 8).toString("hex") },
  });
}

function isArrowFile(start: Buffer): boolean {
  return start.subarray(0, ARROW_MAGIC.length).equals(ARROW_MAGIC);
}
