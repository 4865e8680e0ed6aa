/** The parts of a chunk side by side in one buffer, so that a single move carries them. */
import { crc32 } from "node:zlib";
import { CHUNK_PARTS, type ChunkPart, type PartRanges } from "./messages.js";

/** Parts begin at multiples of 8 so that float32 views are aligned. */
const ALIGNMENT = 8;

export type Parts = Readonly<Record<ChunkPart, Uint8Array | Float32Array | null>>;

/** Copies parts into `buffer` in the order of CHUNK_PARTS. */
export function packParts(parts: Parts, buffer: ArrayBuffer): PartRanges {
  const ranges: PartRanges = {};
  let byteOffset = 0;
  for (const name of CHUNK_PARTS) {
    const part = parts[name];
    if (part === null) continue;
    const { byteLength } = part;
    new Uint8Array(buffer, byteOffset, byteLength).set(
      new Uint8Array(part.buffer as ArrayBuffer, part.byteOffset, byteLength),
    );
    ranges[name] = { byteOffset, byteLength };
    byteOffset = Math.ceil((byteOffset + byteLength) / ALIGNMENT) * ALIGNMENT;
  }
  return ranges;
}

/** Bytes of a buffer that holds parts of these lengths. */
export function partsByteLength(byteLengths: Iterable<number>): number {
  let total = 0;
  for (const byteLength of byteLengths) total += Math.ceil(byteLength / ALIGNMENT) * ALIGNMENT;
  return total;
}

/** Where the last part ends in its buffer. */
export function partsEnd(ranges: PartRanges): number {
  return Math.max(0, ...Object.values(ranges).map(({ byteOffset, byteLength }) => byteOffset + byteLength));
}

export function bytesOf(buffer: ArrayBuffer, ranges: PartRanges, name: ChunkPart): Uint8Array | null {
  const range = ranges[name];
  return range === undefined ? null : new Uint8Array(buffer, range.byteOffset, range.byteLength);
}

export function floatsOf(buffer: ArrayBuffer, ranges: PartRanges, name: ChunkPart): Float32Array | null {
  const range = ranges[name];
  return range === undefined ? null : new Float32Array(buffer, range.byteOffset, range.byteLength / 4);
}

/** CRC-32 over the parts as FORMAT.md orders them. */
export function checksumParts(buffer: ArrayBuffer, ranges: PartRanges): number {
  let checksum = 0;
  for (const name of CHUNK_PARTS) {
    const bytes = bytesOf(buffer, ranges, name);
    if (bytes !== null) checksum = crc32(bytes, checksum);
  }
  return checksum;
}
