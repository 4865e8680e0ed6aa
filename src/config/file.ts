/** Configuration files on disk. */
import { open } from "node:fs/promises";
import { ArrowQuantError } from "../errors.js";
import { MAX_CONFIG_BYTES } from "./yaml.js";

export interface ConfigFile {
  /** As the user wrote it; messages and origins repeat it. */
  readonly path: string;
  readonly text: string;
}

/** The text of a configuration file; `E_CONFIG` where there is none, it is too large or no UTF-8. */
export async function loadConfigFile(path: string): Promise<ConfigFile> {
  const refuse = (sentence: string, details: Record<string, unknown>, cause?: unknown): ArrowQuantError =>
    new ArrowQuantError("E_CONFIG", `${path}: ${sentence}`, {
      hint: "`arrowquant config init` writes a configuration file to start from",
      details: { path, ...details },
      ...(cause === undefined ? {} : { cause }),
    });
  let bytes: Buffer;
  try {
    await using file = await open(path, "r");
    // One byte more than allowed tells a file that is too large, whatever its size claims to be.
    const buffer = Buffer.alloc(MAX_CONFIG_BYTES + 1);
    let byteLength = 0;
    for (;;) {
      const { bytesRead } = await file.read(buffer, byteLength, buffer.length - byteLength);
      byteLength += bytesRead;
      if (bytesRead === 0 || byteLength === buffer.length) break;
    }
    bytes = buffer.subarray(0, byteLength);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    const sentence = code === "ENOENT" ? "no such file" : code === "EISDIR" ? "a folder, not a file" : null;
    throw refuse(sentence ?? `cannot be read (${code ?? String(cause)})`, { code: code ?? null }, cause);
  }
  if (bytes.length > MAX_CONFIG_BYTES) {
    throw refuse(`more than ${MAX_CONFIG_BYTES} bytes, no configuration`, { limit: MAX_CONFIG_BYTES });
  }
  try {
    return { path, text: new TextDecoder("utf-8", { fatal: true }).decode(bytes) };
  } catch (cause) {
    throw refuse("not UTF-8 text", {}, cause);
  }
}
