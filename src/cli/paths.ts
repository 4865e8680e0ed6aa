import { ArrowQuantError } from "../errors.js";

/** stdin and stdout cannot be read and written by position, which is how models are. */
export function refuseDash(path: string, what: string): string {
  if (path !== "-") return path;
  throw new ArrowQuantError("E_USAGE", `${what} cannot be "-": models are read and written by position`, {
    hint: "name a file or folder",
  });
}
