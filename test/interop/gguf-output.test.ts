/** GGUF files as this program writes them, read by gguf-py: the values are those of our own reader, to the bit. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";
import { Session } from "../../dist/engine/session.js";
import { GGUF_TYPE_NAMES } from "../../dist/formats/gguf/output-type.js";
import { quantizeGguf } from "../../dist/quantize/gguf/quantize.js";
import { DTYPES } from "../../dist/tensor/dtype.js";
import { openComponent, readFloats } from "../formats/gguf/samples.js";
import { readSafetensors } from "../quantize/exported.js";
import { gaussianPart, writeModel } from "../quantize/source.js";
import { preparePython } from "./environment.js";
import { runPython } from "./process.js";

const { python } = await preparePython();
const folder = mkdtempSync(join(tmpdir(), "arrowquant-interop-gguf-out-"));
const session = new Session({ threads: 2 });
afterAll(async () => {
  await session.dispose();
  rmSync(folder, { recursive: true });
});

const SHAPES: readonly (readonly [string, readonly number[]])[] = [
  ["linear.weight", [12, 512]],
  ["ragged.weight", [37, 96]],
  ["odd.weight", [33, 35]],
  ["leading.weight", [1, 1, 2048]],
  ["conv.weight", [16, 32, 3, 3]],
  ["video.weight", [16, 4, 2, 2, 8]],
  ["norm.weight", [640]],
  ["scalar", []],
  ["empty.weight", [0, 256]],
  [`${"long.".repeat(24)}weight`, [8, 256]],
];

interface ReadFile {
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly types: Readonly<Record<string, string>>;
}

test.skipIf(python === null)("every type, every shape, both models", { timeout: 120_000 }, async () => {
  const parts = SHAPES.map(([name, shape], index) => gaussianPart(name, shape, index));
  parts.push({ name: "steps", dtype: "I32", shape: [3], bytes: new Uint8Array(12).fill(5) });
  const shapes = await writeModel(join(folder, "shapes.safetensors"), parts);
  const jobs = GGUF_TYPE_NAMES.map((type) => ({ name: `shapes-${type}.gguf`, input: shapes, type }));
  for (const model of ["dit-mnist", "unet-mnist"]) {
    const input = fileURLToPath(new URL(`../models/${model}`, import.meta.url));
    jobs.push({ name: `${model}.gguf`, input, type: "q4_k" });
  }
  for (const { name, input, type } of jobs) {
    const tensorTypes = input === shapes ? [{ pattern: "weight$", type }] : [];
    await quantizeGguf({ input, output: join(folder, name), type, tensorTypes, comfy: true }, session);
  }
  const read = await runPython<Record<string, ReadFile>>(python as string, "read_gguf.py", [folder]);
  expect(Object.keys(read).sort()).toEqual(jobs.map(({ name }) => name).sort());
  for (const { name } of jobs) {
    const { metadata, types } = read[name] as ReadFile;
    const component = await openComponent(join(folder, name));
    const values = readSafetensors(join(folder, name.replace(".gguf", ".read.safetensors")));
    expect(Object.keys(types)).toEqual(component.tensors.map((tensor) => tensor.name));
    for (const tensor of component.tensors) {
      expect(types[tensor.name], tensor.name).toBe(tensor.dtype);
      const found = values.get(tensor.name);
      const stored = metadata[`comfy.gguf.orig_shape.${tensor.name}`];
      // What ComfyUI-GGUF's loader takes for the shape.
      expect(stored ?? found?.shape, tensor.name).toEqual(tensor.shape);
      if (DTYPES[tensor.dtype].kind !== "float" || tensor.shape.includes(0)) continue;
      const ours = Buffer.from(readFloats("simd", component, tensor).buffer);
      expect(ours.equals(found?.bytes as Uint8Array), `${tensor.name} of ${name}`).toBe(true);
    }
  }
  expect(read["unet-mnist.gguf"]?.metadata).toMatchObject({
    "general.architecture": "sd1",
    "general.quantization_version": 2,
    "general.file_type": 14,
    "comfy.gguf.orig_shape.mid_block.resnets.0.conv1.weight": [128, 128, 3, 3],
  });
  expect(read["dit-mnist.gguf"]?.metadata).not.toHaveProperty("general.architecture");
});
