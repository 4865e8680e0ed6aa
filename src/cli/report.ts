/** Text files the commands write: they appear whole or not at all. */
import { extname } from "node:path";
import { ArrowQuantError } from "../errors.js";
import { OutputFile, OutputTarget } from "../io/output.js";

const REPORT_ENDINGS = [".json", ".md", ".html"] as const;
type ReportEnding = (typeof REPORT_ENDINGS)[number];

/** @throws E_USAGE for an ending that no report has: asked before any work. */
export function reportEnding(path: string): ReportEnding {
  const ending = extname(path).toLowerCase();
  const known = REPORT_ENDINGS.find((candidate) => candidate === ending);
  if (known !== undefined) return known;
  throw new ArrowQuantError("E_USAGE", `--report ${path}: reports end in ${REPORT_ENDINGS.join(", ")}`, {
    details: { path, allowed: REPORT_ENDINGS },
  });
}

/** Writes a report in place of whatever stands there. @throws E_WRITE */
export function writeReport(path: string, text: string): Promise<void> {
  return writeNewFile(path, text, true);
}

/** Refuses, before any work, what `writeNewFile` would refuse after it. @throws E_OUTPUT, E_WRITE */
export async function checkNewFile(path: string, force: boolean): Promise<void> {
  await prepareNewFile(path, force);
}

function prepareNewFile(path: string, force: boolean): Promise<OutputTarget> {
  return OutputTarget.prepare(path, {
    kind: "file",
    force,
    inputs: [],
    // What stands there may have been edited by hand.
    isOurs: () => Promise.resolve(false),
  });
}

/** Writes a text file; with `force`, in place of an existing one. @throws E_OUTPUT, E_WRITE */
export async function writeNewFile(path: string, text: string, force: boolean): Promise<void> {
  const target = await prepareNewFile(path, force);
  try {
    const file = await OutputFile.create(target.temporaryPath);
    try {
      await file.write(Buffer.from(text, "utf8"));
      await file.sync();
    } finally {
      await file.close();
    }
    await target.commit();
  } catch (thrown) {
    await target.discard();
    throw thrown;
  }
}
