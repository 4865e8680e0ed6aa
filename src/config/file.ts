/** Configuration files on disk. */
import { open } from "node:fs/promises";
import { ArrowQuantError, type ErrorCode } from "../errors.js";
import { MAX_CONFIG_BYTES } from "./yaml.js";

export interface ConfigFile {
  /** As the user wrote it; messages and origins repeat it. */
  readonly path: string;
  readonly text: string;
}

/** The text of a configuration file; `E_CONFIG` where there is none, it is too large or no UTF-8. */
export function loadConfigFile(path: string): Promise<ConfigFile> {
  const hint = "`arrowquant config init` writes a configuration file to start from";
  return loadText(path, { code: "E_CONFIG", what: "configuration", maxBytes: MAX_CONFIG_BYTES, hint });
}

/** What a text file is to be, and what is said where it is not. */
export interface TextKind {
  readonly code: ErrorCode;
  readonly what: string;
  readonly maxBytes: number;
  readonly hint: string;
}

/** The text of a file; `code` where there is none, it is too large or no UTF-8. */
export async function loadText(path: string, { code: refusal, what, maxBytes, hint }: TextKind): Promise<ConfigFile> {
  const refuse = (sentence: string, details: Record<string, unknown>, cause?: unknown): ArrowQuantError =>
    new ArrowQuantError(refusal, `${path}: ${sentence}`, {
      hint,
      details: { path, ...details },
      ...(cause === undefined ? {} : { cause }),
    });
  let bytes: Buffer;
  try {
    await using file = await open(path, "r");
    // One byte more than allowed tells a file that is too large, whatever its size claims to be.
    const buffer = Buffer.alloc(maxBytes + 1);
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
  if (bytes.length > maxBytes) {
    throw refuse(`more than ${maxBytes} bytes, no ${what}`, { limit: maxBytes });
  }
  try {
    return { path, text: new TextDecoder("utf-8", { fatal: true }).decode(bytes) };
  } catch (cause) {
    throw refuse("not UTF-8 text", {}, cause);
  }
}
