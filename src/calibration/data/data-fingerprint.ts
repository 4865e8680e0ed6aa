/** By what a later run knows data files again. */
import { createHash } from "node:crypto";
import { fingerprintComponent } from "../../formats/fingerprint.js";
import { statOrThrow } from "../../io/read.js";
import { openLocalFile, readChunks } from "./local-file.js";

/** A file up to this size is hashed whole, in a second or so; of a larger one blocks, its size and its time. */
const WHOLE_BYTES = 256 * 1024 * 1024;

/** SHA-256, in hexadecimal, over the parts of the files in order; names do not count. */
export async function fingerprintFiles(paths: readonly string[], signal: AbortSignal): Promise<string> {
  const hash = createHash("sha256");
  for (const path of paths) {
    const file = await openLocalFile(path);
    if (file.byteLength <= WHOLE_BYTES) {
      const whole = createHash("sha256");
      for await (const chunk of readChunks(file, signal)) whole.update(chunk);
      hash.update(wholePart(file.byteLength, whole.digest("hex")));
      continue;
    }
    const { mtimeNs } = await statOrThrow(path);
    const sample = await fingerprintComponent({ files: [{ ...file, name: "data", headerByteLength: 0 }] });
    hash.update(`blocks ${file.byteLength} ${mtimeNs} ${sample}\n`);
  }
  return hash.digest("hex");
}

/** The same of one file whose SHA-256 is known already. */
export function fingerprintWhole(byteLength: number, sha256: string): string {
  return createHash("sha256").update(wholePart(byteLength, sha256)).digest("hex");
}

function wholePart(byteLength: number, sha256: string): string {
  return `whole ${byteLength} ${sha256}\n`;
}
