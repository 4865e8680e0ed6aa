/** Files of servers in a folder of this machine. */
import { createHash } from "node:crypto";
import { mkdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ArrowQuantError } from "../../errors.js";
import { isJsonObject, parseJson } from "../../formats/json.js";
import { OutputFile, OutputTarget, writeError } from "../../io/output.js";
import type { RemoteAddress } from "./location.js";
import type { RemoteFile, RemoteInfo } from "./remote-file.js";

/** Fetches that begin anew because the file changed or could not be resumed. */
const MAX_RESTARTS = 3;

/** A file that was fetched whole. */
export interface CachedFile {
  readonly path: string;
  readonly byteLength: number;
  readonly sha256: string;
  readonly etag: string | null;
  readonly lastModified: string | null;
}

interface CachePlace {
  readonly data: string;
  readonly record: string;
}

function cachePlace(folder: string, { url }: RemoteAddress): CachePlace {
  const key = createHash("sha256").update(url.href).digest("hex").slice(0, 32);
  return { data: join(folder, `${key}.data`), record: join(folder, `${key}.json`) };
}

/** What an earlier run fetched; null where there is nothing or not all of it. */
export async function findCached(folder: string, address: RemoteAddress): Promise<CachedFile | null> {
  const { data, record } = cachePlace(folder, address);
  try {
    const found = parseJson(await readFile(record), record);
    if (!isJsonObject(found)) return null;
    const [byteLength, sha256] = [found.get("byteLength"), found.get("sha256")];
    const [etag, lastModified] = ["etag", "lastModified"].map((key) => found.get(key));
    if (typeof byteLength !== "number" || typeof sha256 !== "string") return null;
    if ((await stat(data)).size !== byteLength) return null;
    return {
      path: data,
      byteLength,
      sha256,
      etag: typeof etag === "string" ? etag : null,
      lastModified: typeof lastModified === "string" ? lastModified : null,
    };
  } catch {
    // Whatever is wrong with a copy, the file can be fetched again.
    return null;
  }
}

/**
 * Fetches a file whole; it appears in the folder once it is complete and its checksum right.
 * @throws E_DOWNLOAD, E_CHANGED; E_CRC where the bytes are not those of the checksum; E_WRITE
 */
export async function download(
  folder: string,
  first: RemoteFile,
  reopen: () => Promise<RemoteFile>,
): Promise<CachedFile> {
  const { address } = first;
  const place = cachePlace(folder, address);
  await mkdir(folder, { recursive: true }).catch((thrown) => {
    throw writeError(thrown, folder);
  });
  const target = await OutputTarget.prepare(place.data, {
    kind: "file",
    force: true,
    inputs: [],
    isOurs: async () => true,
  });
  try {
    let remote = first;
    for (let restarts = 0; ; restarts++) {
      try {
        const { byteLength, sha256 } = await fetchInto(target.temporaryPath, remote);
        checkSha256(address, sha256, remote.info);
        const { etag, lastModified } = remote.info;
        const cached = { path: place.data, byteLength, sha256, etag, lastModified };
        await keep(target, place, cached);
        return cached;
      } catch (thrown) {
        const isLost = thrown instanceof ArrowQuantError && thrown.details["restart"] === true;
        if (!isLost || restarts === MAX_RESTARTS) throw thrown;
        await target.discard();
        remote = await reopen();
      }
    }
  } finally {
    await target.discard();
  }
}

/** In this order a record never stands beside bytes of another time. */
async function keep(target: OutputTarget, place: CachePlace, cached: CachedFile): Promise<void> {
  try {
    await rm(place.record, { force: true });
    await target.commit();
    await writeFile(place.record, JSON.stringify(cached));
  } catch (thrown) {
    throw writeError(thrown, place.record);
  }
}

async function fetchInto(path: string, remote: RemoteFile): Promise<{ byteLength: number; sha256: string }> {
  const hash = createHash("sha256");
  const file = await OutputFile.create(path);
  try {
    for await (const chunk of remote.chunks()) {
      hash.update(chunk);
      await file.write(chunk);
    }
    await file.sync();
    return { byteLength: file.byteLength, sha256: hash.digest("hex") };
  } finally {
    await file.close();
  }
}

function checkSha256(address: RemoteAddress, found: string, info: RemoteInfo): void {
  const [expected, source] =
    address.sha256 === null ? [info.sha256, "the server says"] : [address.sha256, "the address says"];
  if (expected === null || expected === found) return;
  throw new ArrowQuantError("E_CRC", `"${address.name}": the SHA-256 is ${found}, ${source} ${expected}`, {
    hint: "the file is another one, or was damaged on its way",
    details: { location: address.name, found, expected },
  });
}
