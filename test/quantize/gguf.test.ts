import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { Session } from "../../dist/engine/session.js";
import { openModel } from "../../dist/formats/open.js";
import { openNative } from "../../dist/formats/parquet/reader.js";
import { readExactly, withFile } from "../../dist/io/read.js";
import { quantizeModel } from "../../dist/quantize/quantize.js";
import { BLOCKS } from "../../dist/tensor/dtype.js";
import { validateModel } from "../../dist/validate/validate.js";
import { documentOf, run } from "../cli/program.js";
import { openComponent, readExpected, readFloats, SAMPLES } from "../formats/gguf/samples.js";
import { buildGguf, int32List, type TensorPart, tensorInfo } from "../hostile/gguf/build.ts";
import { floatPart, useFolder, writeModel } from "./source.js";

const dit = fileURLToPath(new URL("../models/dit-mnist", import.meta.url));
const blocks = join(SAMPLES, "blocks.gguf");
const folder = useFolder();
const session = new Session({ threads: 2 });
afterAll(() => session.dispose());

/** Stored bytes of each chunk of each tensor, with what they are. */
async function readStored(path: string): Promise<Record<string, unknown[]>> {
  const native = await openNative(path);
  const stored: Record<string, unknown[]> = {};
  for await (const { layerName, data, scales, zeroPoints, scaleCodes, zeroPointCodes, ...row } of native.rows()) {
    const { shape, quantType, storedDtype, chunkIndex, chunkCount } = row;
    const parts = [data, scales, zeroPoints, scaleCodes, zeroPointCodes].map((part) =>
      part === null ? null : Buffer.from(part.buffer, part.byteOffset, part.byteLength).toString("base64"),
    );
    stored[layerName] ??= [];
    stored[layerName].push({ shape, quantType, storedDtype, chunkIndex, chunkCount, parts });
  }
  native.close();
  return stored;
}

const common = { modality: "image", method: "rtn", bit_width: 8, skip_sensitive_layers: false, min_accuracy: 0 };

