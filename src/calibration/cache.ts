/** Statistics that were taken before, by everything that they depend on. */
import { createHash } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { homedir } from "node:os";
import { isAbsolute, join } from "node:path";
import { ArrowQuantError } from "../errors.js";
import { writeError } from "../io/output.js";
import { openStatistics, type Statistics } from "./statistics.js";

/** Everything that statistics depend on, as plain JSON. */
export interface CacheKey {
  readonly modelFingerprint: string;
  /** SHA-256 of the graph; null: nothing is run. */
  readonly graph: string | null;
  /** Where the samples come from, and a fingerprint of them where they are read. */
  readonly source: Readonly<Record<string, unknown>>;
  readonly settings: Readonly<Record<string, unknown>>;
}

/** Raised whenever the same settings give other figures than before. */
const CALIBRATION_VERSION = 1;

/** `$XDG_CACHE_HOME/arrowquant`, by default `~/.cache/arrowquant` (XDG Base Directory Specification). */
export function defaultCacheFolder(environment: Readonly<Record<string, string | undefined>>): string {
  const given = environment.XDG_CACHE_HOME;
  // "All paths set in these environment variables must be absolute. If an implementation encounters a relative path,
  // it should consider the path invalid and ignore it."
  const base = given !== undefined && isAbsolute(given) ? given : join(homedir(), ".cache");
  return join(base, "arrowquant");
}

/** Where statistics of that key lie, or will; makes the folder. @throws E_WRITE */
export async function cachePath(folder: string, key: CacheKey): Promise<string> {
  const path = join(folder, "statistics");
  await mkdir(path, { recursive: true }).catch((thrown) => {
    throw writeError(thrown, path);
  });
  const hash = createHash("sha256").update(JSON.stringify([CALIBRATION_VERSION, sorted(key)]));
  return join(path, `${hash.digest("hex")}.safetensors`);
}

/** Statistics at `path`; null where there are none, or none that can be read: they are then taken anew. */
export async function openCached(path: string): Promise<Statistics | null> {
  try {
    return await openStatistics(path);
  } catch (thrown) {
    if (thrown instanceof ArrowQuantError) return null;
    throw thrown;
  }
}

function sorted(value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  return entries.map(([key, part]) => [key, sorted(part)]);
}
