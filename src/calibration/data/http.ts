/** One request for a file, up to the headers of its answer, and the reading of its body. */
import { ArrowQuantError } from "../../errors.js";
import type { RemoteAddress } from "./location.js";

/** How long and how often the network is tried. */
export interface NetworkLimits {
  /** From the request to the headers of the answer. */
  readonly connectTimeoutMs: number;
  /** Between two pieces of the body. */
  readonly stallTimeoutMs: number;
  /** Tries in a row that bring next to nothing. */
  readonly attempts: number;
  /** Wait before the second try; doubled from try to try. */
  readonly backoffMs: number;
}

export const NETWORK_LIMITS: NetworkLimits = {
  connectTimeoutMs: 30_000,
  stallTimeoutMs: 30_000,
  attempts: 5,
  backoffMs: 1000,
};

/** What browsers and curl allow is 20 to 50; a hub and its delivery network take two. */
const MAX_REDIRECTS = 10;

const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/** Answers that another try may change: too busy, gateway troubles. */
const TRANSIENT: ReadonlySet<number> = new Set([408, 425, 429, 500, 502, 503, 504]);

/** Failures to connect that another try will not change: no such host, a certificate that is not trusted. */
const LASTING = /^(?:ENOTFOUND|CERT_|ERR_TLS_|ERR_SSL_|UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO)/;

const HTTP_HINTS: Readonly<Record<number, string>> = {
  401: "the address wants a login; for a data set on the hub set HF_TOKEN",
  403: "access is refused; for a gated data set on the hub accept its terms and set HF_TOKEN",
  404: "there is no such file; check its spelling, and whether it is private",
};

/** Adds these to a request; `Range` and its conditions. */
export type RequestHeaders = Readonly<Record<string, string>>;

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  /** SHA-256 of the content as the hub says it, by its own header or, where it answers itself, as the entity tag. */
  readonly sha256: string | null;
  /** Bytes of the content as the hub says it. */
  readonly linkedBytes: number | null;
  /** Pieces of the body. Throws transient errors where it stalls or breaks off. */
  body(): AsyncGenerator<Uint8Array, void, undefined>;
  /** Drops the connection, unless the body was read to its end. */
  close(): void;
}

/** Whether the same request may succeed later. */
export function isTransient(thrown: unknown): thrown is ArrowQuantError {
  return thrown instanceof ArrowQuantError && thrown.details["transient"] === true;
}

export function downloadError(
  name: string,
  problem: string,
  options: { hint?: string; details?: Readonly<Record<string, unknown>>; cause?: unknown } = {},
): ArrowQuantError {
  return new ArrowQuantError("E_DOWNLOAD", `"${name}": ${problem}`, {
    ...options,
    details: { location: name, ...options.details },
  });
}

/**
 * Asks for the file and follows redirects.
 * @returns an answer of status 200, 206 or 304
 * @throws E_DOWNLOAD for any other, transient or not; the signal's reason
 */
export async function requestFile(
  address: RemoteAddress,
  headers: RequestHeaders,
  limits: NetworkLimits,
  signal: AbortSignal,
): Promise<Answer> {
  const connection = new Connection(address, limits, signal);
  try {
    return await connection.follow(headers);
  } catch (thrown) {
    connection.close();
    throw thrown;
  }
}

class Connection {
  readonly #address: RemoteAddress;
  readonly #limits: NetworkLimits;
  readonly #signal: AbortSignal;
  readonly #controller = new AbortController();
  readonly #stop: () => void;

  constructor(address: RemoteAddress, limits: NetworkLimits, signal: AbortSignal) {
    signal.throwIfAborted();
    this.#address = address;
    this.#limits = limits;
    this.#signal = signal;
    this.#stop = () => this.#controller.abort(signal.reason);
    signal.addEventListener("abort", this.#stop, { once: true });
  }

  close(): void {
    this.#signal.removeEventListener("abort", this.#stop);
    this.#controller.abort();
  }

  async follow(headers: RequestHeaders): Promise<Answer> {
    const { name, hubOrigin } = this.#address;
    let { url } = this.#address;
    let sha256: string | null = null;
    let linkedBytes: number | null = null;
    for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects++) {
      const response = await this.#fetch(url, headers);
      sha256 ??= parseSha256(response.headers.get("x-linked-etag"));
      linkedBytes ??= parseCount(response.headers.get("x-linked-size"));
      if (REDIRECTS.has(response.status)) {
        await response.body?.cancel();
        url = this.#redirect(url, response.headers.get("location"));
        continue;
      }
      if (![200, 206, 304].includes(response.status)) throw this.#refused(response);
      const encoding = response.headers.get("content-encoding") ?? "identity";
      if (encoding !== "identity")
        throw downloadError(name, `is sent as ${encoding}, although plain bytes were asked for`);
      if (url.origin === hubOrigin) sha256 ??= parseSha256(response.headers.get("etag"));
      return {
        status: response.status,
        headers: response.headers,
        sha256,
        linkedBytes,
        body: () => this.#read(response),
        close: () => this.close(),
      };
    }
    throw downloadError(name, `is redirected more than ${MAX_REDIRECTS} times`);
  }

