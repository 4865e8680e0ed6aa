import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { NetworkLimits } from "../../../dist/calibration/data/http.js";
import {
  collect,
  failure,
  type OpenOptions,
  open,
  read,
  rowsOf,
  samplesOf,
  scratchFolder,
  toJsonl,
  toParquet,
} from "./rows.js";
import { type FileOptions, sendFile, serve } from "./server.js";

const { folder, place } = scratchFolder();
const ROWS = rowsOf(200);
const FILE = toParquet(ROWS, "nested", 50);
const OTHER = toParquet(rowsOf(100), "nested", 50);
const SHA256 = createHash("sha256").update(FILE).digest("hex");

const LIMITS: NetworkLimits = { connectTimeoutMs: 5000, stallTimeoutMs: 5000, attempts: 3, backoffMs: 1 };
const IMPATIENT: NetworkLimits = { ...LIMITS, stallTimeoutMs: 600 };

function newCache(): string {
  return mkdtempSync(join(folder, "cache-"));
}

/** Reads from a server, with a cache of its own where none is given. */
function fetched(location: string, options: OpenOptions = {}) {
  return read(location, { cacheFolder: newCache(), network: LIMITS, ...options });
}

/** A server whose n-th answer is broken as the n-th of `answers` says; the last one holds for all after it. */
function serveFile(...answers: readonly (FileOptions & { readonly bytes?: Uint8Array })[]) {
  return serve((request, response, count) => {
    const { bytes = FILE, ...options } = answers[Math.min(count, answers.length - 1)] ?? {};
    sendFile(request, response, bytes, options);
  });
}

describe("a file of a server", () => {
  it("is fetched once, and asked for again on condition", async () => {
    const cacheFolder = newCache();
    const { origin, requests } = await serveFile();
    const options = { cacheFolder, network: LIMITS };
    const first = await open(`${origin}/a.parquet`, options);
    expect(await collect(first)).toEqual(samplesOf(ROWS));
    expect(first.source).toEqual({
      kind: "http",
      location: `${origin}/a.parquet`,
      fingerprint: (await open(place("a.parquet", FILE))).source.fingerprint,
    });
    const second = await open(`${origin}/a.parquet`, options);
    expect(await collect(second)).toEqual(samplesOf(ROWS));
    expect(second.source).toEqual(first.source);
    expect(requests.map(({ headers }) => headers["if-none-match"])).toEqual([undefined, '"one"']);
    expect(requests[0]?.headers["accept-encoding"]).toBe("identity");
  });

  it("whose checksum is given is not asked for again, unless the copy was damaged", async () => {
    const cacheFolder = newCache();
    const { origin, requests } = await serveFile();
    const location = `${origin}/a.parquet#sha256=${SHA256.toUpperCase()}`;
    await fetched(location, { cacheFolder });
    expect(await fetched(location, { cacheFolder })).toEqual(samplesOf(ROWS));
    expect(requests).toHaveLength(1);
    const copy = readdirSync(cacheFolder).find((name) => name.endsWith(".data")) as string;
    truncateSync(join(cacheFolder, copy), 100);
    expect(await fetched(location, { cacheFolder })).toEqual(samplesOf(ROWS));
    expect(requests).toHaveLength(2);
  });

  it("that changed is fetched anew", async () => {
    const cacheFolder = newCache();
    const { origin } = await serveFile({}, { bytes: OTHER, etag: '"two"' });
    await fetched(`${origin}/a`, { cacheFolder });
    expect(await fetched(`${origin}/a`, { cacheFolder })).toEqual(samplesOf(rowsOf(100)));
  });
});

