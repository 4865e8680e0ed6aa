/** How the reader answers bytes that it should refuse. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect } from "vitest";
import { ArrowQuantError } from "../../../dist/errors.js";
import { openNative } from "../../../dist/formats/parquet/reader.js";

/** What a damaged file may be called; anything else is a fault of the reader. */
export const DAMAGE_CODES = ["E_NATIVE", "E_CRC", "E_TRUNCATED", "E_LIMIT"];

let folder: string;
let fileCount = 0;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "arrowquant-hostile-"));
});
afterAll(() => rm(folder, { recursive: true }));

/** A new file of these bytes, removed with the tests. */
export async function placeFile(bytes: Uint8Array): Promise<string> {
  const path = join(folder, `${fileCount++}.parquet`);
  await writeFile(path, bytes);
  return path;
}

async function readAll(path: string): Promise<void> {
  const file = await openNative(path);
  const headers: string[] = [];
  for await (const { layerName } of file.rowHeaders()) headers.push(layerName);
  const rows: string[] = [];
  for await (const { layerName } of file.rows()) rows.push(layerName);
  file.close();
  expect(rows).toEqual(headers);
}

/** Reads bytes as a native file, all of it; its error, or null where it is legal. */
export async function refusal(bytes: Uint8Array): Promise<ArrowQuantError | null> {
  const path = await placeFile(bytes);
  try {
    await readAll(path);
    return null;
  } catch (thrown) {
    if (!(thrown instanceof ArrowQuantError)) throw thrown;
    expect(DAMAGE_CODES).toContain(thrown.code);
    return thrown;
  } finally {
    await rm(path);
  }
}
