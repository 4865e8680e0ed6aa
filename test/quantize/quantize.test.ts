import { createHash } from "node:crypto";
import { existsSync, readdirSync } from "node:fs";
import { appendFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { Session } from "../../dist/engine/session.js";
import { openNative } from "../../dist/formats/parquet/reader.js";
import type { NativeRow } from "../../dist/formats/parquet/row.js";
import { quantizeModel } from "../../dist/quantize/quantize.js";
import { validateModel } from "../../dist/validate/validate.js";
import { floatPart, gaussianFloats, gaussianPart, useFolder, writeModel } from "./source.js";

const MIB = 1024 * 1024;
const unet = fileURLToPath(new URL("../models/unet-mnist", import.meta.url));
const folder = useFolder();
const session = new Session({ threads: 2 });
afterAll(() => session.dispose());

async function readRows(path: string): Promise<NativeRow[]> {
  const native = await openNative(path);
  const rows: NativeRow[] = [];
  for await (const row of native.rows()) rows.push(row);
  native.close();
  return rows;
}

const digest = async (path: string) =>
  createHash("sha256")
    .update(await readFile(path))
    .digest("hex");

/** What a folder holds besides inputs and finished outputs. */
const leftovers = (path: string) => readdirSync(dirname(path)).filter((name) => name.includes(".arrowquant-"));

const plain = { modality: "image", scale_bits: "none", zero_point_bits: "none", method: "rtn" };

describe("a layer of several chunks", () => {
  // 2 bits of 12 Mi weights: 3 MiB a chunk of 12,288 columns; 8 bits: 12 MiB.
  const shape = [1024, 12288];
  const config = { ...plain, bit_width: 8 };

  it("is cut by the rule, in order, and complete", async () => {
    const input = await writeModel(folder.path("large.safetensors"), [gaussianPart("large.weight", shape, 1)]);
    const output = folder.path("large.parquet");
    await quantizeModel({ input, output, config }, session);
    const rows = await readRows(output);
    const rowsPerChunk = Math.floor((4 * MIB) / 12288);
    expect(rows.map(({ chunkIndex }) => chunkIndex)).toEqual([0, 1, 2, 3]);
    expect(rows.map(({ data }) => data.length / 12288)).toEqual([rowsPerChunk, rowsPerChunk, rowsPerChunk, 1]);
    expect((await validateModel({ original: input, quantized: output }, session)).passed).toBe(true);
  });

  it("gives the same bytes streamed, held and spilled", async () => {
    const input = folder.path("large.safetensors");
    const made: Record<string, string> = {};
    const runs = { streamed: [0, 512], held: [0.5, 512], spilled: [0.5, 224] } as const;
    for (const [how, [minAccuracy, memoryMib]] of Object.entries(runs)) {
      const output = folder.path(`large-${how}.parquet`);
      await using small = new Session({ threads: 1, memoryBytes: memoryMib * MIB });
      await quantizeModel({ input, output, config: { ...config, min_accuracy: minAccuracy } }, small);
      const rows = await readRows(output);
      made[how] = createHash("sha256")
        .update(Buffer.concat(rows.map(({ data }) => data)))
        .digest("hex");
      expect(leftovers(output)).toEqual([]);
    }
    expect(new Set(Object.values(made)).size).toBe(1);
  });
});

describe("fallback", () => {
  // An outlier of 7.5 standard deviations takes the range of the one group of its row.
  const wild = gaussianFloats(64 * 256, 2);
  for (let row = 0; row < 64; row++) wild[row * 256 + row] = 0.15;
  const parts = [
    gaussianPart("a.weight", [64, 256], 3),
    floatPart("b.weight", [64, 256], wild),
    gaussianPart("c.weight", [64, 256], 4),
  ];
  const config = { ...plain, bit_width: 2, group_size: 256, min_accuracy: 0.8 };

  it("moves the layer alone to the next width and reports what was too low", async () => {
    const input = await writeModel(folder.path("wild.safetensors"), parts);
    const output = folder.path("wild.parquet");
    const { layers } = await quantizeModel({ input, output, config: { ...config, min_accuracy: 0.7 } }, session);
    expect(layers.map(({ quantType }) => quantType)).toEqual(["int2", "int4", "int2"]);
    const [first] = layers[1]?.fallbackFrom ?? [];
    expect(first?.quantType).toBe("int2");
    expect(first?.cosineSimilarity).toBeLessThan(0.7);
    expect(layers[1]?.metrics?.cosineSimilarity).toBeGreaterThanOrEqual(0.7);
    expect(layers[1]?.reason).toContain("fell back");
    const rows = await readRows(output);
    expect(rows.map(({ quantType }) => quantType)).toEqual(layers.map(({ quantType }) => quantType));
  });

  it("keeps a layer no width is good enough for, byte for byte", async () => {
    const input = folder.path("wild.safetensors");
    const output = folder.path("kept.parquet");
    const { layers } = await quantizeModel({ input, output, config: { ...config, min_accuracy: 1 } }, session);
    expect(layers[1]).toMatchObject({ quantType: "none", metrics: null });
    expect(layers[1]?.fallbackFrom.map(({ quantType }) => quantType)).toEqual(["int2", "int4", "int8"]);
    const row = (await readRows(output))[1] as NativeRow;
    expect(Buffer.compare(row.data, Buffer.from(wild.buffer))).toBe(0);
  });

  it("is off at 0, and leaves pinned layers alone", async () => {
    const input = folder.path("wild.safetensors");
    for (const over of [{ min_accuracy: 0 }, { layer_bit_widths: { "b\\.weight": 2 }, min_accuracy: 0.7 }]) {
      const output = folder.path("off.parquet");
      const { layers } = await quantizeModel({ input, output, config: { ...config, ...over } }, session);
      expect(layers.map(({ quantType }) => quantType)).toEqual(["int2", "int2", "int2"]);
    }
  });

  it("with fail_fast stops at the first such layer without output", async () => {
    const output = folder.path("fail-fast.parquet");
    const job = { input: folder.path("wild.safetensors"), output, config: { ...config, fail_fast: true } };
    const error = await quantizeModel(job, session).catch((thrown) => thrown);
    expect(error).toMatchObject({ code: "E_QUALITY", exitCode: 4, details: { bits: 2 } });
    expect(existsSync(output)).toBe(false);
    expect(leftovers(output)).toEqual([]);
  });
});

describe("a weight that is not finite", () => {
  it.each([Number.NaN, Number.POSITIVE_INFINITY])(
    "%s is an error with its place, or the layer is kept",
    async (bad) => {
      const values = gaussianFloats(64 * 100, 5);
      values[37 * 100 + 41] = bad;
      values[50 * 100 + 2] = bad;
      const input = await writeModel(folder.path("bad.safetensors"), [
        gaussianPart("fine.weight", [64, 100], 6),
        floatPart("bad.weight", [64, 100], values),
      ]);
      const output = folder.path("bad.parquet");
      const error = await quantizeModel({ input, output, config: plain }, session).catch((thrown) => thrown);
      expect(error).toMatchObject({ code: "E_NONFINITE", details: { tensor: "bad.weight", row: 37, col: 41 } });
      expect(leftovers(output)).toEqual([]);
      const config = { ...plain, on_nonfinite: "keep" };
      const { layers } = await quantizeModel({ input, output, config }, session);
      expect(layers.map(({ quantType }) => quantType)).toEqual(["int4", "none"]);
      expect(layers[1]?.reason).toContain("row 37, column 41");
      expect(Buffer.compare((await readRows(output))[1]?.data as Uint8Array, Buffer.from(values.buffer))).toBe(0);
    },
  );
});

describe("float8 sources with scales", () => {
  it("are read with their scales applied, kept ones as float32, and validate as such", async () => {
    const codes = Uint8Array.from({ length: 64 * 128 }, (_, index) => (index * 37) % 120);
    const scale = (value: number) => new Uint8Array(new Float32Array([value]).buffer);
    const input = await writeModel(folder.path("float8.safetensors"), [
      { name: "a.scale_weight", dtype: "F32", shape: [], bytes: scale(0.25) },
      { name: "a.weight", dtype: "F8_E4M3", shape: [64, 128], bytes: codes },
      { name: "b.scale_weight", dtype: "F32", shape: [], bytes: scale(4) },
      { name: "b.weight", dtype: "F8_E4M3", shape: [64, 128], bytes: codes },
    ]);
    const output = folder.path("float8.parquet");
    const config = { ...plain, bit_width: 8, exclude: ["^b\\."] };
    await quantizeModel({ input, output, config }, session);
    const rows = await readRows(output);
    expect(rows.map(({ layerName, storedDtype }) => [layerName, storedDtype])).toEqual([
      ["a.weight", null],
      ["b.weight", "F32"],
    ]);
    const kept = new Float32Array(Uint8Array.from(rows[1]?.data ?? []).buffer);
    // Code 37 is 0 0100 101: 2^(4 - 7) · (1 + 5/8).
    expect(kept[1]).toBe(4 * 0.203125);
    const result = await validateModel({ original: input, quantized: output }, session);
    expect(result.passed).toBe(true);
    expect(result.layers[1]?.identical).toBe(true);
  });
});

describe("several components", () => {
  it("become a folder that appears and is replaced as a whole", async () => {
    const model = folder.path("pipeline");
    await mkdir(model, { recursive: true });
    const components = { transformer: "FluxTransformer2DModel", transformer_2: "FluxTransformer2DModel" };
    const index = { _class_name: "FluxPipeline", ...mapValues(components, (name) => ["diffusers", name]) };
    await writeFile(folder.path("pipeline", "model_index.json"), JSON.stringify(index));
    for (const [name, className] of Object.entries(components)) {
      await mkdir(folder.path("pipeline", name));
      await writeFile(folder.path("pipeline", name, "config.json"), JSON.stringify({ _class_name: className }));
      const part = gaussianPart("transformer_blocks.0.attn.to_q.weight", [64, 128], 7);
      await writeModel(folder.path("pipeline", name, "diffusion_pytorch_model.safetensors"), [part]);
    }
    const output = folder.path("pipeline-out");
    const first = await quantizeModel({ input: model, output, config: plain }, session);
    expect(readdirSync(output).sort()).toEqual(["transformer.parquet", "transformer_2.parquet"]);
    expect(Object.keys(first.fingerprints)).toEqual(["transformer", "transformer_2"]);
    const before = await digest(folder.path("pipeline-out", "transformer.parquet"));
    await quantizeModel({ input: model, output, config: { ...plain, bit_width: 2 } }, session);
    expect(await digest(folder.path("pipeline-out", "transformer.parquet"))).not.toBe(before);
    expect(leftovers(output)).toEqual([]);
    expect((await validateModel({ original: model, quantized: output }, session)).passed).toBe(true);
    await writeFile(folder.path("pipeline-out", "notes.txt"), "mine");
    await expect(quantizeModel({ input: model, output, config: plain }, session)).rejects.toMatchObject({
      code: "E_OUTPUT",
    });
  });
});

describe("abort", () => {
  it.each(["before the start", "at the first progress"])(
    "%s rejects with the reason and leaves nothing",
    async (when) => {
      const controller = new AbortController();
      const reason = new Error("enough");
      if (when === "before the start") controller.abort(reason);
      const output = folder.path(`aborted ${when}.parquet`);
      const onProgress = () => controller.abort(reason);
      const job = { input: unet, output, signal: controller.signal, onProgress };
      await expect(quantizeModel(job, session)).rejects.toBe(reason);
      expect(existsSync(output)).toBe(false);
      expect(leftovers(output)).toEqual([]);
      // The session goes on.
      expect((await quantizeModel({ input: unet, output }, session)).summary.quantized).toBe(61);
    },
  );

  it("in a listener's exception fails the job with it as cause", async () => {
    const output = folder.path("listener.parquet");
    const onProgress = () => {
      throw new Error("listener broke");
    };
    const error = await quantizeModel({ input: unet, output, onProgress }, session).catch((thrown) => thrown);
    expect(error.cause).toMatchObject({ message: "listener broke" });
    expect(leftovers(output)).toEqual([]);
  });
});

describe("input that changes while it is read", () => {
  it("is noticed at the end, and no output appears", async () => {
    const input = await writeModel(folder.path("changing.safetensors"), [gaussianPart("a.weight", [64, 128], 8)]);
    const output = folder.path("changing.parquet");
    let changed: Promise<void> | null = null;
    const onProgress = async () => {
      changed ??= appendFile(input, "x");
      await changed;
    };
    await expect(quantizeModel({ input, output, config: plain, onProgress }, session)).rejects.toMatchObject({
      code: "E_CHANGED",
    });
    expect(leftovers(output)).toEqual([]);
  });
});

describe("memory", () => {
  it("a row that cannot fit the cap is refused before any work, with the cap that would do", async () => {
    const input = await writeModel(folder.path("wide.safetensors"), [gaussianPart("wide.weight", [2, 6 * MIB], 9)]);
    await using small = new Session({ threads: 1, memoryBytes: 208 * MIB });
    const job = { input, output: folder.path("wide.parquet"), config: plain };
    const error = await quantizeModel(job, small).catch((thrown) => thrown);
    expect(error).toMatchObject({ code: "E_MEMORY" });
    await using large = new Session({ threads: 1, memoryBytes: error.details.neededBytes });
    expect((await quantizeModel(job, large)).summary.quantized).toBe(1);
  });
});

function mapValues<V, R>(record: Record<string, V>, change: (value: V) => R): Record<string, R> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, change(value)]));
}
