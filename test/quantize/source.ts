/** Sources made on the fly: seeded weights in safetensors files, for what the real models are too well-behaved. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll } from "vitest";
import { buildSafetensors, type Part } from "../hostile/safetensors/build.js";

/** A folder for the tests of a file, removed after them. */
export function useFolder(): { path: (...names: string[]) => string } {
  let folder = "";
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "arrowquant-test-"));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));
  return { path: (...names) => join(folder, ...names) };
}

/** Normal weights from a linear congruential generator and the Box–Muller transform. */
export function gaussianFloats(count: number, seed: number, scale = 0.02): Float32Array {
  let state = seed >>> 0;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  return Float32Array.from(
    { length: count },
    () => scale * Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()),
  );
}

export function floatPart(name: string, shape: readonly number[], values: Float32Array): Part {
  return { name, dtype: "F32", shape, bytes: new Uint8Array(values.buffer, values.byteOffset, values.byteLength) };
}

export function gaussianPart(name: string, shape: readonly number[], seed: number): Part {
  return floatPart(
    name,
    shape,
    gaussianFloats(
      shape.reduce((product, size) => product * size, 1),
      seed,
    ),
  );
}

export async function writeModel(path: string, parts: readonly Part[]): Promise<string> {
  await writeFile(path, buildSafetensors(parts));
  return path;
}
