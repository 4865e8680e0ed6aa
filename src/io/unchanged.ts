/** Whether files are still those that were opened. */
import { ArrowQuantError } from "../errors.js";
import type { SourceFile } from "../tensor/info.js";
import { fileIdentity, statOrThrow } from "./read.js";

/**
 * Throws `E_CHANGED` for the first file whose device, inode, size or modification time is no longer the
 * one recorded when its header was read. One `stat` per file: cheap enough before and after every run.
 */
export async function assertUnchanged(files: readonly SourceFile[]): Promise<void> {
  for (const file of files) {
    const now = await currentIdentity(file.path);
    if (now !== file.identity) {
      throw new ArrowQuantError("E_CHANGED", `"${file.path}" changed while it was read`, {
        hint: "wait until whatever writes it is done, then run again",
        details: { path: file.path, before: file.identity, now },
      });
    }
  }
}

async function currentIdentity(path: string): Promise<string> {
  try {
    return fileIdentity(await statOrThrow(path));
  } catch (error) {
    if (error instanceof ArrowQuantError && error.code === "E_NOT_FOUND") return "gone";
    throw error;
  }
}
