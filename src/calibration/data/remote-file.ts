/** A file of a server as a stream of bytes that goes on where the network failed. */
import { setTimeout as wait } from "node:timers/promises";
import { ArrowQuantError } from "../../errors.js";
import { type Answer, downloadError, isTransient, type NetworkLimits, parseCount, requestFile } from "./http.js";
import type { RemoteAddress } from "./location.js";

/** Tries start again from the first where so much came since the last failure. */
const PROGRESS_BYTES = 1024 * 1024;

/** A server that asks for a longer wait is not waited for. */
const MAX_WAIT_MS = 120_000;

/** More than any calibration needs, and than most disks take. */
const MAX_BYTES = 64 * 1024 ** 3;

/** What a server says of the file. */
export interface RemoteInfo {
  readonly byteLength: number | null;
  readonly sha256: string | null;
  readonly etag: string | null;
  readonly lastModified: string | null;
  /** Whether it says that it sends parts of the file. */
  readonly sendsParts: boolean;
}

export interface FetchOptions {
  readonly limits: NetworkLimits;
  readonly signal: AbortSignal;
}

export class RemoteFile {
  readonly address: RemoteAddress;
  readonly info: RemoteInfo;
  readonly #options: FetchOptions;
  /** The answer that told `info`, until it is read. */
  #first: Answer | null;

  private constructor(address: RemoteAddress, options: FetchOptions, first: Answer) {
    this.address = address;
    this.#options = options;
    this.#first = first;
    this.info = readInfo(first);
  }

  /**
   * Asks for the file.
   * @param known what an earlier run was told; null for one that is not known
   * @returns null where the file is still the known one
   */
  static async open(
    address: RemoteAddress,
    options: FetchOptions,
    known: Pick<RemoteInfo, "etag" | "lastModified" | "sha256"> | null,
  ): Promise<RemoteFile | null> {
    const conditions: Record<string, string> = {};
    if (known?.etag != null) conditions["if-none-match"] = known.etag;
    else if (known?.lastModified != null) conditions["if-modified-since"] = known.lastModified;
    const answer = await retry(options, () => requestFile(address, conditions, options.limits, options.signal));
    if (answer.status === 304 && known !== null) {
      answer.close();
      return null;
    }
    try {
      if (answer.status !== 200)
        throw downloadError(address.name, `the server answers ${answer.status} to a plain request`);
      const file = new RemoteFile(address, options, answer);
      file.#checkLength(answer);
      if (known?.sha256 == null || file.info.sha256 !== known.sha256) return file;
    } catch (thrown) {
      answer.close();
      throw thrown;
    }
    answer.close();
    return null;
  }

  /** Whether a broken connection can be made good, with the certainty that the file is the same. */
  get isResumable(): boolean {
    return validator(this.info) !== null;
  }

  /**
   * All bytes, each once. Every call asks for the file anew, but for the first.
   * @throws E_DOWNLOAD where the server lies or fails for good, E_CHANGED where the file is another than at first
   */
  async *chunks(): AsyncGenerator<Uint8Array, void, undefined> {
    const { limits, signal } = this.#options;
    const { name } = this.address;
    let answer = this.#first;
    this.#first = null;
    let position = 0;
    let resumedAt = 0;
    let failures = 0;
    try {
      for (;;) {
        try {
          const at = position;
          answer ??= await this.#resume(at);
          let skipped = answer.status === 200 ? at : 0;
          for await (const piece of answer.body()) {
            const rest = piece.subarray(Math.min(skipped, piece.length));
            skipped -= piece.length - rest.length;
            position += rest.length;
            this.#checkPosition(position);
            if (rest.length > 0) yield rest;
          }
          const { byteLength } = this.info;
          if (byteLength === null || position >= byteLength) return;
          throw downloadError(name, `the connection ended at byte ${position} of ${byteLength}`, {
            details: { position, byteLength, transient: true },
          });
        } catch (thrown) {
          if (!isTransient(thrown)) throw thrown;
          failures = position - resumedAt >= PROGRESS_BYTES ? 1 : failures + 1;
          resumedAt = position;
          if (failures >= limits.attempts) throw thrown;
          await pause(thrown, failures, limits, signal);
        }
        answer?.close();
        answer = null;
      }
    } finally {
      answer?.close();
    }
  }

