/** The native files of a path: a model of several components is a folder with one for each. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { ArrowQuantError } from "../../errors.js";
import { statOrThrow } from "../../io/read.js";

/** `path` itself, or the `.parquet` files of a folder, in order of name. Throws `E_NOT_FOUND`, `E_UNKNOWN_FORMAT`. */
export async function listNativeFiles(path: string): Promise<string[]> {
  if (!(await statOrThrow(path)).isDirectory()) return [path];
  const names = (await readdir(path)).filter((name) => name.endsWith(".parquet")).sort();
  if (names.length > 0) return names.map((name) => join(path, name));
  throw new ArrowQuantError("E_UNKNOWN_FORMAT", `"${path}" holds no .parquet file`, { details: { path } });
}
