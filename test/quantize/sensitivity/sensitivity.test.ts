/** The whole job on a real model: calibrated, measured layer by layer, run in ONNX Runtime. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { ArrowQuant, type SensitivityResult } from "../../../dist/index.js";
import { areModelsHere, MODELS } from "../../graph/onnx-model.ts";

const MODEL = join(MODELS, "dit-mnist");
/** Two layers are enough to run the model a few times. */
const CONFIG = {
  include: ["transformer_blocks\\.2\\.ff"],
  calibration: join(MODEL, "calibration.jsonl"),
  calibration_samples: 32,
  candidate_bits: [2, 4, 8],
  candidate_group_sizes: [32, 128],
} as const;

describe.skipIf(!areModelsHere)("ArrowQuant.sensitivity (skipped where ../shared is absent)", () => {
  let folder: string;
  let aq: ArrowQuant;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "arrowquant-test-sensitivity-"));
    vi.stubEnv("XDG_CACHE_HOME", folder);
    aq = new ArrowQuant();
  });

  afterAll(async () => {
    await aq.dispose();
    vi.unstubAllEnvs();
    await rm(folder, { recursive: true, force: true });
  });

  const measure = async (phases: Set<string>): Promise<SensitivityResult> =>
    aq.sensitivity({
      input: MODEL,
      config: CONFIG,
      kinds: ["output", "model"],
      onProgress: ({ phase }) => void phases.add(phase),
    });

  it("has an error of output and prediction for every candidate, smaller with more bits; known the second time", async () => {
    const phases = new Set<string>();
    const { tables, warnings } = await measure(phases);
    expect(warnings).toEqual([]);
    expect([...phases]).toEqual(expect.arrayContaining(["calibrate", "sensitivity", "run"]));
    const [table] = tables;
    expect(table?.layers.map(({ name }) => name)).toEqual([
      "transformer_blocks.2.ff.net.0.proj.weight",
      "transformer_blocks.2.ff.net.2.weight",
    ]);
    for (const { candidates } of table?.layers ?? []) {
      expect(candidates.map(({ spec }) => [spec.bits, spec.groupSize])).toEqual(
        [2, 4, 8].flatMap((bits) => [32, 128].map((groupSize) => [bits, groupSize])),
      );
      for (const kind of ["output", "model"] as const) {
        const ofWidth = (bits: number) =>
          candidates.filter(({ spec }) => spec.bits === bits).map((candidate) => candidate[kind] as number);
        // Two bits more are a sixteenth of the squared error, by the book.
        expect(Math.max(...ofWidth(4))).toBeLessThan(Math.min(...ofWidth(2)) / 4);
        expect(Math.max(...ofWidth(8))).toBeLessThan(Math.min(...ofWidth(4)) / 16);
        expect(Math.min(...ofWidth(8))).toBeGreaterThan(0);
      }
      // A layer's own output is hurt more than what the whole model makes of it.
      for (const { output, model } of candidates) expect(model).toBeLessThan(output as number);
    }
    const again = new Set<string>();
    expect((await measure(again)).tables).toEqual(tables);
    expect(again.has("sensitivity")).toBe(false);
    expect(again.has("run")).toBe(false);
  });

  it("refuses the output where nothing is calibrated", async () => {
    const job = { input: MODEL, config: { ...CONFIG, calibration: null }, kinds: ["output"] as const };
    await expect(aq.sensitivity(job)).rejects.toMatchObject({ code: "E_CONFLICT" });
  });
});
