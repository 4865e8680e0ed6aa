/** Native Parquet files, extended and plain V2. */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { openNative } from "../../../dist/formats/parquet/reader.js";
import { mutateBytes, repeatSteps } from "../mutate.mjs";
import { settle } from "./outcome.mjs";
import { buildSafetensors } from "./safetensors.mjs";

const SAMPLES = new URL("../../formats/parquet/samples/", import.meta.url);

/** Settings that between them write every column but the reserved ones. */
const SETTINGS = [
  { bit_width: 4, group_size: 16 },
  { bit_width: 8, group_size: 32, symmetric: true, scale_bits: "none", zero_point_bits: "none" },
  { bit_width: 2, group_size: 16, method: "r2q" },
];

/** Real files of this program, of a model of a few rows, and the samples that pyarrow wrote. */
async function writeSeeds(folder) {
  const { quantize } = await import("../../../dist/index.js");
  const input = join(folder, "source.safetensors");
  writeFileSync(
    input,
    buildSafetensors([
      { name: "blocks.0.attn.to_q.weight", dtype: "F8_E4M3", shape: [6, 40] },
      { name: "blocks.0.attn.to_q.weight_scale", dtype: "F32", shape: [] },
      { name: "blocks.0.conv.weight", dtype: "F16", shape: [4, 3, 3, 3] },
      { name: "norm.weight", dtype: "BF16", shape: [5] },
      { name: "empty", dtype: "F32", shape: [0, 4] },
    ]),
  );
  const seeds = ["extended.parquet", "plain-v2.parquet"].map((name) => readFileSync(new URL(name, SAMPLES)));
  for (const [index, settings] of SETTINGS.entries()) {
    const output = join(folder, `seed-${index}.parquet`);
    const common = { min_accuracy: 0, modality: "image", on_nonfinite: "keep", skip_sensitive_layers: false };
    await quantize({ input, output, config: { ...common, ...settings } }, { threads: 1 });
    seeds.push(readFileSync(output));
  }
  // The large sample once, the plain one three times: its path through the library is another.
  return [...seeds, ...seeds.slice(1), seeds[1]];
}

/** Where the footer starts, of a sound file. */
const footerStartOf = (bytes) => bytes.length - 8 - bytes.readUInt32LE(bytes.length - 8);

function mutate(random, seeds) {
  const base = random.pick(seeds);
  const footerStart = footerStartOf(base);
  const place = random.below(10);
  if (place < 2) return repeatSteps(random, base, (bytes) => mutateBytes(random, bytes));
  // Mutations of the footer keep the trailer right, so that it is parsed at all.
  const isFooter = place < 7;
  const part = isFooter ? base.subarray(footerStart, -8) : base.subarray(4, footerStart);
  const changed = repeatSteps(random, part, (bytes) => mutateBytes(random, bytes));
  const trailer = Buffer.from("\0\0\0\0PAR1", "latin1");
  trailer.writeUInt32LE(isFooter ? changed.length : base.length - 8 - footerStart);
  return isFooter
    ? Buffer.concat([base.subarray(0, footerStart), changed, trailer])
    : Buffer.concat([base.subarray(0, 4), changed, base.subarray(footerStart, -8), trailer]);
}

const bytesOf = (values) => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

async function check(path) {
  return settle(["E_NATIVE", "E_CRC", "E_TRUNCATED", "E_LIMIT"], async () => {
    const file = await openNative(path);
    const headers = [];
    for await (const { layerName, chunkIndex } of file.rowHeaders()) headers.push(`${chunkIndex} ${layerName}`);
    const rows = [];
    for await (const row of file.rows()) {
      rows.push(`${row.chunkIndex} ${row.layerName}`);
      const parts = [row.data, row.scales, row.zeroPoints, row.scaleCodes, row.zeroPointCodes, row.residualScaleCodes];
      const sum = parts.reduce((crc, part) => (part === null ? crc : crc32(bytesOf(part), crc)), 0);
      if (file.kind === "extended") assert.equal(row.crc32, sum, "a row with the wrong checksum");
      assert.equal(
        row.shape.reduce((product, size) => product * BigInt(size), 1n),
        BigInt(row.paramCount),
      );
    }
    file.close();
    assert.deepEqual(rows, headers);
  });
}

export default {
  module: import.meta.url,
  name: "native",
  fileName: "case.parquet",
  writeSeeds,
  mutate,
  check,
};
