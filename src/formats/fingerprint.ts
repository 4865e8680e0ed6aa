/** A sample of a component's files by which a later run knows them again (FORMAT.md, `arrowquant.source`). */
import { createHash, type Hash } from "node:crypto";
import { type OpenFile, readExactly, withFile } from "../io/read.js";
import type { Component, SourceFile } from "../tensor/info.js";

export const FINGERPRINT_BLOCKS = 64;
export const FINGERPRINT_BLOCK_BYTES = 64 * 1024;

/**
 * SHA-256, in lower-case hexadecimal, over these bytes of each file, files in the order of the UTF-16 code
 * units of their names:
 *
 *     u64 LE   bytes of the name
 *     …        the name (path relative to the component's folder, with "/"), UTF-8
 *     u64 LE   bytes of the file
 *     u64 LE   bytes of the header: everything before the tensor data
 *     …        the header
 *     …        64 blocks of 64 KiB: block i begins at floor(i · (bytes of the file − 65536) / 63);
 *              a file of at most 64 · 64 KiB is taken whole instead, once
 *
 * It is a sample: a change of a few weights between two blocks of a large file is not seen.
 * Memory is one block, whatever the size of files and headers.
 */
export async function fingerprintComponent(component: Pick<Component, "files">): Promise<string> {
  const hash = createHash("sha256");
  const buffer = Buffer.allocUnsafeSlow(FINGERPRINT_BLOCK_BYTES);
  const files = [...component.files].sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  for (const file of files) {
    const name = Buffer.from(file.name, "utf8");
    hash.update(u64(name.length)).update(name).update(u64(file.byteLength)).update(u64(file.headerByteLength));
    await withFile(file.path, async (open) => {
      await hashRange(hash, open, buffer, 0, file.headerByteLength);
      for (const [byteOffset, byteLength] of sampledRanges(file)) {
        await hashRange(hash, open, buffer, byteOffset, byteLength);
      }
    });
  }
  return hash.digest("hex");
}

function sampledRanges({ byteLength }: SourceFile): (readonly [byteOffset: number, byteLength: number])[] {
  if (byteLength <= FINGERPRINT_BLOCKS * FINGERPRINT_BLOCK_BYTES) return [[0, byteLength]];
  const last = byteLength - FINGERPRINT_BLOCK_BYTES;
  return Array.from({ length: FINGERPRINT_BLOCKS }, (_, index) => [
    Math.floor((index * last) / (FINGERPRINT_BLOCKS - 1)),
    FINGERPRINT_BLOCK_BYTES,
  ]);
}

async function hashRange(hash: Hash, file: OpenFile, buffer: Buffer, from: number, byteLength: number): Promise<void> {
  for (let done = 0; done < byteLength; done += buffer.length) {
    const part = buffer.subarray(0, Math.min(buffer.length, byteLength - done));
    await readExactly(file, part, from + done);
    hash.update(part);
  }
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}
