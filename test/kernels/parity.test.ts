/**
 * rtn against another implementation's codes, scales and zero points of real weights (shared/models/parity).
 */
import { existsSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { floatSource, KERNEL_BUILDS, quantize, specOf } from "./harness.js";
import { unpackBits } from "./reference.js";

const shared = new URL("../../../shared/models/", import.meta.url);
const REFERENCE = new URL("parity/dit-mnist_quant_reference.safetensors", shared);
const MODEL = new URL("dit-mnist/transformer/diffusion_pytorch_model.safetensors", shared);

interface Entry {
  dtype: string;
  shape: [number, number];
  data_offsets: [number, number];
}

/** A tensor's bytes by name. */
function openSafetensors(url: URL) {
  const file = readFileSync(url);
  const headerLength = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.subarray(8, 8 + headerLength).toString()) as Record<string, Entry>;
  return (name: string) => {
    const entry = header[name];
    if (entry === undefined) throw new Error(`no tensor ${name}`);
    const [begin, end] = entry.data_offsets;
    return {
      shape: entry.shape,
      bytes: new Uint8Array(file.subarray(8 + headerLength + begin, 8 + headerLength + end)),
    };
  };
}

const present = existsSync(REFERENCE);
if (!present && process.env["CI"]) throw new Error(`${REFERENCE.pathname} is missing`);

describe.skipIf(!present)("rtn beside another implementation (skipped where ../shared is absent)", () => {
  const layers = ["transformer_blocks.0.attn1.to_q", "transformer_blocks.1.ff.net.2"];
  const cases = layers.flatMap((layer) => ([2, 4, 8] as const).map((bits) => ({ layer, bits })));

  it.each(cases.flatMap((each) => KERNEL_BUILDS.map((build) => ({ ...each, build }))))(
    "$layer at $bits bits, $build",
    ({ layer, bits, build }) => {
      const reference = openSafetensors(REFERENCE);
      const weight = openSafetensors(MODEL)(`${layer}.weight`);
      const [rows, cols] = weight.shape;
      const found = quantize(
        build,
        floatSource(new Float32Array(weight.bytes.buffer), cols),
        specOf({ bits, groupSize: 64 }),
      );
      const floats = (part: string) => new Float32Array(reference(`${layer}.rtn.b${bits}.g64.${part}`).bytes.buffer);
      expect(found.scales).toEqual(floats("scale"));
      expect(found.zeroPoints).toEqual(floats("zero"));
      const codes = Uint8Array.from(unpackBits(found.data, rows * cols, bits));
      const expected = reference(`${layer}.rtn.b${bits}.g64.codes`).bytes;
      // It rounds w/s and adds z then: a weight half-way between two codes may fall on the other side.
      const different = codes.filter((code, i) => code !== expected[i]);
      expect(different.length).toBeLessThan(codes.length * 1e-4);
      const farApart = codes.filter((code, i) => Math.abs(code - (expected[i] as number)) > 1);
      expect(farApart.length).toBe(0);
    },
  );
});
