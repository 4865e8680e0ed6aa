/** `--packed` against a reader written from compressed-tensors' description of the format alone. */
import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { Session } from "../../dist/engine/session.js";
import type { NativeRow } from "../../dist/formats/parquet/row.js";
import { exportNative } from "../../dist/quantize/export.js";
import type { ExportJob } from "../../dist/quantize/export-job.js";
import { keptRow, METADATA, sealed, writeRows } from "../formats/parquet/native-rows.js";
import { type ReadTensor, readSafetensors } from "./exported.js";
import { useFolder } from "./source.js";

const folder = useFolder();
const session = new Session({ threads: 2 });
afterAll(() => session.dispose());

const failureOf = (job: ExportJob) => exportNative(job, session).catch((thrown) => thrown);

interface Scheme {
  readonly targets: readonly string[];
  readonly format: string;
  readonly weights: {
    readonly num_bits: number;
    readonly type: string;
    readonly symmetric: boolean;
    readonly strategy: string;
    readonly group_size: number | null;
    readonly dynamic: boolean;
  };
}

const readScales = {
  F32: (bytes: Buffer, index: number) => bytes.readFloatLE(4 * index),
  BF16: (bytes: Buffer, index: number) =>
    new Float32Array(Uint32Array.of(bytes.readUInt16LE(2 * index) << 16).buffer)[0] as number,
};

/** Element `index` of codes packed from the first word's lowest bit on, as the signed number the format speaks of. */
function unpack(words: (index: number) => number, index: number, bits: number): number {
  const perWord = 32 / bits;
  const code = (words(Math.floor(index / perWord)) >>> ((index % perWord) * bits)) & (2 ** bits - 1);
  return code - 2 ** (bits - 1);
}

/** The float32 weight of a packed module: (q − zero point) · scale, q and zero point signed. */
function decompress(tensors: ReadonlyMap<string, ReadTensor>, module: string, scheme: Scheme): Float32Array {
  const { num_bits: bits, group_size: groupSize, symmetric, strategy } = scheme.weights;
  const part = (name: string) => tensors.get(`${module}.${name}`) as ReadTensor;
  const shape = part("weight_shape");
  expect(shape).toMatchObject({ dtype: "I64", shape: [2] });
  const [rows, cols] = [0, 8].map((at) => Number(shape.bytes.readBigInt64LE(at))) as [number, number];
  const wordsPerRow = Math.ceil((cols * bits) / 32);
  const size = strategy === "channel" ? cols : (groupSize as number);
  expect(strategy === "channel" ? groupSize : cols % size).toBe(strategy === "channel" ? null : 0);
  const groups = cols / size;
  const [packed, scale] = [part("weight_packed"), part("weight_scale")];
  expect(packed).toMatchObject({ dtype: "I32", shape: [rows, wordsPerRow] });
  expect(scale.shape).toEqual([rows, groups]);
  const zero = symmetric ? null : part("weight_zero_point");
  if (zero !== null) expect(zero).toMatchObject({ dtype: "I32", shape: [Math.ceil((rows * bits) / 32), groups] });
  const readScale = readScales[scale.dtype as keyof typeof readScales];
  const weights = new Float32Array(rows * cols);
  for (let row = 0; row < rows; row++) {
    for (let col = 0; col < cols; col++) {
      const group = Math.floor(col / size);
      const code = unpack((word) => packed.bytes.readInt32LE(4 * (row * wordsPerRow + word)), col, bits);
      const zeroPoint =
        zero === null ? 0 : unpack((word) => zero.bytes.readInt32LE(4 * (word * groups + group)), row, bits);
      weights[row * cols + col] = (code - zeroPoint) * readScale(scale.bytes, row * groups + group);
    }
  }
  return weights;
}

const TYPES = { int2: 2, int4: 4, int8: 8 } as const;

/** How a layer's zero points are stored so that they are whole: none, float32, or codes whose width divides the bits. */
const ZERO_POINTS = ["none", "float", 2, 4, 8] as const;

