/** A file as it was when it was opened; it is open only while something is read. */
import { ArrowQuantError } from "../../errors.js";
import { type OpenFile, readExactly, withFile } from "../../io/read.js";

export interface LocalFile {
  readonly path: string;
  readonly byteLength: number;
  readonly identity: string;
}

export async function openLocalFile(path: string): Promise<LocalFile> {
  return withFile(path, async ({ byteLength, identity }) => ({ path, byteLength, identity }));
}

/** Opens the file again; `E_CHANGED` where it is no longer the same. */
export async function withLocalFile<T>(file: LocalFile, use: (open: OpenFile) => Promise<T>): Promise<T> {
  return withFile(file.path, async (open) => {
    if (open.identity !== file.identity) {
      throw new ArrowQuantError("E_CHANGED", `"${file.path}" changed while it was read`, {
        hint: "wait until whatever writes it is done, then run again",
        details: { path: file.path, before: file.identity, now: open.identity },
      });
    }
    return use(open);
  });
}

/** One chunk is one system call and one turn of the event loop. */
const CHUNK_BYTES = 1024 * 1024;

/** The bytes in order; each chunk is good until the next one is asked for. Throws the signal's reason. */
export async function* readChunks(file: LocalFile, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const buffer = Buffer.allocUnsafeSlow(Math.min(CHUNK_BYTES, file.byteLength));
  for (let from = 0; from < file.byteLength; from += buffer.length) {
    signal.throwIfAborted();
    const chunk = buffer.subarray(0, Math.min(buffer.length, file.byteLength - from));
    await withLocalFile(file, (open) => readExactly(open, chunk, from));
    yield chunk;
  }
}
