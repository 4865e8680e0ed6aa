/** Where calibration data lies, as the user wrote it. */
import { ArrowQuantError } from "../../errors.js";

/** The hub that `hf://` addresses mean. */
export interface Hub {
  /** `HF_ENDPOINT`. */
  readonly endpoint: string;
  /** `HF_TOKEN`; sent to the endpoint's origin alone. */
  readonly token: string | null;
}

export const DEFAULT_HUB: Hub = { endpoint: "https://huggingface.co", token: null };

/** The hub that the environment names, as Hugging Face's own tools read it. */
export function hubOf(environment: Readonly<Record<string, string | undefined>>): Hub {
  return { endpoint: environment.HF_ENDPOINT || DEFAULT_HUB.endpoint, token: environment.HF_TOKEN || null };
}

export interface RemoteAddress {
  readonly kind: "http" | "hub";
  /** As given, for messages. */
  readonly name: string;
  readonly url: URL;
  /** What the bytes must hash to: `#sha256=…`. */
  readonly sha256: string | null;
  /** The hub's origin and token; other origins never see it. */
  readonly hubOrigin: string;
  readonly token: string | null;
}

const SCHEME = /^([a-z][a-z0-9+.-]+):\/\//i;
const SHA256_FRAGMENT = /^#sha256=([0-9a-f]{64})$/i;
const HUB_ADDRESS = /^hf:\/\/datasets\/([^/@]+)\/([^/@]+)(?:@([^/]+))?\/(.+)$/;

/**
 * @returns null for a path of this machine
 * @throws E_CALIBRATION where the address is malformed or of a scheme that is not read
 */
export function parseAddress(location: string, hub: Hub): RemoteAddress | null {
  const scheme = SCHEME.exec(location)?.[1]?.toLowerCase();
  if (scheme === undefined) return null;
  if (scheme !== "hf" && scheme !== "http" && scheme !== "https") {
    throw badAddress(
      location,
      `${scheme}: is not read`,
      "give a path, an http(s) address or hf://datasets/OWNER/NAME/PATH",
    );
  }
  const endpoint = parseUrl(hub.endpoint, "the hub's endpoint is no address");
  const [place, fragment] = splitFragment(location);
  const sha256 = SHA256_FRAGMENT.exec(fragment)?.[1]?.toLowerCase() ?? null;
  if (sha256 === null && fragment !== "") {
    throw badAddress(location, "what follows # is no checksum", "write #sha256= and 64 hexadecimal digits");
  }
  const url = scheme === "hf" ? hubUrl(place, endpoint) : parseUrl(place, "it is no address");
  if (url.username !== "" || url.password !== "") {
    url.username = "";
    url.password = "";
    throw badAddress(url.href, "a name or password in an address is not sent", "take them out of it");
  }
  const kind = scheme === "hf" ? "hub" : "http";
  return { kind, name: place, url, sha256, hubOrigin: endpoint.origin, token: hub.token };
}

function splitFragment(location: string): [place: string, fragment: string] {
  const at = location.indexOf("#");
  return at === -1 ? [location, ""] : [location.slice(0, at), location.slice(at)];
}

/** `hf://datasets/OWNER/NAME[@REVISION]/PATH`, the form that huggingface_hub's file system takes. */
function hubUrl(place: string, endpoint: URL): URL {
  const [, owner, name, revision, path] = HUB_ADDRESS.exec(place) ?? [];
  const segments = [owner, name, ...(path ?? "").split("/")];
  if (segments.some((segment) => segment === undefined || segment === "" || segment === "." || segment === "..")) {
    throw badAddress(
      place,
      "it names no file of a data set",
      "write hf://datasets/OWNER/NAME/PATH, PATH being one file",
    );
  }
  const [repository, file] = [segments.slice(0, 2), segments.slice(2)].map((parts) =>
    parts.map((part) => encodeURIComponent(part as string)).join("/"),
  );
  const base = endpoint.href.endsWith("/") ? endpoint.href : `${endpoint.href}/`;
  return new URL(`datasets/${repository}/resolve/${encodeURIComponent(revision ?? "main")}/${file}`, base);
}

function parseUrl(text: string, problem: string): URL {
  if (URL.canParse(text)) return new URL(text);
  throw badAddress(text, problem, "check its spelling");
}

function badAddress(location: string, problem: string, hint: string): ArrowQuantError {
  return new ArrowQuantError("E_CALIBRATION", `"${location}": ${problem}`, { hint, details: { location } });
}
