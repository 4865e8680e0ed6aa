/** Weights and expected results that tests of methods read from files or draw. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { KernelBuild } from "../../../dist/kernels/load.js";
import type { QuantSpec } from "../../../dist/tensor/layout.js";
import { bytesOf, floatSource, type Quantized, quantize } from "../../kernels/harness.js";

/** The models that lie beside the repository, with their README. */
export const SHARED_MODELS = fileURLToPath(new URL("../../../../shared/models/", import.meta.url));

export interface StoredTensor {
  shape: number[];
  bytes: Uint8Array;
}

/** A file we trust: whole, little-endian. */
export function readSafetensors(path: string | URL): {
  metadata: Record<string, string>;
  tensors: Map<string, StoredTensor>;
} {
  const file = readFileSync(path);
  const start = 8 + Number(file.readBigUInt64LE(0));
  const { __metadata__: metadata = {}, ...entries } = JSON.parse(file.toString("utf8", 8, start)) as Record<
    string,
    { shape: number[]; data_offsets: [number, number] }
  >;
  const tensors = Object.entries(entries).map(
    ([
      name,
      {
        shape,
        data_offsets: [from, to],
      },
    ]) => [name, { shape, bytes: new Uint8Array(file.subarray(start + from, start + to)) }],
  );
  return {
    metadata: metadata as unknown as Record<string, string>,
    tensors: new Map(tensors as [string, StoredTensor][]),
  };
}

export function floatsOf(tensor: StoredTensor | undefined): Float32Array {
  if (tensor === undefined) throw new Error("no such tensor");
  return new Float32Array(tensor.bytes.slice().buffer);
}

/** One quantization that the numpy prototype did (reference/generate.py). */
export interface ReferenceCase {
  spec: QuantSpec;
  source: string;
  cols: number;
  values: Float32Array;
  importance: Float32Array | null;
  /** Stored parts by their name in ChunkOutputs. */
  expected: Record<string, Uint8Array>;
}

export function referenceCases(method: string): ReferenceCase[] {
  const { metadata, tensors } = readSafetensors(new URL("reference/methods.safetensors", import.meta.url));
  const listed = JSON.parse(metadata.cases as string) as (QuantSpec & {
    source: string;
    importance?: boolean;
    parts: Record<string, number>;
  })[];
  const importance = floatsOf(tensors.get("importance"));
  const cases = listed.map(({ source, importance: isWeighted, parts, ...spec }, number): ReferenceCase => {
    const { shape } = tensors.get(`source.${source}`) as StoredTensor;
    const cols = shape[1] as number;
    const blob = (tensors.get(`case.${number}`) as StoredTensor).bytes;
    let at = 0;
    const expected = Object.fromEntries(
      Object.entries(parts).map(([name, byteLength]) => {
        at += byteLength;
        return [name, blob.subarray(at - byteLength, at)];
      }),
    );
    const values = floatsOf(tensors.get(`source.${source}`));
    return { spec, source, cols, values, importance: isWeighted ? importance.slice(0, cols) : null, expected };
  });
  return cases.filter(({ spec }) => spec.method === method);
}

/** Stored parts as bytes, those that are null left out. */
export function partsOf({ sums: _sums, outputSums: _outputSums, ...outputs }: Quantized): Record<string, Uint8Array> {
  return Object.fromEntries(
    Object.entries(outputs).flatMap(([name, part]) => (part === null ? [] : [[name, new Uint8Array(bytesOf(part))]])),
  );
}

/** `quantize` of test/kernels/harness.ts with an importance per input column. */
export function quantizeImportant(
  build: KernelBuild,
  values: Float32Array,
  cols: number,
  spec: QuantSpec,
  importance: Float32Array,
): Quantized {
  return quantize(build, { ...floatSource(values, cols), importance }, spec);
}

/** Every weight of two or more dimensions of a model, as rows. */
export function* matricesOf(path: string): Generator<{ name: string; cols: number; values: Float32Array }> {
  for (const [name, tensor] of readSafetensors(path).tensors) {
    const [rows, ...rest] = tensor.shape;
    if (rows === undefined || rest.length === 0) continue;
    yield { name, cols: rest.reduce((product, size) => product * size, 1), values: floatsOf(tensor) };
  }
}

/** Uniform numbers in [0, 1) from a seed (splitmix32). */
export function uniforms(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let x = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
    x = Math.imul(x ^ (x >>> 15), 0x735a2d97);
    return ((x ^ (x >>> 15)) >>> 0) / 2 ** 32;
  };
}

/** Student-t numbers with `freedom` degrees of freedom: a normal over the root of a mean of squares of normals. */
export function studentT(count: number, freedom: number, seed: number): Float32Array {
  const uniform = uniforms(seed);
  const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  return Float32Array.from({ length: count }, () => {
    let squares = 0;
    for (let i = 0; i < freedom; i++) squares += normal() ** 2;
    return normal() / Math.sqrt(squares / freedom);
  });
}