/** Chunks of a layer that the format holds, cut anywhere. */
function packableLayer(name: string): fc.Arbitrary<NativeRow[]> {
  return fc
    .record({
      quantType: fc.constantFrom(...(Object.keys(TYPES) as (keyof typeof TYPES)[])),
      groupSize: fc.integer({ min: 1, max: 9 }),
      groups: fc.integer({ min: 1, max: 7 }),
      // More than one word of zero points.
      rows: fc.integer({ min: 17, max: 70 }),
      cuts: fc.uniqueArray(fc.integer({ min: 1, max: 69 }), { maxLength: 4 }),
      zeroPoints: fc.constantFrom(...ZERO_POINTS),
      scaleBits: fc.constantFrom(null, 2, 3, 6, 8),
      superGroups: fc.integer({ min: 1, max: 4 }),
      // Says one group per row by a group that is longer than it.
      slack: fc.nat(3),
      seed: fc.integer(),
    })
    .map(({ quantType, groupSize, groups, rows, cuts, zeroPoints, scaleBits, superGroups, slack, seed }) => {
      const bits = TYPES[quantType];
      const cols = groupSize * groups;
      const isCoded = typeof zeroPoints === "number" && bits % zeroPoints === 0;
      const zeroPointBits = isCoded ? zeroPoints : null;
      let state = seed >>> 0;
      const next = (below: number) => {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        return Math.floor((state / 2 ** 32) * below);
      };
      const bytes = (length: number) => Uint8Array.from({ length }, () => next(256));
      const packedBytes = (count: number, width: number) => Math.ceil((count * width) / 8);
      const ends = [...cuts.filter((cut) => cut < rows).sort((a, b) => a - b), rows];
      return ends.map((end, chunkIndex) => {
        const count = end - (ends[chunkIndex - 1] ?? 0);
        const scalesPerRow = scaleBits === null ? groups : Math.ceil(groups / superGroups);
        return sealed({
          ...keptRow(name),
          shape: [rows, cols],
          data: bytes(count * packedBytes(cols, bits)),
          paramCount: rows * cols,
          quantType,
          scales: Float32Array.from({ length: count * scalesPerRow }, () => (next(2000) - 1000) / 3000),
          zeroPoints:
            zeroPoints === "float" ? Float32Array.from({ length: count * groups }, () => next(2 ** bits)) : null,
          quantAxis: 1,
          groupSize: groups === 1 ? groupSize + slack : groupSize,
          method: "rtn",
          storedDtype: null,
          chunkIndex,
          chunkCount: ends.length,
          scaleBits,
          superGroupSize: scaleBits === null ? null : superGroups * (groups === 1 ? groupSize + slack : groupSize),
          scaleCodes: scaleBits === null ? null : bytes(count * packedBytes(groups, scaleBits)),
          zeroPointBits,
          zeroPointCodes: zeroPointBits === null ? null : bytes(count * packedBytes(groups, zeroPointBits)),
        });
      });
    });
}

async function writeNative(name: string, rows: readonly NativeRow[]): Promise<string> {
  const path = folder.path(name);
  await writeFile(path, await writeRows(rows, METADATA));
  return path;
}

function readPacked(output: string) {
  const tensors = readSafetensors(join(output, "diffusion_pytorch_model.safetensors"));
  const config = JSON.parse(readFileSync(join(output, "config.json"), "utf8")) as {
    quantization_config: {
      quant_method: string;
      format: string;
      quantization_status: string;
      config_groups: Record<string, Scheme>;
      ignore: string[];
    };
  };
  return { tensors, config: config.quantization_config };
}

