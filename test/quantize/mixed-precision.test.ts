import { existsSync } from "node:fs";
import { readFile, stat, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import type { ConfigSettings } from "../../dist/config/config.js";
import { Session } from "../../dist/engine/session.js";
import type { ComponentPlan, MixedAllocation } from "../../dist/plan/plan.js";
import { writePlanText } from "../../dist/quantize/plan-text.js";
import { planModel, quantizeModel } from "../../dist/quantize/quantize.js";
import { floatPart, gaussianFloats, gaussianPart, useFolder, writeModel } from "./source.js";

const folder = useFolder();
const session = new Session({ threads: 2 });
afterAll(() => session.dispose());
// Figures that other runs have cached would make these tests of the cache.
beforeAll(() => void vi.stubEnv("XDG_CACHE_HOME", folder.path("cache")));
const dit = fileURLToPath(new URL("../../../shared/models/dit-mnist", import.meta.url));

/** Layers of which some cost much more than others to quantize: their rows have outliers. */
async function makeModel(): Promise<string> {
  const parts = [0, 1, 2, 3, 4, 5].flatMap((block) => {
    const shape = [96, 128];
    const weights = gaussianFloats(96 * 128, 7 * block + 1);
    if (block % 2 === 0) for (let row = 0; row < 96; row++) weights[row * 128 + row] = 0.3;
    return [
      floatPart(`blocks.${block}.attn1.to_q.weight`, shape, weights),
      gaussianPart(`blocks.${block}.attn1.to_k.weight`, shape, 7 * block + 2),
      gaussianPart(`blocks.${block}.attn1.to_v.weight`, shape, 7 * block + 3),
      gaussianPart(`blocks.${block}.ff.weight`, [256, 128], 7 * block + 4),
      gaussianPart(`blocks.${block}.ff.bias`, [256], 7 * block + 5),
    ];
  });
  return writeModel(folder.path("model.safetensors"), parts);
}

const base = { modality: "image", method: "rtn", candidate_group_sizes: [32, 64, 128] } as const;
let input = "";
beforeAll(async () => {
  input = await makeModel();
});

async function planned(config: ConfigSettings): Promise<ComponentPlan & { allocation: MixedAllocation }> {
  const plan = await planModel({ input, config: { ...base, ...config } }, session);
  const [component] = plan.components as [ComponentPlan];
  return { ...component, allocation: component.mixed?.allocation as MixedAllocation };
}

describe("a target", () => {
  it("of bits per weight is kept and used up, ties are kept and every layer is settled", async () => {
    for (const target of [2.6, 3.3, 4.7]) {
      const { allocation, layers } = await planned({ target_bpw: target });
      expect(allocation.bitsPerWeight).toBeLessThanOrEqual(target);
      expect(allocation.bitsPerWeight).toBeGreaterThan(0.99 * target);
      expect(allocation.gap).toBeLessThanOrEqual(0.001);
      const specOf = (name: string) => {
        const spec = layers.find(({ tensor }) => tensor.name === name)?.spec;
        return `${spec?.bits}/${spec?.groupSize}`;
      };
      for (const block of [0, 1, 2, 3, 4, 5]) {
        const [q, k, v] = ["q", "k", "v"].map((one) => specOf(`blocks.${block}.attn1.to_${one}.weight`));
        expect([k, v]).toEqual([q, q]);
      }
      const quantized = layers.filter(({ spec }) => spec !== null);
      expect(quantized.every(({ pinned, candidates }) => pinned && candidates.length === 0)).toBe(true);
      expect(quantized.every(({ reason }) => reason.startsWith("mixed precision: "))).toBe(true);
    }
  });

  it("costs no more than any uniform plan of its size, within the gap", async () => {
    const { allocation } = await planned({ target_bpw: 3.6, tie_layers: "none" });
    let compared = 0;
    for (const bits of [2, 3] as const) {
      for (const groupSize of [32, 64, 128]) {
        const settings = { candidate_bits: [bits], candidate_group_sizes: [groupSize], target_bpw: 20 };
        const { allocation: uniform } = await planned(settings);
        if (uniform.bitsPerWeight > 3.6) continue;
        compared += 1;
        expect(allocation.error).toBeLessThanOrEqual(uniform.error * 1.002);
      }
    }
    expect(compared).toBeGreaterThan(3);
  });

  it("of a file's size is kept to the byte and used to within a percent", async () => {
    // 0.25 MB of weights at least, and what the file holds beside them.
    for (const megabytes of [0.2, 0.25, 0.31]) {
      const output = folder.path("sized.parquet");
      const config = { ...base, target_model_size_mb: megabytes };
      const { plan } = await quantizeModel({ input, output, config, force: true }, session);
      const { size } = await stat(output);
      expect(plan.components[0]?.mixed?.allocation?.fileBytes).toBe(size);
      expect(size).toBeLessThanOrEqual(megabytes * 1e6);
      expect(size).toBeGreaterThan(0.99 * megabytes * 1e6);
    }
  });

  it("of an error is the smallest output that keeps it", async () => {
    const loose = await planned({ max_error: 1 });
    const tight = await planned({ max_error: 0.3 });
    expect(Math.sqrt(loose.allocation.error)).toBeLessThanOrEqual(1);
    expect(Math.sqrt(tight.allocation.error)).toBeLessThanOrEqual(0.3);
    expect(tight.allocation.bytes).toBeGreaterThan(loose.allocation.bytes);
    const same = await planned({ target_bpw: tight.allocation.bitsPerWeight });
    expect(same.allocation.error).toBeLessThanOrEqual(tight.allocation.error * 1.001);
  });

  it("of a mean group size leaves the bits alone", async () => {
    const { allocation, layers } = await planned({ mean_group_size: 64, bit_width: 3 });
    expect(allocation.meanGroupSize).toBeGreaterThanOrEqual(64);
    const groups = layers.flatMap(({ spec }) => (spec === null ? [] : [spec.groupSize]));
    expect(new Set(layers.flatMap(({ spec }) => (spec === null ? [] : [spec.bits])))).toEqual(new Set([3]));
    expect(new Set(groups).size).toBeGreaterThan(1);
  });

  it.each([
    [{ target_bpw: 2 }, /at most 2 bits per weight is out of reach: .* come to 2\.\d+ to 8\.\d+/],
    [{ target_model_size_mb: 0.1 }, /at most 0\.1 MB is out of reach: .* come to 0\.\d+ MB to 0\.\d+ MB/],
    [{ max_error: 0 }, /is out of reach/],
  ])("out of reach is refused with the range that is not: %j", async (config, message) => {
    await expect(planned(config)).rejects.toMatchObject({ code: "E_TARGET", message: expect.stringMatching(message) });
  });

  it("beyond all candidates is met with a warning", async () => {
    const plan = await planModel({ input, config: { ...base, target_bpw: 20 } }, session);
    expect(plan.warnings).toEqual([expect.stringMatching(/target of 20 bits per weight is not used up/)]);
  });

  it("keeps layers whose weights are not finite, where they may be kept", async () => {
    const weights = gaussianFloats(64 * 64, 1);
    weights[77] = Number.NaN;
    const broken = await writeModel(folder.path("broken.safetensors"), [
      floatPart("a.weight", [64, 64], weights),
      gaussianPart("b.weight", [64, 64], 2),
    ]);
    const config = { ...base, target_model_size_mb: 0.03, on_nonfinite: "keep" } as const;
    const output = folder.path("kept.parquet");
    const { layers } = await quantizeModel({ input: broken, output, config }, session);
    expect(layers[0]).toMatchObject({ quantType: "none", reason: expect.stringMatching(/^keep: .*not finite/) });
    expect((await stat(output)).size).toBeLessThanOrEqual(30_000);
  });
});

describe("a search", () => {
  const searched = { search: "evolutionary", evolution: { evaluations: 60, generations: 3 } } as const;

  it("adds errors up where there is no graph, says so, and is no worse than the optimum that seeds it", async () => {
    const plan = await planModel({ input, config: { ...base, ...searched, target_bpw: 3 } }, session);
    const allocation = plan.components[0]?.mixed?.allocation as MixedAllocation;
    expect(plan.warnings.join()).toMatch(/search adds errors up, as the model cannot be run/);
    expect(allocation.search).toMatchObject({ fitness: "sum" });
    expect(allocation.search?.error).toBeLessThanOrEqual(allocation.search?.seedError as number);
    expect(allocation.bitsPerWeight).toBeLessThanOrEqual(3);
    const sizes = allocation.front.map(({ bitsPerWeight }) => bitsPerWeight);
    expect(sizes).toEqual(sizes.toSorted((a, b) => a - b));
  });

  it.runIf(existsSync(dit))(
    "by running the model keeps the size and beats the sum's optimum or equals it",
    async () => {
      const config = {
        ...searched,
        evolution: { evaluations: 8, generations: 1, population: 6 },
        method: "rtn",
        sensitivity: "weight",
        // Of the sampler that visits what the model is run on.
        calibration_steps: 3,
        target_model_size_mb: 4.6,
        candidate_bits: [2, 4],
        group_size: 32,
      } as const;
      const output = folder.path("dit.parquet");
      const { plan } = await quantizeModel({ input: dit, output, config }, session);
      const allocation = plan.components[0]?.mixed?.allocation as MixedAllocation;
      expect(allocation.search).toMatchObject({ fitness: "model" });
      expect(allocation.search?.error).toBeLessThanOrEqual(allocation.search?.seedError as number);
      const { size } = await stat(output);
      expect(size).toBe(allocation.fileBytes);
      expect(size).toBeLessThanOrEqual(4.6e6);
    },
  );
});

describe("a plan file", () => {
  it("gives the very file that the target gives, edited what it says then", async () => {
    const config = { ...base, target_bpw: 3.1, scale_bits: 5, on_nonfinite: "keep" } as const;
    const [direct, followed, edited] = ["direct", "followed", "edited"].map((name) => folder.path(`${name}.parquet`));
    await quantizeModel({ input, output: direct!, config }, session);
    const { text, plan } = await writePlanText({ input, config }, session);
    const path = folder.path("plan.yaml");
    await writeFile(path, text);
    const result = await quantizeModel({ input, output: followed!, plan: path }, session);
    expect(await readFile(followed!)).toEqual(await readFile(direct!));
    expect(result.plan.sizes).toEqual(plan.sizes);
    expect(result.warnings).toEqual(plan.components.flatMap(({ warnings }) => warnings));

    await writeFile(
      path,
      text.replace(/(ff\.weight".*?bits:) \d/g, "$1 8").replace(/(to_q\.weight".*?bits:) \d/g, "$1 none"),
    );
    const { layers } = await quantizeModel({ input, output: edited!, plan: path }, session);
    const typesOf = (end: string) => layers.filter(({ name }) => name.endsWith(end)).map(({ quantType }) => quantType);
    expect(new Set(typesOf("ff.weight"))).toEqual(new Set(["int8"]));
    expect(new Set(typesOf("to_q.weight"))).toEqual(new Set(["none"]));
  });

  it("gives way to no setting that it settles, but to others; another model's weights are warned of", async () => {
    const path = folder.path("settled.yaml");
    const { text } = await writePlanText({ input, config: { ...base, bit_width: 3 } }, session);
    await writeFile(path, text);
    const refused = planModel({ input, plan: path, config: { group_size: 32 } }, session);
    await expect(refused).rejects.toMatchObject({
      code: "E_CONFLICT",
      message: expect.stringMatching(/group_size .*settled\.yaml/),
    });
    await expect(planModel({ input, plan: path, config: { modality: "audio" } }, session)).resolves.toBeDefined();
    await writeFile(path, text.replace(/fingerprint: ../, "fingerprint: 00"));
    const { warnings } = await planModel({ input, plan: path }, session);
    expect(warnings).toEqual([expect.stringMatching(/settled\.yaml:\d+:\d+: the plan was made for other weights/)]);
    await writeFile(path, text.replace("settings:", "settings:\n  target_bpw: 3"));
    await expect(planModel({ input, plan: path }, session)).rejects.toMatchObject({ code: "E_PLAN" });
    await expect(planModel({ input, plan: folder.path("none.yaml") }, session)).rejects.toMatchObject({
      code: "E_PLAN",
    });
  });
});
