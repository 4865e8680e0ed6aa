/** The same input and settings give the same bytes, whatever the machine does meanwhile (FORMAT.md, Determinism). */
import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Session, type SessionOptions } from "../../dist/engine/session.js";
import { quantizeModel } from "../../dist/quantize/quantize.js";

const MIB = 1024 * 1024;
const models = {
  "unet-mnist (F32)": fileURLToPath(new URL("../models/unet-mnist", import.meta.url)),
  "dit-mnist (BF16, sharded)": fileURLToPath(new URL("../models/dit-mnist", import.meta.url)),
};

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "arrowquant-determinism-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function digest(input: string, config: object, options: SessionOptions, build?: string): Promise<string> {
  const output = join(folder, "out.parquet");
  if (build !== undefined) process.env.ARROWQUANT_KERNELS = build;
  try {
    await using session = new Session(options);
    await quantizeModel({ input, output, config: { ...config } }, session);
  } finally {
    delete process.env.ARROWQUANT_KERNELS;
  }
  return createHash("sha256")
    .update(await readFile(output))
    .digest("hex");
}

const configs = [
  { method: "rtn", bit_width: 4 },
  { method: "hqq", bit_width: 4 },
  { method: "hqq", bit_width: 3, group_size: 48 },
  { method: "mse", bit_width: 2, group_size: 32 },
  { method: "r2q", bit_width: 2 },
  { method: "rtn", bit_width: 8, symmetric: true, scale_bits: "none", zero_point_bits: "none" },
  // Every layer falls back, so every layer is measured more than once.
  { method: "hqq", bit_width: 2, min_accuracy: 0.99 },
];

describe.each(Object.entries(models))("%s", (_name, input) => {
  it.each(configs)("gives the same bytes for %j", async (config) => {
    const expected = await digest(input, config, { threads: 2 });
    expect(await digest(input, config, { threads: 1, slabBytes: 3000 })).toBe(expected);
    expect(await digest(input, config, { threads: 5, memoryBytes: 1024 * MIB, slabBytes: 64 * 1024 })).toBe(expected);
    expect(await digest(input, config, { threads: 2, memoryBytes: 256 * MIB }, "scalar")).toBe(expected);
  });
});