describe("a packed folder", () => {
  const modules = ["blocks.0.attn.to_q", "blocks.1.ff", "x"];

  it("gives the weights of the plain export to the bit, however they are stored and cut", async () => {
    let run = 0;
    const layers = fc.tuple(...modules.map((module) => packableLayer(`${module}.weight`)));
    await fc.assert(
      fc.asyncProperty(layers, async (chunks) => {
        run += 1;
        const input = await writeNative(`${run}.parquet`, [...chunks.flat(), keptRow("bias")]);
        const [plain, output] = [folder.path(`${run}.safetensors`), folder.path(`packed-${run}`)];
        await exportNative({ input, output: plain, dtype: "F32" }, session);
        const { packed } = await exportNative({ input, output, dtype: "F32", packed: true }, session);
        expect(packed).toEqual({ layers: modules.length, dequantized: [], scaleRounding: 0 });
        const expected = readSafetensors(plain);
        const { tensors, config } = readPacked(output);
        const schemes = Object.values(config.config_groups);
        expect(schemes.flatMap(({ targets }) => targets).sort()).toEqual([...modules].sort());
        for (const scheme of schemes) {
          for (const module of scheme.targets) {
            const found = decompress(tensors, module, scheme);
            const wanted = expected.get(`${module}.weight`) as ReadTensor;
            // −0 counts as 0: a scale of any sign times 0.
            const isSame = found.every((weight, index) => weight === wanted.bytes.readFloatLE(4 * index));
            expect(isSame, `${module} ${JSON.stringify(scheme.weights)}`).toBe(true);
          }
        }
        expect(tensors.get("bias")).toEqual(expected.get("bias"));
      }),
      { numRuns: 40 },
    );
  });

  it("says in its configuration what it holds, and what it does not", async () => {
    const [first] = fc.sample(packableLayer("a.weight"), { numRuns: 1, seed: 1 }) as [NativeRow[]];
    const layer = (name: string, over: Partial<NativeRow>) => sealed({ ...int4(), layerName: name, ...over });
    const input = await writeNative("mixed.parquet", [
      ...first,
      layer("b.weight", {}),
      layer("c.weight", {}),
      layer("ragged.weight", { groupSize: 24, scales: new Float32Array(64).fill(1), zeroPoints: null }),
      layer("conv.weight", { shape: [32, 8, 2, 2] }),
      layer("tok_embed.weight", {}),
      layer("table", {}),
      sealed({ ...keptRow("kept.weight"), shape: [2, 2] }),
      keptRow("b.bias"),
    ]);
    const output = folder.path("mixed");
    const { packed, warnings } = await exportNative({ input, output, dtype: "F32", packed: true }, session);
    const { config, tensors } = readPacked(output);
    expect(config).toMatchObject({
      quant_method: "compressed-tensors",
      format: "pack-quantized",
      quantization_status: "compressed",
      ignore: ["ragged", "tok_embed", "kept"],
    });
    const both = Object.values(config.config_groups).find(({ targets }) => targets.includes("b"));
    expect(both).toEqual({
      targets: ["b", "c"],
      format: "pack-quantized",
      input_activations: null,
      output_activations: null,
      weights: { num_bits: 4, type: "int", symmetric: false, strategy: "group", group_size: 16, dynamic: false },
    });
    expect(Object.keys(config.config_groups)).toEqual(["group_0", "group_1"]);
    expect(packed?.layers).toBe(3);
    expect(packed?.dequantized.map(({ name }) => name)).toEqual([
      ...["ragged.weight", "conv.weight", "tok_embed.weight", "table"],
    ]);
    for (const { name } of packed?.dequantized ?? []) expect(tensors.get(name)?.dtype, name).toBe("F32");
    expect(warnings).toEqual([]);
    // The native file's own configuration is all there otherwise.
    expect(JSON.parse(readFileSync(join(output, "config.json"), "utf8"))._class_name).toBe("Ünet");
  });

  it("rounds scales to the type asked for, nothing else, and says by how much", async () => {
    const input = await writeNative("rounded.parquet", [int4()]);
    const [exact, rounded] = [folder.path("exact"), folder.path("rounded")];
    await exportNative({ input, output: exact, dtype: "F32", packed: true }, session);
    const { packed } = await exportNative({ input, output: rounded, dtype: "BF16", packed: true }, session);
    const [before, after] = [readPacked(exact).tensors, readPacked(rounded).tensors];
    const name = "a.weight_scale";
    expect(after.get(name)?.dtype).toBe("BF16");
    const errors = Array.from({ length: 64 }, (_, index) => {
      const scale = readScales.F32(before.get(name)?.bytes as Buffer, index);
      return Math.abs(readScales.BF16(after.get(name)?.bytes as Buffer, index) - scale) / scale;
    });
    expect(packed?.scaleRounding).toBe(Math.max(...errors));
    expect(packed?.scaleRounding).toBeGreaterThan(0);
    expect(packed?.scaleRounding).toBeLessThanOrEqual(2 ** -8);
    for (const part of ["a.weight_packed", "a.weight_zero_point", "a.weight_shape"]) {
      expect(after.get(part)?.bytes.equals(before.get(part)?.bytes as Buffer), part).toBe(true);
    }
  });

  it.each([
    [1e-9, "F16", /1e-9|9\.99/],
    [1e6, "F16", /Infinity/],
  ] as const)("of a scale %s does not pretend that %s holds it", async (scale, dtype, said) => {
    const input = await writeNative("extreme.parquet", [
      sealed({ ...int4(), scales: new Float32Array(64).fill(scale) }),
    ]);
    const failure = await failureOf({ input, output: folder.path("extreme"), dtype, packed: true });
    expect(failure).toMatchObject({ code: "E_CONFLICT", hint: "--dtype bf16 or f32" });
    expect(failure.message).toMatch(said);
  });

  it("warns where a type has hardly any bits left for a scale", async () => {
    const input = await writeNative("tiny.parquet", [sealed({ ...int4(), scales: new Float32Array(64).fill(1.3e-7) })]);
    const { warnings } = await exportNative(
      { input, output: folder.path("tiny"), dtype: "F16", packed: true },
      session,
    );
    expect(warnings).toEqual([expect.stringMatching(/off by up to 8\.\d %/)]);
  });
});

