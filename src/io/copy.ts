/** Files copied byte by byte: new files in full, never links, which would die with the original. */

import { ArrowQuantError } from "../errors.js";
import { OutputFile } from "./output.js";
import { fileIdentity, readExactly, statOrThrow, withFile } from "./read.js";

/** Copied at a time: large enough for the disk, nothing beside the memory cap. */
const BLOCK_BYTES = 1024 * 1024;

/**
 * Copies `from` to `to`, which must not be there yet, and syncs it.
 * @param onBytes told of each block that has been written
 * @throws E_NOT_FOUND, E_READ, E_CHANGED where the file was written to meanwhile, E_WRITE, the signal's reason
 */
export async function copyFile(
  from: string,
  to: string,
  signal: AbortSignal,
  onBytes: (byteCount: number) => void,
): Promise<void> {
  await withFile(from, async (source) => {
    const target = await OutputFile.create(to);
    try {
      const block = new Uint8Array(Math.min(BLOCK_BYTES, source.byteLength));
      while (target.byteLength < source.byteLength) {
        signal.throwIfAborted();
        const bytes = block.subarray(0, Math.min(block.length, source.byteLength - target.byteLength));
        await readExactly(source, bytes, target.byteLength);
        await target.write(bytes);
        onBytes(bytes.length);
      }
      await target.sync();
    } finally {
      await target.close();
    }
    const now = fileIdentity(await statOrThrow(from));
    if (now === source.identity) return;
    throw new ArrowQuantError("E_CHANGED", `"${from}" changed while it was copied`, {
      hint: "wait until whatever writes it is done, then run again",
      details: { path: from, before: source.identity, now },
    });
  });
}