describe("a source of blocks", () => {
  it("is quantized only where that is allowed, and the report says of what types it was", async () => {
    const job = { input: blocks, output: folder.path("refused.parquet"), config: common };
    await expect(quantizeModel(job, session)).rejects.toMatchObject({
      code: "E_PREQUANTIZED",
      hint: expect.stringContaining("--allow-requantize"),
      details: { types: expect.objectContaining({ Q4_0: 3, Q6_K: 4 }) },
    });
    expect(existsSync(job.output)).toBe(false);
    const { warnings } = await quantizeModel({ ...job, config: { ...common, allow_requantize: true } }, session);
    expect(warnings.join()).toMatch(/quantized already \(.*3 of Q4_0.*4 of Q6_K/);
    const keeping = { ...common, include: ["^plain\\.F16"] };
    await expect(quantizeModel({ ...job, config: keeping, force: true }, session)).resolves.toMatchObject({
      warnings: [],
    });
  });

  it("gives what its float32 twin gives, quantized and kept, and validates", async () => {
    const expected = readExpected(SAMPLES);
    const parts = [...expected].map(([name, { shape, bits }]) => floatPart(name, shape, new Float32Array(bits.buffer)));
    const twin = await writeModel(folder.path("twin.safetensors"), parts);
    for (const config of [common, { ...common, exclude: ["matrix", "reshaped"] }]) {
      const output = folder.path("blocks.parquet");
      await quantizeModel({ input: blocks, output, config: { ...config, allow_requantize: true } }, session);
      const twinOutput = folder.path("twin.parquet");
      await quantizeModel({ input: twin, output: twinOutput, config }, session);
      const found = await readStored(output);
      const wanted = await readStored(twinOutput);
      const blocked = Object.keys(wanted).filter((name) => !name.startsWith("plain"));
      expect(blocked.length).toBeGreaterThan(40);
      for (const name of blocked) expect(found[name], name).toEqual(wanted[name]);

      const { layers, passed, misshapen } = await validateModel({ original: blocks, quantized: output }, session);
      expect({ passed, misshapen }).toEqual({ passed: true, misshapen: [] });
      const metrics = (all: typeof layers) => new Map(all.map((layer) => [layer.name, layer.metrics]));
      const ofTwin = await validateModel({ original: twin, quantized: twinOutput }, session);
      for (const name of blocked) expect(metrics(layers).get(name)).toEqual(metrics(ofTwin.layers).get(name));
      expect(layers.find(({ name }) => name === "vector.Q4_K")).toMatchObject({ dtype: "Q4_K", identical: true });
    }
  });

  it("may be cut into chunks and slabs that begin in the middle of a block", async () => {
    // 6,000 bytes of float32 a row: 699 rows a chunk where it is kept, and 699 · 1,500 is no multiple of 32.
    const shape = [1504, 1500];
    const { elements, bytes } = BLOCKS.Q8_0;
    const blockCount = (1504 * 1500) / elements;
    const raw = Buffer.alloc(blockCount * bytes).map((_, i) => (i % bytes === 1 ? 0x1c : (i * 41) & 255));
    const small = Buffer.alloc(4 * 64 * 64).map((_, i) => (i % 4 === 3 ? 0x3d : (i * 29) & 255));
    const input = folder.path("wide.gguf");
    await writeGguf(
      input,
      [
        { name: "wide.weight", sizes: [elements, blockCount], type: 8, bytes: raw },
        { name: "small.weight", sizes: [64, 64], type: 0, bytes: small },
      ],
      [int32List("comfy.gguf.orig_shape.wide.weight", shape)],
    );
    const component = await openComponent(input);
    const parts = component.tensors.map((tensor) =>
      floatPart(tensor.name, tensor.shape, readFloats("scalar", component, tensor)),
    );
    const twin = await writeModel(folder.path("wide.safetensors"), parts);
    for (const exclude of [["wide"], ["small"]]) {
      const config = { ...common, exclude };
      const outputs = [folder.path("wide-a.parquet"), folder.path("wide-b.parquet")] as const;
      await quantizeModel({ input, output: outputs[0], config: { ...config, allow_requantize: true } }, session);
      await quantizeModel({ input: twin, output: outputs[1], config }, session);
      const stored = await readStored(outputs[0]);
      expect(stored).toEqual(await readStored(outputs[1]));
      expect(stored["wide.weight"]).toHaveLength(exclude.includes("wide") ? 3 : 1);
      expect((await validateModel({ original: input, quantized: outputs[0] }, session)).passed).toBe(true);
    }
  });
});

it("a real model in GGUF gives the file that it gives in safetensors", async () => {
  const [component] = (await openModel(dit)).components;
  const tensors: StoredTensor[] = [];
  for (const { name, shape, dtype, location } of component!.tensors) {
    const bytes = Buffer.alloc(location.byteLength);
    await withFile(component!.files[location.file]!.path, (file) => readExactly(file, bytes, location.byteOffset));
    expect(dtype).toBe("BF16");
    tensors.push({ name, sizes: shape.toReversed(), type: 30, bytes });
  }
  const input = folder.path("dit.gguf");
  await writeGguf(input, tensors, []);
  const outputs = [folder.path("dit-a.parquet"), folder.path("dit-b.parquet")] as const;
  const { warnings } = await quantizeModel({ input, output: outputs[0], config: { modality: "image" } }, session);
  await quantizeModel({ input: dit, output: outputs[1] }, session);
  expect(warnings).toEqual([]);
  expect(await readStored(outputs[0])).toEqual(await readStored(outputs[1]));
});

it("the command line has a flag for it, and names it where it is missing", async () => {
  const flags = ["--modality", "image", "--bit-width", "8", "--dry-run", "--json"];
  const refused = await run(["quantize", blocks, "-o", folder.path("cli.parquet"), ...flags]);
  expect(refused.code).toBe(3);
  expect(documentOf(refused).error).toMatchObject({
    code: "E_PREQUANTIZED",
    hint: expect.stringContaining("--allow-requantize"),
  });
  const done = await run(["quantize", blocks, "-o", folder.path("cli.parquet"), "--allow-requantize", ...flags]);
  expect(done.code).toBe(0);
  expect(documentOf(done).warnings.join()).toContain("4 of Q6_K");
});

interface StoredTensor extends Omit<TensorPart, "offset"> {
  readonly bytes: Uint8Array;
}

async function writeGguf(path: string, tensors: readonly StoredTensor[], entries: readonly Buffer[]): Promise<void> {
  const infos: Buffer[] = [];
  const data: Uint8Array[] = [];
  let offset = 0;
  for (const tensor of tensors) {
    infos.push(tensorInfo({ ...tensor, offset }));
    const padded = Buffer.alloc(Math.ceil(tensor.bytes.length / 32) * 32);
    padded.set(tensor.bytes);
    data.push(padded);
    offset += padded.length;
  }
  await writeFile(path, buildGguf({ entries, tensors: infos, data: Buffer.concat(data) }));
}
