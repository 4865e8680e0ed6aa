/** A server of this machine that answers as a test tells it to, and remembers what it was asked. */
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { onTestFinished } from "vitest";

export type Handler = (request: IncomingMessage, response: ServerResponse, count: number) => void;

export interface TestServer {
  readonly origin: string;
  readonly requests: { readonly path: string; readonly headers: IncomingHttpHeaders }[];
}

/** Serves until the test is done; `count` is the number of requests before. */
export async function serve(handler: Handler): Promise<TestServer> {
  const requests: TestServer["requests"] = [];
  const server = createServer((request, response) => {
    requests.push({ path: request.url ?? "", headers: request.headers });
    handler(request, response, requests.length - 1);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return { origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, requests };
}

export interface FileOptions {
  readonly etag?: string | null;
  /** Bytes of the answer's body after which the connection breaks, or, with `stall`, nothing more comes. */
  readonly breakAfter?: number;
  readonly stall?: boolean;
  readonly ignoreRange?: boolean;
  /** Sent in place of a length: the body then comes in chunks. */
  readonly chunked?: boolean;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Answers as a plain file server does. */
export function sendFile(
  request: IncomingMessage,
  response: ServerResponse,
  bytes: Uint8Array,
  { etag = '"one"', breakAfter, stall = false, ignoreRange = false, chunked = false, headers = {} }: FileOptions = {},
): void {
  if (etag !== null) response.setHeader("etag", etag);
  for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
  if (etag !== null && request.headers["if-none-match"] === etag) {
    response.writeHead(304).end();
    return;
  }
  const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
  const isPart = start > 0 && !ignoreRange && request.headers["if-range"] === etag;
  const body = isPart ? bytes.subarray(start) : bytes;
  if (isPart) response.setHeader("content-range", `bytes ${start}-${bytes.length - 1}/${bytes.length}`);
  if (!chunked) response.setHeader("content-length", body.length);
  response.writeHead(isPart ? 206 : 200);
  if (breakAfter === undefined || breakAfter >= body.length) response.end(body);
  else {
    response.write(body.subarray(0, breakAfter), () => {
      if (!stall) response.destroy();
    });
  }
}
