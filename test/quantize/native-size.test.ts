import { stat } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import type { ConfigSettings } from "../../dist/config/config.js";
import { resolveConfig } from "../../dist/config/resolve.js";
import { Session } from "../../dist/engine/session.js";
import { fingerprintComponent } from "../../dist/formats/fingerprint.js";
import { openModel } from "../../dist/formats/open.js";
import { nativeMetadata } from "../../dist/quantize/metadata.js";
import { measureNativeFile } from "../../dist/quantize/native-size.js";
import { quantizeModel } from "../../dist/quantize/quantize.js";
import type { QuantizePlan } from "../../dist/quantize/result.js";
import type { Component } from "../../dist/tensor/info.js";
import { gaussianPart, useFolder, writeModel } from "./source.js";

const folder = useFolder();
const session = new Session({ threads: 2 });
afterAll(() => session.dispose());
const unet = fileURLToPath(new URL("../models/unet-mnist", import.meta.url));

/** Quantizes, and measures the same plan without quantizing. */
async function bothSizes(input: string, settings: ConfigSettings): Promise<{ written: number; measured: number }> {
  // Layers that fall back for quality are not as planned.
  const config = await resolveConfig({ config: { min_accuracy: 0, ...settings } });
  const output = folder.path("out.parquet");
  let planned: QuantizePlan | null = null;
  await quantizeModel({ input, output, config, force: true }, session, {
    onPlanned: (plan) => {
      planned = plan;
    },
  });
  const [plan] = (planned as unknown as QuantizePlan).components;
  const component = (await openModel(input)).components.find(({ name }) => name === plan?.component) as Component;
  const metadata = nativeMetadata(component, config, plan!, await fingerprintComponent(component));
  return { written: (await stat(output)).size, measured: await measureNativeFile(plan!, metadata, "timestep") };
}

describe("the measured length of a native file", () => {
  it("is that of the file to the byte, whatever the storage", async () => {
    const input = await writeModel(folder.path("parts.safetensors"), [
      gaussianPart("a.weight", [33, 200], 1),
      gaussianPart("a.bias", [33], 2),
      gaussianPart("conv.weight", [16, 7, 3, 3], 3),
      gaussianPart("ümlaut/名.weight", [5, 1025], 4),
    ]);
    const settings = fc.record(
      {
        bit_width: fc.constantFrom(2, 3, 4, 5, 6, 8),
        group_size: fc.constantFrom(16, 48, 128, 1024),
        symmetric: fc.boolean(),
        scale_bits: fc.constantFrom(2, 6, 8, "none"),
        zero_point_bits: fc.constantFrom(3, 8, "none"),
        layer_bit_widths: fc.constantFrom({}, { conv: "none" }, { conv: 8, a: 2 }),
      },
      { requiredKeys: ["bit_width"] },
    );
    await fc.assert(
      fc.asyncProperty(settings, async ({ zero_point_bits, ...given }) => {
        const zeroPoints = given.symmetric || zero_point_bits === undefined ? {} : { zero_point_bits };
        const config = { method: "rtn", modality: "image", ...given, ...zeroPoints } as ConfigSettings;
        const { written, measured } = await bothSizes(input, config);
        expect(measured).toBe(written);
      }),
      { numRuns: 25 },
    );
  });

  it("holds for r2q, and for a tensor of several chunks and row groups", async () => {
    const input = await writeModel(folder.path("large.safetensors"), [gaussianPart("large.weight", [1500, 4096], 5)]);
    for (const config of [
      { bit_width: 8, method: "rtn" },
      { bit_width: 2, method: "r2q" },
    ] as const) {
      const { written, measured } = await bothSizes(input, { modality: "image", ...config });
      expect(measured).toBe(written);
    }
  });

  it("holds for a pipeline's component with its configuration", async () => {
    const { written, measured } = await bothSizes(unet, { method: "rtn", bit_width: 3, group_size: 32 });
    expect(measured).toBe(written);
  });
});
