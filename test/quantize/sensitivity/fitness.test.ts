/** What a search is told of a plan is what the file that the plan makes is found to be. */
import { appendFile, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { resolveConfig } from "../../../dist/config/resolve.js";
import { Session } from "../../../dist/engine/session.js";
import { openModel } from "../../../dist/formats/open.js";
import { ArrowQuant } from "../../../dist/index.js";
import { planComponents } from "../../../dist/plan/component.js";
import { evolve } from "../../../dist/plan/evolution.js";
import type { ComponentPlan } from "../../../dist/plan/plan.js";
import { type Fitness, openFitness, type SpecsByName } from "../../../dist/quantize/sensitivity/fitness.js";
import { type ModelRunner, openModelRunner } from "../../../dist/quantize/sensitivity/model-runner.js";
import { type CandidateStore, openCandidateStore } from "../../../dist/quantize/sensitivity/store.js";
import type { Component } from "../../../dist/tensor/info.js";
import type { BitWidth, QuantSpec } from "../../../dist/tensor/layout.js";
import { areModelsHere, MODELS } from "../../graph/onnx-model.ts";

const MODEL = join(MODELS, "dit-mnist");
const DATA = join(MODEL, "calibration.jsonl");
const SAMPLES = 16;
/** Widths and methods differ from layer to layer. */
const CONFIG = {
  method: "rtn",
  bit_width: 4,
  group_size: 32,
  layer_bit_widths: { "attn1\\.to_[qk]": 2, "ff\\.net\\.2": 8 },
  min_accuracy: 0,
} as const;

describe.skipIf(!areModelsHere)("the error of a plan (skipped where ../shared is absent)", () => {
  let folder: string;
  let session: Session;
  let component: Component;
  let plan: ComponentPlan;
  let store: CandidateStore;
  let runner: ModelRunner;
  let specs: SpecsByName;
  const signal = new AbortController().signal;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "arrowquant-test-fitness-"));
    session = new Session();
    const model = await openModel(MODEL);
    component = model.components[0] as Component;
    const config = await resolveConfig({ config: CONFIG });
    const { components, pipelineClassName } = model;
    plan = planComponents({ components, pipelineClassName, config, calibration: null })[0] as ComponentPlan;
    store = await openCandidateStore({ session, component, plan, statistics: null, onNonFinite: "error", signal });
    const data = { data: DATA, samples: SAMPLES, steps: 1, seed: 0 };
    const layers = plan.layers.map(({ tensor }) => tensor.name);
    runner = await openModelRunner({
      original: MODEL,
      component,
      graph: null,
      ...data,
      layers,
      session,
      signal,
      onRun: () => {},
    });
    specs = new Map(plan.layers.flatMap(({ tensor, spec }) => (spec === null ? [] : [[tensor.name, { spec }]])));
  });

  afterAll(async () => {
    await runner.close();
    await store.close();
    await session.dispose();
    await rm(folder, { recursive: true, force: true });
  });

  const open = (cacheFolder: string | null, rest: Partial<Parameters<typeof openFitness>[0]> = {}): Promise<Fitness> =>
    openFitness({ component, plan, statistics: null, store, runner, cacheFolder, session, signal, ...rest });

  const atWidth = (bits: BitWidth): SpecsByName =>
    new Map([...specs].map(([name, { spec }]) => [name, { spec: { ...spec, bits } satisfies QuantSpec }]));

  it("is the prediction error of the file that the plan makes", async () => {
    await using aq = new ArrowQuant();
    const output = join(folder, "mixed.parquet");
    await aq.quantize({ input: MODEL, output, config: CONFIG });
    const run = { data: DATA, samples: SAMPLES };
    const validated = await aq.validate({ original: MODEL, quantized: output, minAccuracy: 0, run });
    const fitness = await open(null);
    const found = await fitness.error(specs);
    expect(found / (validated.run?.variants[0]?.predictionError as number)).toBeCloseTo(1, 4);
    expect(new Set([...specs.values()].map(({ spec }) => spec.bits))).toEqual(new Set([2, 4, 8]));
    await fitness.close();
  });

  it("is known to a search that goes on where another was stopped, to the last bit", async () => {
    const cache = join(folder, "cache");
    const first = await open(cache);
    const [four, eight] = [await first.error(atWidth(4)), await first.error(atWidth(8))];
    expect(eight).toBeLessThan(four / 4);
    expect(first.counts()).toEqual({ measured: 2, known: 0 });
    await first.close();
    // Killed in the middle of a line.
    const [file] = await readdir(join(cache, "sensitivity"));
    await appendFile(join(cache, "sensitivity", file as string), '{"key":"00');

    // Weights are not even asked for.
    const second = await open(cache, { store: { weights: () => Promise.reject(new Error("asked for weights")) } });
    const turned = new Map([...atWidth(4)].reverse());
    expect(await second.error(turned)).toBe(four);
    expect(await second.error(atWidth(8))).toBe(eight);
    expect(second.counts()).toEqual({ measured: 0, known: 2 });
    await second.close();

    const third = await open(cache);
    await third.error(atWidth(2));
    await third.close();
    const anew = await open(cache, { fresh: true });
    expect(await anew.error(atWidth(4))).toBe(four);
    expect(anew.counts()).toEqual({ measured: 1, known: 0 });
    await anew.close();
    const last = await open(cache);
    await last.error(atWidth(2));
    expect(last.counts()).toEqual({ measured: 0, known: 1 });
    await last.close();
  });

  it("lets a search that was stopped end as it would have", async () => {
    const layers = [...specs.keys()].slice(0, 6);
    const widths = [2, 4, 8] as const;
    const search = async (cache: string, mostMeasured: number) => {
      const stop = new AbortController();
      const fitness = await open(join(folder, cache));
      const found = evolve({
        items: layers.map(() => widths.map((bits) => ({ size: bits, cost: 1 / bits }))),
        capacity: 4 * layers.length,
        seeds: [layers.map(() => 1)],
        evaluate: async (genome) => {
          const chosen = genome.map((gene, index): [string, { spec: QuantSpec }] => {
            const name = layers[index] as string;
            const { spec } = specs.get(name) as { spec: QuantSpec };
            return [name, { spec: { ...spec, bits: widths[gene] as BitWidth } }];
          });
          const error = await fitness.error(new Map(chosen));
          if (fitness.counts().measured >= mostMeasured) stop.abort(new Error("stopped"));
          return error;
        },
        settings: {
          population: 6,
          generations: 4,
          mutation: 0.3,
          crossover: 0.7,
          elite: 0.2,
          evaluations: 24,
          seed: 3,
        },
        signal: stop.signal,
      });
      // Closed before anything is expected of it.
      const [result] = await Promise.allSettled([found]);
      const counts = fitness.counts();
      await fitness.close();
      return { result, counts };
    };
    const whole = await search("whole", Infinity);
    expect(whole.result).toMatchObject({ status: "fulfilled" });
    expect(whole.counts.known).toBe(0);
    const stopped = await search("stopped", 9);
    expect(stopped).toMatchObject({ result: { status: "rejected" }, counts: { measured: 9, known: 0 } });
    const resumed = await search("stopped", Infinity);
    expect(resumed.result).toEqual(whole.result);
    expect(resumed.counts).toEqual({ measured: whole.counts.measured - 9, known: 9 });
  });

  it("is measured again on other inputs, and of other specs", async () => {
    const cache = join(folder, "others");
    const measure = async (other: Partial<ModelRunner>, asked: SpecsByName) => {
      const fitness = await open(cache, { runner: { ...runner, ...other } });
      await fitness.error(asked);
      const { measured } = fitness.counts();
      await fitness.close();
      return measured;
    };
    const [name, { spec }] = [...atWidth(4)][5] as [string, { spec: QuantSpec }];
    const asked = new Map([[name, { spec }]]);
    expect(await measure({}, asked)).toBe(1);
    expect(await measure({}, asked)).toBe(0);
    expect(await measure({ fingerprint: "others" }, asked)).toBe(1);
    expect(await measure({}, new Map([[name, { spec: { ...spec, groupSize: 64 } }]]))).toBe(1);
    // A layer that the graph does not have changes nothing that is run.
    const layerNames = new Set([...runner.layerNames].filter((other) => other !== name));
    expect(await measure({ layerNames }, asked)).toBe(1);
    expect(await measure({ layerNames }, new Map())).toBe(0);
  });
});
