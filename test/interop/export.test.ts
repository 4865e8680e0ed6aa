/** Exported folders as the Python package safetensors reads them, packed layers by numpy. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Session } from "../../dist/engine/session.js";
import { exportNative } from "../../dist/quantize/export.js";
import { quantizeModel } from "../../dist/quantize/quantize.js";
import { preparePython } from "./environment.js";
import { runPython } from "./process.js";

const DIT = fileURLToPath(new URL("../models/dit-mnist", import.meta.url));
const UNET = fileURLToPath(new URL("../models/unet-mnist", import.meta.url));

const { python } = await preparePython();
const folder = mkdtempSync(join(tmpdir(), "arrowquant-interop-export-"));
const session = new Session({ threads: 2 });
afterAll(async () => {
  await session.dispose();
  rmSync(folder, { recursive: true });
});

interface ExportReport {
  readonly ok: boolean;
  readonly problems: readonly string[];
  readonly plain: number;
  readonly packed: number;
}

/** Each quantized so that the packed format can hold it, in a way of its own. */
const MODELS = {
  "dit-mnist at 4 bits, coded scales": { original: DIT, component: "transformer", config: { zero_point_bits: 4 } },
  "dit-mnist at 2 and 8 bits, symmetric": {
    original: DIT,
    component: "transformer",
    config: { bit_width: 2, symmetric: true, layer_bit_widths: { attn1: 8 } },
  },
  "unet-mnist at 8 bits, float32 scales": {
    original: UNET,
    component: "unet",
    config: { bit_width: 8, scale_bits: "none", zero_point_bits: "none" },
  },
} as const;

describe.skipIf(python === null).each(Object.keys(MODELS) as (keyof typeof MODELS)[])("%s", (name) => {
  const { original, component, config } = MODELS[name];
  const path = (ending: string) => join(folder, `${name.replaceAll(/\W+/g, "-")}${ending}`);
  const job = { input: path(".parquet"), dtype: "F32" } as const;

  beforeAll(async () => {
    const settings = { ...config, method: "rtn", min_accuracy: 0 };
    await quantizeModel({ input: original, output: job.input, config: settings }, session);
    await exportNative({ ...job, output: path(".safetensors") }, session);
  });

  test.each([false, true])("exported like the original, packed: %s, holds every tensor to the bit", async (packed) => {
    const output = path(packed ? "-packed" : "-plain");
    await exportNative({ ...job, output, like: original, packed }, session);
    const args = [join(output, component), path(".safetensors")];
    const report = await runPython<ExportReport>(python as string, "check_export.py", args);
    expect(report).toMatchObject({ ok: true, problems: [] });
    expect(report.packed > 0).toBe(packed);
  });
});
