/**
 * Outputs that appear whole or not at all: written beside the target under a temporary name that carries the
 * process id, synced, renamed. A killed run leaves the old file or the new one; what it leaves behind besides
 * is swept by the next run.
 */
import { randomBytes } from "node:crypto";
import { type FileHandle, open, readdir, realpath, rename, rm, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { ArrowQuantError } from "../errors.js";

/** `NAME.arrowquant-PID-RANDOM.tmp` is unfinished; `….old` is a finished folder moved aside during a swap. */
const LEFTOVER = /^(.+)\.arrowquant-(\d+)-[0-9a-f]{8}\.(tmp|old|spill)$/;

/** Renaming onto a folder fails with these where another run has put its own there in the meantime. */
const RACED: ReadonlySet<string> = new Set(["ENOTEMPTY", "EEXIST"]);

/** So many runs would have to finish within the same moment for a swap to fail. */
const MAX_SWAPS = 16;

export interface OutputOptions {
  readonly kind: "file" | "folder";
  /** Replace whatever stands there. */
  readonly force: boolean;
  /** Files being read: never replaced without `force`. */
  readonly inputs: readonly string[];
  /** Whether an existing target was written by this program and may be replaced. */
  readonly isOurs: (path: string) => Promise<boolean>;
}

export class OutputTarget {
  readonly path: string;
  readonly temporaryPath: string;
  readonly #spillPrefix: string;
  readonly #kind: OutputOptions["kind"];

  private constructor(path: string, kind: OutputOptions["kind"]) {
    this.path = path;
    this.#kind = kind;
    this.#spillPrefix = `${path}.arrowquant-${process.pid}-`;
    this.temporaryPath = `${this.#spillPrefix}${randomBytes(4).toString("hex")}.tmp`;
  }

  /**
   * Checks that the target may be written and sweeps what dead processes left beside it.
   * @throws E_OUTPUT where something else stands there, E_WRITE where the folder cannot be written.
   */
  static async prepare(path: string, options: OutputOptions): Promise<OutputTarget> {
    const target = new OutputTarget(resolve(path), options.kind);
    await sweepLeftovers(dirname(target.path));
    if (!options.force) await assertReplaceable(target.path, options);
    return target;
  }

  /** Path for a spill file of its own, removed by the caller or by the next sweep. */
  spillPath(): string {
    return `${this.#spillPrefix}${randomBytes(4).toString("hex")}.spill`;
  }

  /** Puts the temporary file or folder, already synced, in the target's place. */
  async commit(): Promise<void> {
    try {
      if (this.#kind === "folder") await swapFolder(this.temporaryPath, this.path, this.#spillPrefix);
      else await rename(this.temporaryPath, this.path);
      await syncFolder(dirname(this.path));
    } catch (thrown) {
      throw writeError(thrown, this.path);
    }
  }

  async discard(): Promise<void> {
    await rm(this.temporaryPath, { recursive: true, force: true });
  }
}

/** A file being written. */
export class OutputFile {
  readonly path: string;
  readonly #handle: FileHandle;
  #byteLength = 0;

  private constructor(path: string, handle: FileHandle) {
    this.path = path;
    this.#handle = handle;
  }

  static async create(path: string): Promise<OutputFile> {
    try {
      return new OutputFile(path, await open(path, "wx+"));
    } catch (thrown) {
      throw writeError(thrown, path);
    }
  }

  get byteLength(): number {
    return this.#byteLength;
  }

  /** Appends bytes; returns where they begin. */
  async write(bytes: Uint8Array): Promise<number> {
    const byteOffset = this.#byteLength;
    await this.writeAt(bytes, byteOffset);
    return byteOffset;
  }

  /** Writes bytes at a place, complete even where the system takes only part of them at a time. */
  async writeAt(bytes: Uint8Array, byteOffset: number): Promise<void> {
    try {
      for (let done = 0; done < bytes.byteLength; ) {
        const { bytesWritten } = await this.#handle.write(bytes, done, bytes.byteLength - done, byteOffset + done);
        done += bytesWritten;
      }
    } catch (thrown) {
      throw writeError(thrown, this.path);
    }
    this.#byteLength = Math.max(this.#byteLength, byteOffset + bytes.byteLength);
  }

  /** Reads back bytes written before. */
  async read(into: Uint8Array, byteOffset: number): Promise<void> {
    for (let done = 0; done < into.byteLength; ) {
      const { bytesRead } = await this.#handle.read(into, done, into.byteLength - done, byteOffset + done);
      if (bytesRead === 0) {
        throw new ArrowQuantError(
          "E_WRITE",
          `${this.path} ends at byte ${byteOffset + done} although more was written`,
        );
      }
      done += bytesRead;
    }
  }

  async sync(): Promise<void> {
    try {
      await this.#handle.sync();
    } catch (thrown) {
      throw writeError(thrown, this.path);
    }
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

/** Any failure to write as one error, with the reason of the operating system. */
export function writeError(thrown: unknown, path: string): ArrowQuantError {
  if (thrown instanceof ArrowQuantError) return thrown;
  const { code = "", message } = thrown as NodeJS.ErrnoException;
  const hints: Record<string, string> = {
    ENOSPC: "the disk is full; free some space or write elsewhere",
    EDQUOT: "the disk quota is used up",
    EFBIG: "the file system or a limit does not allow files this large",
    EACCES: "the folder is not writable",
    EROFS: "the file system is read-only",
    ENOENT: "the folder does not exist; create it first",
    ENOTDIR: "a part of the path is a file",
    EISDIR: "the path is a folder",
  };
  const hint = hints[code];
  return new ArrowQuantError("E_WRITE", `cannot write ${path}: ${message}`, {
    ...(hint === undefined ? {} : { hint }),
    details: { path, errno: code },
    cause: thrown,
  });
}

async function assertReplaceable(path: string, options: OutputOptions): Promise<void> {
  const found = await stat(path).catch(() => null);
  if (found === null) return;
  const real = await realpath(path);
  for (const input of options.inputs) {
    if ((await realpath(input).catch(() => null)) === real) {
      throw new ArrowQuantError("E_OUTPUT", `output ${path} is the input`, {
        hint: "choose another output, or replace the input with --force",
        details: { path },
      });
    }
  }
  if (found.isDirectory() !== (options.kind === "folder")) {
    throw new ArrowQuantError(
      "E_OUTPUT",
      options.kind === "folder"
        ? `output ${path} is a file, but several components need a folder`
        : `output ${path} is a folder, but one component is one file`,
      { hint: options.kind === "folder" ? "name a folder" : "name a file that ends in .parquet", details: { path } },
    );
  }
  if (!(await options.isOurs(path))) {
    throw new ArrowQuantError("E_OUTPUT", `output ${path} exists and was not written by arrowquant`, {
      hint: "replace it with --force, or choose another output",
      details: { path },
    });
  }
}

async function swapFolder(from: string, to: string, prefix: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const aside = `${prefix}${randomBytes(4).toString("hex")}.old`;
    const existed = await rename(to, aside).then(
      () => true,
      (thrown: NodeJS.ErrnoException) => {
        if (thrown.code === "ENOENT") return false;
        throw thrown;
      },
    );
    try {
      await rename(from, to);
    } catch (thrown) {
      const isRaced = RACED.has((thrown as NodeJS.ErrnoException).code ?? "");
      // Where another run was quicker its folder stays, and the one moved aside is out of date.
      if (existed && !isRaced) await rename(aside, to);
      else if (existed) await rm(aside, { recursive: true, force: true });
      if (isRaced && attempt < MAX_SWAPS) continue;
      throw thrown;
    }
    if (existed) await rm(aside, { recursive: true, force: true });
    return;
  }
}

/** Makes a rename durable; folders cannot be synced everywhere, and then the rename is all there is. */
async function syncFolder(path: string): Promise<void> {
  const handle = await open(path, "r").catch(() => null);
  if (handle === null) return;
  await handle.sync().catch(() => undefined);
  await handle.close();
}

/** Removes temporary files of processes that are gone; puts back a folder caught in the middle of a swap. */
async function sweepLeftovers(folder: string): Promise<void> {
  const names = await readdir(folder).catch((thrown) => {
    throw writeError(thrown, folder);
  });
  for (const name of names) {
    const match = LEFTOVER.exec(name);
    if (match === null || isAlive(Number(match[2]))) continue;
    const path = join(folder, name);
    const original = join(folder, match[1] as string);
    if (match[3] === "old" && (await stat(original).catch(() => null)) === null) {
      await rename(path, original).catch(() => undefined);
    } else {
      await rm(path, { recursive: true, force: true });
    }
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (thrown) {
    // EPERM: it lives, but is somebody else's.
    return (thrown as NodeJS.ErrnoException).code === "EPERM";
  }
}