describe("a connection that breaks", () => {
  it("is taken up where it broke, wherever that is, however the server takes it", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.nat(FILE.length), { maxLength: 2 }),
        fc.record({ ignoreRange: fc.boolean(), chunked: fc.boolean() }),
        fc.constantFrom('"one"', 'W/"weak"', null),
        async (breaks, options, etag) => {
          const { origin, requests } = await serveFile(
            ...breaks.map((breakAfter) => ({ ...options, etag, breakAfter })),
            { ...options, etag },
          );
          expect(await fetched(`${origin}/a`)).toEqual(samplesOf(ROWS));
          const parts = requests.filter(({ headers }) => headers.range !== undefined);
          for (const { headers } of parts) expect(headers["if-range"]).toBe('"one"');
          if (etag !== '"one"') expect(parts).toEqual([]);
        },
      ),
      { numRuns: 30 },
    );
  });

  it("or stalls is taken up with the missing bytes only", async () => {
    const { origin, requests } = await serveFile(
      { breakAfter: 1000, stall: true },
      { breakAfter: 500, stall: true },
      {},
    );
    expect(await fetched(`${origin}/a`, { network: IMPATIENT })).toEqual(samplesOf(ROWS));
    expect(requests.map(({ headers }) => headers.range)).toEqual([undefined, "bytes=1000-", "bytes=1500-"]);
  });

  it("every time is an error after the last try, and leaves nothing behind", async () => {
    const cacheFolder = newCache();
    const { origin, requests } = await serveFile({ breakAfter: 100 });
    expect(await failure(fetched(`${origin}/a`, { cacheFolder }))).toMatchObject({
      code: "E_DOWNLOAD",
      message: expect.stringContaining(`${origin}/a`),
    });
    expect(requests).toHaveLength(LIMITS.attempts);
    expect(readdirSync(cacheFolder)).toEqual([]);
  });

  it("or never answers is an error after the last try", async () => {
    const { origin, requests } = await serve(() => {});
    expect(await failure(fetched(`${origin}/a`, { network: { ...LIMITS, connectTimeoutMs: 150 } }))).toMatchObject({
      code: "E_DOWNLOAD",
      message: expect.stringMatching(/no answer within 0\.15 s/),
    });
    expect(requests).toHaveLength(LIMITS.attempts);
  });

  it("is given up at once with the signal's reason", async () => {
    const controller = new AbortController();
    const { origin } = await serve(() => controller.abort(new Error("enough")));
    await expect(fetched(`${origin}/a`, { signal: controller.signal })).rejects.toThrow("enough");
    const waiting = new AbortController();
    const busy = await serve((_request, response) => {
      response.writeHead(503, { "retry-after": "100" }).end(() => waiting.abort(new Error("no more")));
    });
    await expect(fetched(`${busy.origin}/a`, { signal: waiting.signal })).rejects.toThrow("no more");
  });

  it("nobody listens to is an error", async () => {
    expect(await failure(fetched("http://127.0.0.1:9/a"))).toMatchObject({ code: "E_DOWNLOAD" });
  });
});

describe("a server that lies", () => {
  it("about a file that changes between two parts has it fetched from the beginning", async () => {
    const { origin, requests } = await serveFile({ breakAfter: 1000, stall: true }, { bytes: OTHER, etag: '"two"' });
    expect(await fetched(`${origin}/a`, { network: IMPATIENT })).toEqual(samplesOf(rowsOf(100)));
    expect(requests.map(({ headers }) => headers.range)).toEqual([undefined, "bytes=1000-", undefined]);
  });

  it("about a file that changes all the time is told so", async () => {
    const { origin } = await serve((request, response, count) => {
      sendFile(request, response, FILE, { etag: `"${count}"`, breakAfter: 1000, stall: true });
    });
    expect(await failure(fetched(`${origin}/a`, { network: IMPATIENT }))).toMatchObject({ code: "E_CHANGED" });
  });

  it("about the length is told so: too long", async () => {
    const { origin } = await serve((_request, response) => {
      response.writeHead(200, { "content-length": FILE.length + 7 }).write(FILE, () => response.destroy());
    });
    expect(await failure(fetched(`${origin}/a`))).toMatchObject({ code: "E_DOWNLOAD" });
  });

  it("about the length is told so: too short", async () => {
    const { origin } = await serve((_request, { socket }) => {
      socket?.end(`HTTP/1.1 200 OK\r\nContent-Length: 3000\r\nConnection: close\r\n\r\n${"x".repeat(9000)}`);
    });
    expect(await failure(fetched(`${origin}/a`))).toMatchObject({
      code: expect.stringMatching(/UNKNOWN_FORMAT|DOWNLOAD/),
    });
    const cut = await serve((_request, response) => {
      response.writeHead(200, { "content-length": 3000 }).end(FILE.subarray(0, 3000));
    });
    expect(await failure(fetched(`${cut.origin}/a`))).toMatchObject({
      code: "E_TRUNCATED",
      message: expect.stringContaining(`"${cut.origin}/a" ends`),
    });
    expect(await failure(fetched(`${cut.origin}/a#sha256=${SHA256}`))).toMatchObject({ code: "E_CRC" });
  });

  it.each<[string, Record<string, string>]>([
    ["another part", { "content-range": `bytes 0-99/${FILE.length}`, etag: '"one"' }],
    ["a part of a file of another size", { "content-range": `bytes 1000-1099/${FILE.length + 1}`, etag: '"one"' }],
    ["a part of nothing", { etag: '"one"' }],
  ])("by sending %s is found out", async (_, headers) => {
    const { origin } = await serve((request, response) => {
      if (request.headers.range === undefined) sendFile(request, response, FILE, { breakAfter: 1000, stall: true });
      else response.writeHead(206, headers).end(FILE.subarray(0, 100));
    });
    expect(await failure(fetched(`${origin}/a`, { network: IMPATIENT }))).toMatchObject({
      code: expect.stringMatching(/E_DOWNLOAD|E_CHANGED/),
    });
  });

  it("about the checksum or the size of the hub is found out, and nothing is kept", async () => {
    const cacheFolder = newCache();
    const { origin } = await serveFile({ headers: { "x-linked-etag": `"${"0".repeat(64)}"` } });
    expect(await failure(fetched(`${origin}/a`, { cacheFolder }))).toMatchObject({
      code: "E_CRC",
      details: { found: SHA256 },
    });
    const sized = await serveFile({ headers: { "x-linked-size": "7" } });
    expect(await failure(fetched(`${sized.origin}/a`, { cacheFolder }))).toMatchObject({ code: "E_DOWNLOAD" });
    expect(readdirSync(cacheFolder)).toEqual([]);
  });

  it("by encoding the bytes is refused", async () => {
    const { origin } = await serveFile({ headers: { "content-encoding": "gzip" } });
    expect(await failure(fetched(`${origin}/a`))).toMatchObject({ message: expect.stringContaining("gzip") });
  });
});