/** 32 rows of 32: groups of 16, whole zero points. */
function int4(): NativeRow {
  return sealed({
    ...keptRow("a.weight"),
    shape: [32, 32],
    data: Uint8Array.from({ length: 512 }, (_, index) => index * 11),
    paramCount: 1024,
    quantType: "int4",
    scales: Float32Array.from({ length: 64 }, (_, index) => 0.01 * (index + 1)),
    zeroPoints: Float32Array.from({ length: 64 }, (_, index) => index % 16),
    quantAxis: 1,
    groupSize: 16,
    method: "rtn",
    storedDtype: null,
  });
}

/** Layers that other settings would have made expressible, and a word of the reason. */
const REFUSED: [string, Partial<NativeRow>, RegExp][] = [
  ["fractional zero points", { zeroPoints: new Float32Array(64).fill(7.5) }, /fractional/],
  ["zero points out of range", { zeroPoints: new Float32Array(64).fill(16) }, /fractional/],
  [
    "zero-point codes of another width",
    { zeroPoints: null, zeroPointBits: 6, zeroPointCodes: new Uint8Array(32 * 2) },
    /zero points of 6 bits/,
  ],
  [
    "method r2q",
    {
      ...{ method: "r2q", quantType: "int2", data: new Uint8Array(256), zeroPoints: null, scaleBits: 4 },
      ...{ superGroupSize: 32, scales: new Float32Array(32), scaleCodes: new Uint8Array(32) },
      residualScaleCodes: new Uint8Array(32),
    },
    /r2q/,
  ],
  [
    "channel equalization",
    {
      spatial: {
        enabled: true,
        channelEqualization: true,
        activationSmoothing: 0.5,
        equalizationScales: new Float32Array(32).fill(2),
      },
    },
    /equalization/,
  ],
  ["3 bits", { quantType: "int3", data: new Uint8Array(32 * 12), zeroPoints: null }, /3 bits/],
];

describe("refused before anything is written", () => {
  it.each(REFUSED)("%s", async (_, over, reason) => {
    const input = await writeNative("refused.parquet", [int4(), sealed({ ...int4(), ...over, layerName: "b.weight" })]);
    const failure = await failureOf({ input, output: folder.path("refused"), dtype: "F32", packed: true });
    expect(failure).toMatchObject({
      code: "E_CONFLICT",
      details: { layers: [{ name: "b.weight", reason: expect.stringMatching(reason) }] },
    });
    expect(failure.message).toContain('"b.weight"');
    expect(failure.hint).toMatch(/quantize with/);
  });

  it("a file in which nothing can be packed", async () => {
    const input = await writeNative("nothing.parquet", [keptRow("a"), sealed({ ...int4(), layerName: "table" })]);
    const failure = await failureOf({ input, output: folder.path("nothing"), dtype: "F32", packed: true });
    expect(failure).toMatchObject({ code: "E_NOTHING", details: { layers: [{ name: "table" }] } });
  });

  it("a tensor whose name the format needs", async () => {
    const input = await writeNative("twice.parquet", [int4(), keptRow("a.weight_scale")]);
    const failure = await failureOf({ input, output: folder.path("twice"), dtype: "F32", packed: true });
    expect(failure).toMatchObject({ code: "E_DUPLICATE", message: expect.stringContaining("a.weight_scale") });
  });
});