  async #fetch(url: URL, headers: RequestHeaders): Promise<Response> {
    const { hubOrigin, token } = this.#address;
    const isHub = url.origin === hubOrigin && token !== null;
    return this.#timed(
      this.#limits.connectTimeoutMs,
      "no answer",
      fetch(url, {
        redirect: "manual",
        signal: this.#controller.signal,
        headers: {
          // Encoded bytes have no length to check and no place to resume at.
          "accept-encoding": "identity",
          ...headers,
          ...(isHub ? { authorization: `Bearer ${token}` } : {}),
        },
      }),
    );
  }

  async *#read(response: Response): AsyncGenerator<Uint8Array, void, undefined> {
    if (response.body === null) return this.close();
    const reader = response.body.getReader();
    try {
      for (;;) {
        const piece = await this.#timed(this.#limits.stallTimeoutMs, "nothing more came", reader.read());
        if (piece.done) return;
        yield piece.value;
      }
    } finally {
      this.close();
    }
  }

  /** Waits for `work`, or drops the connection; failures of the network come out as transient errors. */
  async #timed<T>(timeoutMs: number, problem: string, work: Promise<T>): Promise<T> {
    const { name } = this.#address;
    const timer = setTimeout(() => {
      const timeout = downloadError(name, `${problem} within ${timeoutMs / 1000} s`, {
        hint: "check the network, or try again later",
        details: { timeoutMs, transient: true },
      });
      this.#controller.abort(timeout);
    }, timeoutMs);
    try {
      return await work;
    } catch (thrown) {
      this.#signal.throwIfAborted();
      if (this.#controller.signal.aborted) throw this.#controller.signal.reason;
      const cause = (thrown as Error).cause as { code?: string; message?: string } | undefined;
      const code = cause?.code ?? "";
      throw downloadError(name, `the connection failed: ${cause?.message ?? (thrown as Error).message}`, {
        hint: "check the address and the network",
        details: { errno: code, transient: !LASTING.test(code) },
        cause: thrown,
      });
    } finally {
      clearTimeout(timer);
    }
  }

  #redirect(from: URL, location: string | null): URL {
    const { name } = this.#address;
    if (location === null || !URL.canParse(location, from.href))
      throw downloadError(name, "is redirected to no address");
    const to = new URL(location, from);
    const isPlain = to.protocol === "http:" && from.protocol === "http:";
    if (to.protocol === "https:" || isPlain) return to;
    const problem = to.protocol === "http:" ? "from https to http" : `to ${to.protocol}`;
    throw downloadError(name, `is redirected ${problem}, which is not followed`);
  }

  #refused(response: Response): ArrowQuantError {
    const { status, statusText } = response;
    const hint = HTTP_HINTS[status];
    const retryAfterMs = parseRetryAfter(response.headers.get("retry-after"));
    return downloadError(this.#address.name, `the server answers ${status} ${statusText}`.trimEnd(), {
      ...(hint === undefined ? {} : { hint }),
      // 416: a part was asked for that is no longer there.
      details: { status, transient: TRANSIENT.has(status), retryAfterMs, restart: status === 416 },
    });
  }
}

/** Of an entity tag, weak or not, that is 64 hexadecimal digits. */
function parseSha256(etag: string | null): string | null {
  return /^(?:W\/)?"?([0-9a-f]{64})"?$/i.exec(etag ?? "")?.[1]?.toLowerCase() ?? null;
}

/** A header that counts bytes; null where it is missing or no number. */
export function parseCount(text: string | null): number | null {
  if (text === null || !/^\d{1,15}$/.test(text)) return null;
  return Number(text);
}

/** Seconds or a date (RFC 9110, 10.2.3). */
function parseRetryAfter(text: string | null): number | null {
  if (text === null) return null;
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1000;
  const date = Date.parse(text);
  return Number.isNaN(date) ? null : Math.max(0, date - Date.now());
}
