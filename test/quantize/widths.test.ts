/** Every bit width from a model to its native file and back, in one file layer by layer and across methods. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { Session } from "../../dist/engine/session.js";
import { openNative } from "../../dist/formats/parquet/reader.js";
import type { NativeRow } from "../../dist/formats/parquet/row.js";
import { exportNative } from "../../dist/quantize/export.js";
import { exportOnnx } from "../../dist/quantize/export-onnx.js";
import { quantizeModel } from "../../dist/quantize/quantize.js";
import { quantizeIntoSafetensors } from "../../dist/quantize/quantize-export.js";
import { BIT_WIDTHS } from "../../dist/tensor/layout.js";
import { validateModel } from "../../dist/validate/validate.js";
import { unpackBits } from "../kernels/reference.js";
import { readSafetensors } from "./exported.js";
import { SHARED_MODELS } from "./methods/vectors.js";
import { floatPart, gaussianFloats, gaussianPart, useFolder, writeModel } from "./source.js";

const folder = useFolder();
const session = new Session({ threads: 2 });
afterAll(() => session.dispose());

/** Rows that end within a byte, a word and a group at every width. */
const ROWS = 37;
const COLS = 117;
const GROUP_SIZE = 48;

const widthOf = (name: string) => Number(/^w(\d)/.exec(name)?.[1]);
const layerBits = Object.fromEntries(BIT_WIDTHS.map((bits) => [`^w${bits}`, bits]));

async function readRows(path: string): Promise<NativeRow[]> {
  const native = await openNative(path);
  const rows: NativeRow[] = [];
  for await (const row of native.rows()) rows.push(row);
  native.close();
  return rows;
}

/** FORMAT.md, Codes and Rebuilding, for rows of 6-bit scale codes in one super-group. */
function rebuildRow({ data, scales, scaleCodes, zeroPointCodes }: NativeRow, row: number, bits: number): Float32Array {
  const groups = Math.ceil(COLS / GROUP_SIZE);
  const codesOf = (packed: Uint8Array, count: number, width: number) => {
    const rowBytes = Math.ceil((count * width) / 8);
    return unpackBits(packed.subarray(row * rowBytes, (row + 1) * rowBytes), count, width);
  };
  const codes = codesOf(data, COLS, bits);
  const scale = codesOf(scaleCodes as Uint8Array, groups, 6).map((c) => Math.fround((scales?.[row] as number) * c));
  const step = Math.fround((2 ** bits - 1) / 63);
  const zero = codesOf(zeroPointCodes as Uint8Array, groups, 6).map((c) => Math.fround(c * step));
  return Float32Array.from(codes, (q, col) => {
    const g = Math.floor(col / GROUP_SIZE);
    return Math.fround(q - (zero[g] as number)) * (scale[g] as number);
  });
}

const settings = { modality: "image", group_size: GROUP_SIZE, super_group_size: 192, min_accuracy: 0 } as const;

describe.each(["rtn", "hqq", "mse"] as const)("a file of every width, %s", (method) => {
  it("validates, and exports what FORMAT.md rebuilds", async () => {
    const input = await writeModel(
      folder.path("source.safetensors"),
      BIT_WIDTHS.map((bits) => gaussianPart(`w${bits}.weight`, [ROWS, COLS], bits)),
    );
    const output = folder.path(`${method}.parquet`);
    const config = { ...settings, method, layer_bit_widths: layerBits };
    const { layers } = await quantizeModel({ input, output, config }, session);
    for (const { name, quantType } of layers) expect(quantType).toBe(`int${widthOf(name)}`);

    const rows = await readRows(output);
    const validated = await validateModel({ original: input, quantized: output }, session);
    expect(validated.passed).toBe(true);
    const thresholds = new Map(validated.layers.map(({ quantType, threshold }) => [quantType, threshold]));
    expect([...thresholds.values()]).toEqual([0.7, 0.8, 0.9, 0.92, 0.93, 0.95]);

    const exported = folder.path(`${method}.safetensors`);
    await exportNative({ input: output, output: exported, dtype: "F32" }, session);
    const tensors = readSafetensors(exported);
    for (const row of rows) {
      const bytes = tensors.get(row.layerName)?.bytes as Buffer;
      for (let r = 0; r < ROWS; r++) {
        const found = new Float32Array(bytes.buffer.slice(bytes.byteOffset + 4 * r * COLS).slice(0, 4 * COLS));
        expect(found, row.layerName).toEqual(rebuildRow(row, r, widthOf(row.layerName)));
      }
    }
  });

  it("errs about half as much with every bit more", async () => {
    const input = await writeModel(folder.path("one.safetensors"), [gaussianPart("a.weight", [64, 768], 1)]);
    const errors: number[] = [];
    for (const bits of BIT_WIDTHS) {
      const output = folder.path("one.parquet");
      const config = { ...settings, method, bit_width: bits, zero_point_bits: "none" } as const;
      const { layers } = await quantizeModel({ input, output, force: true, config }, session);
      errors.push(layers[0]?.metrics?.relativeRmse as number);
    }
    for (const [index, bits] of BIT_WIDTHS.slice(1).entries()) {
      const perBit = ((errors[index] as number) / (errors[index + 1] as number)) ** (1 / (bits - BIT_WIDTHS[index]!));
      expect(perBit, `${bits} bits`).toBeGreaterThan(1.75);
      expect(perBit, `${bits} bits`).toBeLessThan(2.6);
    }
  });
});

