/** Models for the tests: the real one of the project, and generated ones where size or defects matter. */
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll } from "vitest";

export const UNET = fileURLToPath(new URL("../models/unet-mnist", import.meta.url));
export const DIT = fileURLToPath(new URL("../models/dit-mnist", import.meta.url));

/** A folder that goes when the test file is done. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "arrowquant-test-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export interface FakeTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** Values; without them the file has a hole there, which reads as zeros. */
  readonly values?: (index: number) => number;
}

/** A safetensors file of float32 tensors. */
export function writeModel(path: string, tensors: readonly FakeTensor[]): string {
  const header: Record<string, unknown> = {};
  let byteOffset = 0;
  const places: number[] = [];
  for (const { name, shape } of tensors) {
    places.push(byteOffset);
    const byteLength = 4 * shape.reduce((product, size) => product * size, 1);
    header[name] = { dtype: "F32", shape, data_offsets: [byteOffset, byteOffset + byteLength] };
    byteOffset += byteLength;
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const fd = openSync(path, "w");
  writeSync(fd, Buffer.concat([length, text]));
  for (const [index, { shape, values }] of tensors.entries()) {
    if (values === undefined) continue;
    const count = shape.reduce((product, size) => product * size, 1);
    const data = Float32Array.from({ length: count }, (_, element) => values(element));
    writeSync(fd, new Uint8Array(data.buffer), 0, data.byteLength, 8 + text.length + (places[index] as number));
  }
  ftruncateSync(fd, 8 + text.length + byteOffset);
  closeSync(fd);
  return path;
}

/** Smooth values of either sign that no code set holds exactly. */
export function wave(index: number): number {
  return Math.sin(index * 0.7) + 0.3 * Math.cos(index * 0.013);
}
