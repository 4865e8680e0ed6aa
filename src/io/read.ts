/**
 * Positioned, exact reads. Nothing here reads a file whole: callers say which bytes and where they go.
 */
import { type BigIntStats, readSync } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import { ArrowQuantError } from "../errors.js";

/** A regular file open for reading, as it was at that moment. */
export interface OpenFile {
  readonly path: string;
  readonly handle: FileHandle;
  readonly byteLength: number;
  /** See `fileIdentity`. */
  readonly identity: string;
}

/** Device, inode, size and modification time: what changes when a file is replaced or written to. */
export function fileIdentity(stats: BigIntStats): string {
  return `${stats.dev}:${stats.ino}:${stats.size}:${stats.mtimeNs}`;
}

/**
 * Opens `path`, hands it to `use`, closes it whatever happens.
 * Throws `E_NOT_FOUND`, or `E_READ` where it is no regular file or may not be read.
 */
export async function withFile<T>(path: string, use: (file: OpenFile) => Promise<T>): Promise<T> {
  // Looked at before it is opened: opening a named pipe would wait for a writer.
  const found = await statOrThrow(path);
  if (!found.isFile()) {
    const kind = found.isDirectory() ? "a folder" : "a pipe, socket or device";
    throw new ArrowQuantError("E_READ", `"${path}" is ${kind}, not a regular file`, { details: { path } });
  }
  let handle: FileHandle;
  try {
    handle = await open(path, "r");
  } catch (error) {
    throw readError(error, path, "open");
  }
  try {
    const stats = await handle.stat({ bigint: true });
    return await use({ path, handle, byteLength: Number(stats.size), identity: fileIdentity(stats) });
  } finally {
    await handle.close();
  }
}

/** `stat` with the errors of this program. */
export async function statOrThrow(path: string): Promise<BigIntStats> {
  try {
    return await stat(path, { bigint: true });
  } catch (error) {
    throw readError(error, path, "open");
  }
}

/**
 * Fills `target` from `byteOffset` on, completing short reads.
 * Throws `E_TRUNCATED` where the file ends first and `E_READ` on any other failure.
 */
export async function readExactly(file: OpenFile, target: Uint8Array, byteOffset: number): Promise<void> {
  let filled = 0;
  while (filled < target.byteLength) {
    const at = byteOffset + filled;
    let bytesRead: number;
    try {
      ({ bytesRead } = await file.handle.read(target, filled, target.byteLength - filled, at));
    } catch (error) {
      if (isInterrupted(error)) continue;
      throw readError(error, file.path, "read", at);
    }
    if (bytesRead === 0) throw endedEarly(file.path, byteOffset, target.byteLength, at);
    filled += bytesRead;
  }
}

/** `readExactly` for worker threads, which read by descriptor straight into their own memory. */
export function readExactlySync(fd: number, path: string, target: Uint8Array, byteOffset: number): void {
  let filled = 0;
  while (filled < target.byteLength) {
    const at = byteOffset + filled;
    let bytesRead: number;
    try {
      bytesRead = readSync(fd, target, filled, target.byteLength - filled, at);
    } catch (error) {
      if (isInterrupted(error)) continue;
      throw readError(error, path, "read", at);
    }
    if (bytesRead === 0) throw endedEarly(path, byteOffset, target.byteLength, at);
    filled += bytesRead;
  }
}

/** The bytes of a small file (a configuration, an index); `E_LIMIT` where it is larger than `maxBytes`. */
export async function readSmallFile(path: string, maxBytes: number): Promise<Buffer> {
  return withFile(path, async (file) => {
    if (file.byteLength > maxBytes) {
      throw new ArrowQuantError("E_LIMIT", `"${path}" has ${file.byteLength} bytes, the limit is ${maxBytes}`, {
        details: { path, byteLength: file.byteLength, maxBytes },
      });
    }
    const bytes = Buffer.alloc(file.byteLength);
    await readExactly(file, bytes, 0);
    return bytes;
  });
}

/** An operating system's failure as one of ours, with path, offset and errno. */
export function readError(error: unknown, path: string, verb: "open" | "read", byteOffset?: number): ArrowQuantError {
  const { code = "unknown", errno } = error as NodeJS.ErrnoException;
  const details = { path, errno: errno ?? null, errnoName: code, byteOffset: byteOffset ?? null };
  if (code === "ENOENT" || code === "ENOTDIR") {
    return new ArrowQuantError("E_NOT_FOUND", `there is no "${path}"`, { details, cause: error });
  }
  const where = byteOffset === undefined ? "" : ` at byte ${byteOffset}`;
  return new ArrowQuantError("E_READ", `cannot ${verb} "${path}"${where}: ${code}`, {
    details,
    cause: error,
  });
}

// libuv repeats every interrupted call but reads and closes (uv__fs_work).
function isInterrupted(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === "EINTR";
}

function endedEarly(path: string, byteOffset: number, byteLength: number, end: number): ArrowQuantError {
  const wanted = `bytes ${byteOffset} to ${byteOffset + byteLength}`;
  const message = `"${path}" ends before byte ${end}, ${wanted} were wanted`;
  return new ArrowQuantError("E_TRUNCATED", message, { details: { path, byteOffset, byteLength, end } });
}
