/**
 * What is measured of a candidate is what a quantization with it would write: compared with quantizations, with sums
 * over the weights themselves, and with a stand-in for the model's runs.
 */
import { appendFile, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { calibrateModel } from "../../../dist/calibration/calibrate.js";
import { openStatistics, type Statistics } from "../../../dist/calibration/statistics.js";
import { resolveConfig } from "../../../dist/config/resolve.js";
import { Session } from "../../../dist/engine/session.js";
import { openModel } from "../../../dist/formats/open.js";
import { ArrowQuant, type ConfigSettings, type QuantizeResult } from "../../../dist/index.js";
import { planComponents } from "../../../dist/plan/component.js";
import type { ComponentPlan, LayerPlan } from "../../../dist/plan/plan.js";
import { planCalibrationOf } from "../../../dist/quantize/plan-calibration.js";
import { errorOf } from "../../../dist/quantize/sensitivity/error.js";
import { type LayerErrorSource, measureSensitivity } from "../../../dist/quantize/sensitivity/measure.js";
import { type CandidateStore, openCandidateStore } from "../../../dist/quantize/sensitivity/store.js";
import type { CandidateErrors, SensitivityTable } from "../../../dist/quantize/sensitivity/table.js";
import type { Component } from "../../../dist/tensor/info.js";
import { type BitWidth, type QuantSpec, viewAs2d } from "../../../dist/tensor/layout.js";
import { areModelsHere, MODELS } from "../../graph/onnx-model.ts";
import { readSafetensors } from "../exported.js";

const MODEL = join(MODELS, "dit-mnist");
const WIDTHS: readonly BitWidth[] = [2, 3, 8];
const LAYERS = ["transformer_blocks\\.1\\.(attn1|norm1)"];

describe.skipIf(!areModelsHere)("sensitivity (skipped where ../shared is absent)", () => {
  let folder: string;
  let session: Session;
  let statistics: Statistics;
  let component: Component;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "arrowquant-test-sensitivity-"));
    session = new Session();
    component = (await openModel(MODEL)).components[0] as Component;
    const path = join(folder, "stats.safetensors");
    await calibrateModel(
      {
        input: MODEL,
        graph: null,
        source: join(MODEL, "calibration.parquet"),
        output: path,
        samples: 48,
        steps: 20,
        seed: 0,
        roles: {},
        variant: null,
        components: null,
        hessians: true,
        cacheFolder: join(folder, "calibrations"),
      },
      session,
    );
    statistics = await openStatistics(path);
  });

  afterAll(async () => {
    await session.dispose();
    await rm(folder, { recursive: true, force: true });
  });

  async function planOf(config: ConfigSettings, isCalibrated: boolean): Promise<ComponentPlan> {
    return planComponents({
      components: [component],
      pipelineClassName: null,
      config: await resolveConfig({ config: { include: LAYERS, modality: "image", ...config } }),
      calibration: isCalibrated ? planCalibrationOf(statistics) : null,
    })[0] as ComponentPlan;
  }

  const specsOf =
    (widths: readonly BitWidth[]) =>
    ({ spec }: LayerPlan): readonly QuantSpec[] =>
      spec === null ? [] : widths.map((bits) => ({ ...spec, bits }));

  interface MeasureOptions extends Partial<Parameters<typeof measureSensitivity>[0]> {
    readonly widths?: readonly BitWidth[];
  }

  async function measure(plan: ComponentPlan, options: MeasureOptions = {}): Promise<SensitivityTable> {
    const { widths = WIDTHS, ...rest } = options;
    const aborter = new AbortController();
    return measureSensitivity({
      component,
      plan,
      statistics: null,
      candidatesOf: specsOf(widths),
      kinds: ["weight"],
      modelErrors: null,
      store: null,
      onNonFinite: "error",
      cacheFolder: null,
      session,
      signal: aborter.signal,
      abort: (reason) => aborter.abort(reason),
      onProgress: undefined,
      ...rest,
    });
  }

  const candidateOf = (table: SensitivityTable, name: string, bits: number): CandidateErrors =>
    table.layers
      .find((layer) => layer.name === name)
      ?.candidates.find(({ spec }) => spec.bits === bits) as CandidateErrors;

  async function quantizeAt(bits: BitWidth, config: ConfigSettings): Promise<QuantizeResult> {
    await using aq = new ArrowQuant();
    const output = join(folder, `int${bits}.parquet`);
    return await aq.quantize({
      input: MODEL,
      output,
      force: true,
      // Measured, and never low enough to fall back.
      config: { include: LAYERS, modality: "image", bit_width: bits, min_accuracy: 0.01, ...config },
    });
  }

  it("is without calibration the error of the weights that a quantization writes, to the bit", async () => {
    const config = { method: "hqq" } as const;
    const table = await measure(await planOf(config, false));
    for (const bits of WIDTHS) {
      const quantized = (await quantizeAt(bits, config)).layers.filter(({ quantType }) => quantType !== "none");
      expect(quantized.map(({ name }) => name)).toEqual(table.layers.map(({ name }) => name));
      for (const { name, metrics, bytesOut } of quantized) {
        const { sourceNorm2, errorNorm2 } = metrics as NonNullable<typeof metrics>;
        const { weight, bytes, output, model } = candidateOf(table, name, bits);
        expect({ weight, bytes, output, model }).toEqual({
          weight: errorNorm2 / sourceNorm2,
          bytes: bytesOut,
          output: null,
          model: null,
        });
      }
    }
  });

  it("is with calibration the error of the output that a quantization measures, and that of the weights by importance", async () => {
    const plan = await planOf({}, true);
    const signal = new AbortController().signal;
    const store = await openCandidateStore({ session, component, plan, statistics, onNonFinite: "error", signal });
    try {
      const table = await measure(plan, { statistics, kinds: ["weight", "output", "entropy"], store });
      const result = await quantizeAt(3, { calibration: statistics.path });
      await using aq = new ArrowQuant();
      const exported = join(folder, "int3.safetensors");
      await aq.export({ input: result.output, output: exported, dtype: "F32" });
      const rebuilt = readSafetensors(exported);
      for (const { name, candidates, outputShare } of table.layers) {
        const written = result.layers.find((layer) => layer.name === name);
        const { weight, output, spec } = candidateOf(table, name, 3);
        expect(written?.method).toBe("gptq");
        expect(Math.sqrt(output as number)).toBeCloseTo(written?.output?.relativeError as number, 12);
        expect(candidates.map((candidate) => candidate.output)).toEqual(
          candidates.map((candidate) => candidate.output).sort((a, b) => (b as number) - (a as number)),
        );
        expect(outputShare).toBeGreaterThan(0);
        // The very weights of the file.
        const weights = await store.weights(name, spec);
        const tensor = component.tensors.find((each) => each.name === name) as Component["tensors"][number];
        expect(Buffer.from(weights.buffer).equals(rebuilt.get(name)?.bytes as Buffer), name).toBe(true);
        const original = readSafetensors(component.files[tensor.location.file]?.path as string).get(name)
          ?.bytes as Buffer;
        const source = new Float32Array(Uint8Array.from(original).buffer);
        expect(weight).toBeCloseTo(await weightedError(source, weights, name), 8);
      }
      expect(table.layers.reduce((sum, { outputShare }) => sum + (outputShare as number), 0)).toBeCloseTo(1, 12);
      expect(table.layers.length).toBe(5);
    } finally {
      await store.close();
    }

    /** Σ h (w − ŵ)² / Σ h w² by the second moments of the statistics. */
    async function weightedError(source: Float32Array, weights: Float32Array, name: string): Promise<number> {
      const { meansq, count, channels, cols, colsPerChannel } = (await statistics.read(name)) as NonNullable<
        Awaited<ReturnType<Statistics["read"]>>
      >;
      const total = count.reduce((sum, each) => sum + each, 0);
      const moments = Array.from({ length: channels }, (_, c) =>
        count.reduce((sum, each, bin) => sum + (each / total) * (meansq[bin * channels + c] as number), 0),
      );
      const sums = { source: 0, error: 0 };
      for (const [index, w] of source.entries()) {
        const h = moments[Math.floor((index % cols) / colsPerChannel)] as number;
        sums.source += h * w * w;
        sums.error += h * (w - (weights[index] as number)) ** 2;
      }
      return sums.error / sums.source;
    }
  });

  it("gives the model each layer's rebuilt weights alone, and takes its errors as they are", async () => {
    const plan = await planOf({ method: "rtn" }, false);
    const asked: string[] = [];
    const runner: LayerErrorSource = {
      layerNames: new Set(plan.layers.filter(({ tensor }) => !tensor.name.includes("norm1")).map((l) => l.tensor.name)),
      fingerprint: "a stand-in",
      error: async (replaced) => {
        const [[name, weights]] = [...replaced] as [[string, Float32Array]];
        const { shape } = component.tensors.find((each) => each.name === name) as Component["tensors"][number];
        const { rows, cols } = viewAs2d(shape);
        expect(replaced.size).toBe(1);
        expect(weights.length).toBe(rows * cols);
        asked.push(name);
        return weights.reduce((sum, w) => sum + w * w, 0);
      },
    };
    const table = await measure(plan, { kinds: ["model"], modelErrors: runner, widths: [2, 8] });
    const signal = new AbortController().signal;
    const store: CandidateStore = await openCandidateStore({
      session,
      component,
      plan,
      statistics: null,
      onNonFinite: "error",
      signal,
    });
    for (const { name, candidates } of table.layers) {
      for (const { spec, model } of candidates) {
        const weights = name.includes("norm1") ? null : await store.weights(name, spec);
        expect(model).toBe(weights?.reduce((sum, w) => sum + w * w, 0) ?? null);
      }
    }
    await store.close();
    expect(asked.length).toBe(8);
    expect(table.warnings).toEqual([
      "1 of 5 layers have no model sensitivity, they are not found in the graph: transformer_blocks.1.norm1.linear.weight …",
    ]);
  });

  it("is measured once: what is cached is not quantized again, whatever else is asked for", async () => {
    const plan = await planOf({ method: "rtn" }, false);
    const cacheFolder = join(folder, "cache");
    const first = await measure(plan, { cacheFolder, widths: [2, 3] });
    // A run that was killed in the middle of a line.
    for (const name of await readdir(join(cacheFolder, "sensitivity"))) {
      await appendFile(join(cacheFolder, "sensitivity", name), '{"key":"00');
    }
    const asked: BitWidth[] = [];
    const signal = new AbortController().signal;
    const opened = await openCandidateStore({
      session,
      component,
      plan,
      statistics: null,
      onNonFinite: "error",
      signal,
    });
    const store: CandidateStore = {
      measure: (name, spec, keeps) => {
        asked.push(spec.bits);
        return opened.measure(name, spec, keeps);
      },
      weights: (name, spec) => opened.weights(name, spec),
      entropy: () => Promise.reject(new Error("asked for what is cached")),
      close: () => opened.close(),
    };
    const again = await measure(plan, { cacheFolder, store, widths: [2, 3] });
    expect(again).toEqual(first);
    const more = await measure(plan, { cacheFolder, store, widths: [3, 4] });
    expect(new Set(asked)).toEqual(new Set([4]));
    for (const { name } of first.layers) {
      expect(candidateOf(more, name, 3)).toEqual(candidateOf(first, name, 3));
    }
    // What the half line stood in the way of is there all the same.
    await measure(plan, { cacheFolder, store, widths: [4] });
    expect(asked.length).toBe(first.layers.length);
    await opened.close();
  });

  it("is refused where it cannot be had, and never another kind in its place", async () => {
    const plan = await planOf({ method: "rtn" }, false);
    await expect(measure(plan, { kinds: ["output"] })).rejects.toMatchObject({ code: "E_CONFLICT" });
    await expect(measure(plan, { kinds: ["model"] })).rejects.toMatchObject({ code: "E_CONFLICT" });
    const table = await measure(plan, { widths: [4] });
    for (const layer of table.layers) {
      const [candidate] = layer.candidates as [CandidateErrors];
      expect(errorOf(layer, candidate, "weight")).toBe(candidate.weight);
      expect([errorOf(layer, candidate, "output"), errorOf(layer, candidate, "model")]).toEqual([null, null]);
    }
  });

  it("ends when it is cancelled, with nothing left behind", async () => {
    const plan = await planOf({ method: "rtn" }, false);
    // A place for temporary files that no other test uses.
    const place = await mkdtemp(join(folder, "tmp-"));
    vi.stubEnv("TMPDIR", place);
    const aborter = new AbortController();
    const reason = new Error("enough");
    const measuring = measure(plan, {
      signal: aborter.signal,
      abort: (thrown) => aborter.abort(thrown),
      onProgress: () => aborter.abort(reason),
    });
    await expect(measuring).rejects.toBe(reason);
    expect(tmpdir()).toBe(place);
    expect(await readdir(place)).toEqual([]);
    vi.unstubAllEnvs();
    // The session works on.
    expect((await measure(plan, { widths: [8] })).layers.length).toBe(5);
  });
});