  /** Asks for the bytes from `position` on. */
  async #resume(position: number): Promise<Answer> {
    const { limits, signal } = this.#options;
    const { name } = this.address;
    const condition = validator(this.info);
    if (position > 0 && condition === null) {
      throw downloadError(name, `the connection ended at byte ${position}, and the server offers no way to go on`, {
        details: { position, restart: true },
      });
    }
    const headers: Record<string, string> = position === 0 ? {} : { range: `bytes=${position}-` };
    if (position > 0 && condition !== null) headers["if-range"] = condition;
    const answer = await requestFile(this.address, headers, limits, signal);
    try {
      this.#checkSame(answer, position);
      return answer;
    } catch (thrown) {
      answer.close();
      throw thrown;
    }
  }

  /** Whether an answer is about the file of the first one, and holds what was asked for. */
  #checkSame(answer: Answer, position: number): void {
    const { name } = this.address;
    const found = readInfo(answer);
    const keys = ["byteLength", "sha256", "etag", "lastModified"] as const;
    const differs = keys.some((key) => found[key] !== null && this.info[key] !== null && found[key] !== this.info[key]);
    // What a whole file is sent for instead of a part must be known for the same: its first bytes are skipped.
    const isUnknown = position > 0 && answer.status === 200 && validator(found) !== validator(this.info);
    if (differs || isUnknown) {
      throw new ArrowQuantError("E_CHANGED", `"${name}" changed while it was fetched`, {
        hint: "run again",
        details: { location: name, before: this.info, now: found, restart: true },
      });
    }
    if (answer.status === 200) return;
    const start = contentRange(answer)?.start;
    if (answer.status === 206 && start === position) return;
    throw downloadError(
      name,
      `the server sends bytes from ${start ?? "nowhere"} on, asked for were those from ${position}`,
      {
        details: { asked: position, start: start ?? null },
      },
    );
  }

  #checkLength(answer: Answer): void {
    const { name } = this.address;
    const { byteLength } = this.info;
    if (answer.linkedBytes !== null && byteLength !== null && answer.linkedBytes !== byteLength) {
      throw downloadError(name, `has ${answer.linkedBytes} bytes by the hub and ${byteLength} by the server`);
    }
    this.#checkPosition(byteLength ?? 0);
  }

  #checkPosition(position: number): void {
    const { name } = this.address;
    const { byteLength } = this.info;
    if (byteLength !== null && position > byteLength) {
      throw downloadError(name, `the server sends more than the ${byteLength} bytes that it announced`, {
        details: { byteLength },
      });
    }
    if (position <= MAX_BYTES) return;
    throw new ArrowQuantError("E_LIMIT", `"${name}" has ${position} bytes or more, the limit is ${MAX_BYTES}`, {
      details: { location: name, position, limit: MAX_BYTES },
    });
  }
}

/** A strong entity tag, else the time: what makes a part belong to the parts before it (RFC 9110, 13.1.5). */
function validator({ etag, lastModified }: RemoteInfo): string | null {
  if (etag !== null && !etag.startsWith("W/")) return etag;
  return etag === null ? lastModified : null;
}

function readInfo(answer: Answer): RemoteInfo {
  const { headers } = answer;
  return {
    byteLength:
      answer.status === 206 ? (contentRange(answer)?.total ?? null) : parseCount(headers.get("content-length")),
    sha256: answer.sha256,
    etag: headers.get("etag"),
    lastModified: headers.get("last-modified"),
    sendsParts: headers.get("accept-ranges") === "bytes",
  };
}

function contentRange({ headers }: Answer): { start: number; total: number | null } | null {
  const [, start, total] = /^bytes (\d{1,15})-\d{1,15}\/(\d{1,15}|\*)$/.exec(headers.get("content-range") ?? "") ?? [];
  return start === undefined ? null : { start: Number(start), total: parseCount(total ?? null) };
}

async function retry<T>({ limits, signal }: FetchOptions, work: () => Promise<T>): Promise<T> {
  for (let failures = 1; ; failures++) {
    try {
      return await work();
    } catch (thrown) {
      if (!isTransient(thrown) || failures >= limits.attempts) throw thrown;
      await pause(thrown, failures, limits, signal);
    }
  }
}

/** Waits before the next try, as long as the server asked for or longer from try to try. */
async function pause(
  error: ArrowQuantError,
  failures: number,
  { backoffMs }: NetworkLimits,
  signal: AbortSignal,
): Promise<void> {
  const asked = error.details["retryAfterMs"];
  const waitMs = typeof asked === "number" ? asked : Math.min(backoffMs * 2 ** (failures - 1), MAX_WAIT_MS);
  if (waitMs > MAX_WAIT_MS) throw error;
  await wait(waitMs, undefined, { signal }).catch(() => signal.throwIfAborted());
}