describe("an answer of status", () => {
  it.each<[number, number, RegExp]>([
    [400, 1, /400/],
    [401, 1, /401 Unauthorized/],
    [403, 1, /403/],
    [404, 1, /404 Not Found/],
    [410, 1, /410/],
    [500, LIMITS.attempts, /500/],
    [503, LIMITS.attempts, /503/],
    [206, 1, /206 to a plain request/],
  ])("%i is an error after %i tries", async (status, tries, message) => {
    const { origin, requests } = await serve((_request, response) => response.writeHead(status).end("no"));
    expect(await failure(fetched(`${origin}/a`))).toMatchObject({
      code: "E_DOWNLOAD",
      message: expect.stringMatching(message),
    });
    expect(requests).toHaveLength(tries);
  });

  it("429 waits as long as it is told to, where that is not too long", async () => {
    const { origin, requests } = await serve((request, response, count) => {
      if (count < 2) response.writeHead(429, { "retry-after": count === 0 ? "0" : new Date(0).toUTCString() }).end();
      else sendFile(request, response, FILE);
    });
    const network = { ...LIMITS, backoffMs: 1_000_000 };
    expect(await fetched(`${origin}/a`, { network })).toEqual(samplesOf(ROWS));
    expect(requests).toHaveLength(3);
    const later = await serve((_request, response) => response.writeHead(429, { "retry-after": "3600" }).end());
    expect(await failure(fetched(`${later.origin}/a`))).toMatchObject({
      details: { status: 429, retryAfterMs: 3_600_000 },
    });
    expect(later.requests).toHaveLength(1);
  });
});

describe("a redirect", () => {
  it("is followed to http, by absolute and relative addresses", async () => {
    const { origin: target } = await serveFile();
    const { origin, requests } = await serve((request, response) => {
      response.writeHead(302, { location: request.url === "/a" ? "b?c" : `${target}/file` }).end("moved");
    });
    expect(await fetched(`${origin}/a`)).toEqual(samplesOf(ROWS));
    expect(requests.map(({ path }) => path)).toEqual(["/a", "/b?c"]);
  });

  it.each(["file:///etc/passwd", "ftp://127.0.0.1/a", "data:text/plain,x", "javascript:0", "http://", ""])(
    "to %j is refused",
    async (location) => {
      const { origin, requests } = await serve((_request, response) => response.writeHead(302, { location }).end());
      const { code, message } = await failure(fetched(`${origin}/a`));
      expect(code).toBe("E_DOWNLOAD");
      expect(message).toMatch(/is redirected/);
      expect(requests.length).toBeLessThanOrEqual(location === "" ? 11 : 1);
    },
  );
});