describe("a layer of several chunks at 3 bits", () => {
  it("is cut between rows that end within a byte", async () => {
    const [rows, cols] = [8, 1_500_001];
    const values = new Float32Array(rows * cols);
    const piece = gaussianFloats(65_521, 1);
    for (let at = 0; at < values.length; at += piece.length) values.set(piece.subarray(0, values.length - at), at);
    const input = await writeModel(folder.path("long.safetensors"), [floatPart("a.weight", [rows, cols], values)]);
    const output = folder.path("long.parquet");
    await quantizeModel({ input, output, config: { ...settings, method: "rtn", bit_width: 3 } }, session);
    // ceil(1,500,001 · 3 / 8) bytes a row, seven of which go into 4 MiB.
    expect((await readRows(output)).map(({ data }) => data.length)).toEqual([7 * 562_501, 562_501]);
    expect((await validateModel({ original: input, quantized: output }, session)).passed).toBe(true);
  });
});

describe("exports that have not every width", () => {
  const present = existsSync(SHARED_MODELS);
  if (!present && process.env["CI"]) throw new Error(`${SHARED_MODELS} is missing`);

  it.skipIf(!present)("refuse 3, 5 and 6 bits by layer before anything is written", async () => {
    const original = join(SHARED_MODELS, "dit-mnist");
    const input = folder.path("mixed.parquet");
    const names = ["to_q", "to_k", "to_v"].map((name) => `transformer_blocks.0.attn1.${name}.weight`);
    const config = {
      include: ["transformer_blocks\\.0\\.attn1\\.to_"],
      layer_bit_widths: { "0\\.attn1\\.to_q": 3, "0\\.attn1\\.to_k": 5, "0\\.attn1\\.to_v": 6 },
      method: "rtn",
      symmetric: true,
    } as const;
    await quantizeModel({ input: original, output: input, config }, session);
    const failures = await Promise.all([
      exportOnnx({ input, output: folder.path("mixed.onnx"), original }, session).catch((thrown) => thrown),
      exportNative({ input, output: folder.path("mixed"), dtype: "F32", packed: true }, session).catch(
        (thrown) => thrown,
      ),
    ]);
    for (const failure of failures) {
      expect(failure).toMatchObject({ code: "E_CONFLICT", hint: expect.stringContaining("2, 4, 8") });
      const refused = failure.details.layers as { name: string; reason: string }[];
      expect(refused.map(({ name }) => name).sort()).toEqual(names.sort());
      expect(refused.map(({ reason }) => reason).sort()).toEqual(["3 bits", "5 bits", "6 bits"]);
    }
    expect([folder.path("mixed.onnx"), folder.path("mixed")].filter(existsSync)).toEqual([]);
  });

  it("refuse them of a model before they read a weight of it", async () => {
    const values = gaussianFloats(64 * 96, 1).fill(Number.NaN, 7, 8);
    const input = await writeModel(folder.path("nan.safetensors"), [floatPart("a.weight", [64, 96], values)]);
    const intoPacked = (bits: number) => {
      const config = { ...settings, method: "rtn", symmetric: true, bit_width: bits as 3 } as const;
      const job = { input, output: folder.path("packed"), dtype: "F32", packed: true, config } as const;
      return quantizeIntoSafetensors(job, session, {}).catch((thrown) => thrown);
    };
    const refusal = { code: "E_CONFLICT", details: { layers: [{ name: "a.weight", reason: "3 bits" }] } };
    expect(await intoPacked(3)).toMatchObject(refusal);
    expect((await intoPacked(4)).code).not.toBe("E_CONFLICT");
  });
});
