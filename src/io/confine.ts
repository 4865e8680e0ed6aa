/** Paths that come out of a file and must stay in the folder of that file. */
import { realpath } from "node:fs/promises";
import { join, sep } from "node:path";
import { ArrowQuantError } from "../errors.js";
import { readError } from "./read.js";

/**
 * The real path of `name`, a relative path with `/` that some file in `folder` mentions.
 * Throws `E_PATH` where it is absolute, climbs, holds a backslash or NUL, or reaches, through symbolic
 * links too, a place outside; `E_NOT_FOUND` where nothing is there.
 *
 * One kind of outside is allowed: in the Hugging Face cache every file of `models--x/snapshots/<revision>/`
 * is a link into `models--x/blobs/`, and that is where most people's models lie.
 */
export async function confinePath(folder: string, name: string): Promise<string> {
  const problem = findPathProblem(name);
  if (problem !== null) throw leavesFolder(folder, name, problem);
  const root = await resolveLinks(folder);
  const target = await resolveLinks(join(root, name));
  const blobs = hubBlobsFolder(root);
  if (isInside(root, target) || (blobs !== null && isInside(blobs, target))) return target;
  throw leavesFolder(folder, name, `it leads to "${target}"`);
}

function findPathProblem(name: string): string | null {
  if (name.includes("\0")) return "it holds a NUL byte";
  if (name.includes("\\")) return "it holds a backslash";
  if (name.startsWith("/") || /^[A-Za-z]:/.test(name)) return "it is absolute";
  const segments = name.split("/");
  if (segments.includes("..")) return 'it climbs with ".."';
  return segments.some((segment) => segment === "" || segment === ".") ? "it is no plain path" : null;
}

function leavesFolder(folder: string, name: string, problem: string): ArrowQuantError {
  const shown = JSON.stringify(name.slice(0, 200));
  return new ArrowQuantError("E_PATH", `path ${shown} must stay in "${folder}", but ${problem}`, {
    details: { folder, name },
  });
}

async function resolveLinks(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    throw readError(error, path, "open");
  }
}

function isInside(folder: string, path: string): boolean {
  return path.startsWith(folder.endsWith(sep) ? folder : folder + sep);
}

function hubBlobsFolder(root: string): string | null {
  const segments = root.split(sep);
  const at = segments.findIndex(
    (segment, index) => segment === "snapshots" && segments[index - 1]?.startsWith("models--") === true,
  );
  return at === -1 || at === segments.length - 1 ? null : [...segments.slice(0, at), "blobs"].join(sep);
}