describe("the hub", () => {
  it("is asked for files of data sets at its endpoint, and no other server sees its token", async () => {
    const storage = await serveFile();
    const hub = await serve((_request, response) => {
      const headers = { "x-linked-etag": `"${SHA256}"`, "x-linked-size": String(FILE.length) };
      response.writeHead(302, { location: `${storage.origin}/blob`, ...headers }).end();
    });
    const options = { cacheFolder: newCache(), hub: { endpoint: hub.origin, token: "hf_secret" } };
    const location = "hf://datasets/some one/digits@v1/data/a b.parquet";
    const stream = await open(location, { ...options, network: LIMITS });
    expect(stream.source).toMatchObject({ kind: "hub", location });
    expect(await collect(stream)).toEqual(samplesOf(ROWS));
    expect(await fetched(location, options)).toEqual(samplesOf(ROWS));
    expect(hub.requests[0]).toMatchObject({
      path: "/datasets/some%20one/digits/resolve/v1/data/a%20b.parquet",
      headers: { authorization: "Bearer hf_secret" },
    });
    expect(storage.requests.every(({ headers }) => headers.authorization === undefined)).toBe(true);

    const stranger = await serveFile();
    await fetched(`${stranger.origin}/a`, options);
    expect(stranger.requests[0]?.headers.authorization).toBeUndefined();
  });

  it("vouches for its own files by their entity tag", async () => {
    const { origin } = await serveFile({ etag: `"${"1".repeat(64)}"` });
    const hub = { endpoint: origin, token: null };
    expect(await failure(fetched("hf://datasets/a/b/c.parquet", { hub }))).toMatchObject({ code: "E_CRC" });
    expect(await fetched(`${origin}/c.parquet`)).toEqual(samplesOf(ROWS));
  });

  it.each([
    "hf://datasets/owner/name",
    "hf://datasets/owner/name/",
    "hf://datasets/owner/../x/y",
    "hf://models/a/b/c",
    "hf://",
    "ftp://host/a",
    "file:///etc/passwd",
    "http://user:word@127.0.0.1/a",
    "http://127.0.0.1/a#sha256=12",
    "https://",
  ])("and other addresses: %s is refused before anything is asked", async (location) => {
    expect(await failure(fetched(location))).toMatchObject({ code: "E_CALIBRATION" });
  });
});

describe("JSON lines without end", () => {
  /** Rows from the byte that is asked for on, for as long as the connection takes them or until it stalls. */
  async function serveRows(broken: (count: number) => { breakAfter?: number; etag?: string }) {
    const block = Buffer.from(toJsonl(rowsOf(1000)));
    let sentBytes = 0;
    const server = await serve(async (request, response, count) => {
      const { breakAfter = Number.POSITIVE_INFINITY, etag = '"one"' } = broken(count);
      let position = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
      const range = position === 0 ? {} : { "content-range": `bytes ${position}-999999999999/*` };
      response.writeHead(position === 0 ? 200 : 206, { etag, "accept-ranges": "bytes", ...range });
      const end = position + breakAfter;
      while (!response.destroyed && position < end) {
        const start = position % block.length;
        const piece = block.subarray(start, Math.min(block.length, start + 3000, start + end - position));
        position += piece.length;
        sentBytes += piece.length;
        if (!response.write(piece)) await turn();
      }
    });
    return { ...server, sent: () => sentBytes };
  }

  it("are read as they come, over broken connections, and no further than is needed", async () => {
    const cacheFolder = newCache();
    const { origin, requests, sent } = await serveRows((count) => (count > 1 && count < 4 ? { breakAfter: 700 } : {}));
    const stream = await open(`${origin}/rows.jsonl`, { cacheFolder, network: IMPATIENT, limit: 100 });
    expect(stream).toMatchObject({ rowCount: null, selection: "first" });
    expect(await collect(stream)).toEqual(samplesOf(rowsOf(100)));
    expect(await collect(stream)).toEqual(samplesOf(rowsOf(100)));
    expect(requests.map(({ headers }) => headers.range).filter((range) => range !== undefined)).toEqual([
      "bytes=700-",
      "bytes=1400-",
    ]);
    expect(sent()).toBeLessThan(2 ** 26);
    expect(readdirSync(cacheFolder)).toEqual([]);
  });

  it("that change under way are told so, their beginning being read already", async () => {
    const { origin } = await serveRows((count) => (count > 1 ? { breakAfter: 5000, etag: `"${count}"` } : {}));
    const stream = await open(`${origin}/rows.jsonl`, { cacheFolder: newCache(), network: IMPATIENT });
    expect(await failure(collect(stream))).toMatchObject({ code: "E_CHANGED" });
  });
});
