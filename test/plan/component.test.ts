import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { openModel } from "../../dist/formats/open.js";
import type { Calibration } from "../../dist/plan/calibration.js";
import { planComponent, planComponents } from "../../dist/plan/component.js";
import type { ComponentPlan } from "../../dist/plan/plan.js";
import { estimateSizes } from "../../dist/plan/size.js";
import { component, configOf, tensor } from "./components.js";

const MODELS = fileURLToPath(new URL("../../../shared/models/", import.meta.url));
const areModelsHere = existsSync(MODELS) || process.env["CI"] !== undefined;

async function planPath(path: string, flags: Record<string, unknown> = {}): Promise<ComponentPlan[]> {
  const model = await openModel(MODELS + path);
  return planComponents({ ...model, config: await configOf(flags), calibration: null });
}

const quantizedNames = ({ layers }: ComponentPlan): string[] =>
  layers.filter(({ spec }) => spec !== null).map(({ tensor: { name } }) => name);

// The models are handed out beside the repository, not in it.
describe.skipIf(!areModelsHere)("the plan of a real model", () => {
  describe.each([
    ["dit-mnist", "transformer", "dit", 28],
    ["unet-mnist", "unet", "unet", 61],
  ])("%s", (model, folder, architecture, count) => {
    it.each([
      ["as a pipeline", model],
      ["as a component folder", `${model}/${folder}`],
      ["as a lone file", `${model}/${folder}/diffusion_pytorch_model.safetensors`],
      ["in half precision", `${model}/${folder}/diffusion_pytorch_model.fp16.safetensors`],
      ["in shards", `${model}/bf16-sharded`],
    ])("quantizes the layers of the reference, %s", async (_title, path) => {
      const baselines = JSON.parse(await readFile(`${MODELS}${model}/baselines.json`, "utf8")) as {
        targets: string[];
      };
      const [plan, ...others] = await planPath(path);
      expect(others).toEqual([]);
      expect(plan).toMatchObject({ architecture, modality: "image", warnings: [] });
      expect(quantizedNames(plan!).sort()).toEqual(baselines.targets.map((name) => `${name}.weight`).sort());
      expect(quantizedNames(plan!)).toHaveLength(count);
      expect(plan!.modalityEvidence.length).toBeGreaterThan(0);
    });

    it("has a plan of every profile, smaller the fewer bits", async () => {
      const sizes = await Promise.all(
        ["edge", "local", "cloud"].map(async (profile) => estimateSizes(await planPath(model, { profile }))),
      );
      const bits = sizes.map(({ bitsPerWeight }) => bitsPerWeight as number);
      expect(bits[0]).toBeLessThan(bits[1] as number);
      expect(bits[1]).toBeLessThan(bits[2] as number);
      for (const [index, width] of [2, 4, 8].entries()) {
        expect(bits[index]).toBeGreaterThan(width);
        expect(bits[index]).toBeLessThan(width + 0.5);
      }
    });
  });

  it("group 32 with 6-bit codes takes the bits per weight of the reference", async () => {
    // models/README.md: 4.48 and 2.48 over rows of 256 and 1024, one super-group a row.
    for (const [bits, expected] of [
      [4, 4.48],
      [2, 2.48],
    ] as const) {
      const sizes = estimateSizes(await planPath("dit-mnist", { bit_width: bits, group_size: 32 }));
      expect(sizes.bitsPerWeight).toBeCloseTo(expected, 1);
      expect(sizes.quantizedParameters).toBe(4_718_592);
      expect(sizes.parameters).toBe(5_411_600);
    }
  });
});

describe("every decision", () => {
  it("names a rule, and each layer a reason", async () => {
    const plan = planComponent({
      component: component(["a.weight", tensor("a.bias", { shape: [64] })], {
        className: "FluxTransformer2DModel",
      }),
      pipelineClassName: "FluxPipeline",
      config: await configOf(),
      calibration: null,
    });
    for (const { what, value, rule } of plan.decisions) {
      expect(
        [what, value, rule].every((text) => text.length > 0),
        what,
      ).toBe(true);
    }
    expect(new Set(plan.decisions.map(({ what }) => what)).size).toBe(plan.decisions.length);
    for (const { reason } of plan.layers) expect(reason).not.toBe("");
    expect(plan.baseSpec).toBe(plan.layers[0]?.spec);
  });

  it("does not depend on the order of tensors, but keeps it", async () => {
    const names = ["double_blocks.0.img_attn.qkv.weight", "img_in.weight", "single_blocks.0.linear1.weight"];
    const config = await configOf();
    const plan = (some: readonly string[]) =>
      planComponent({ component: component(some), pipelineClassName: null, config, calibration: null });
    const forward = plan(names);
    const backward = plan([...names].reverse());
    expect(forward.layers.map(({ tensor: { name } }) => name)).toEqual(names);
    expect([...backward.layers].reverse()).toEqual(forward.layers);
    expect(backward.decisions).toEqual(forward.decisions);
  });
});

describe("components under calibration", () => {
  const names = ["blocks.0.attn.to_q.weight", "blocks.0.attn.to_k.weight"];
  const calibration: Calibration = {
    label: "samples.parquet, 64 samples",
    fingerprint: "0f".repeat(32),
    component: "transformer",
    layerNames: new Set(names),
    hessianNames: new Set(names),
    heldBackNames: new Set(names),
    timeBinCount: 10,
  };
  const components = [
    component(names, { name: "transformer", className: "DiTTransformer2DModel" }),
    component([names[0] as string], { name: "text_encoder" }),
  ];
  const plan = async (flags: Record<string, unknown>, given: Calibration = calibration): Promise<ComponentPlan[]> =>
    planComponents({ components, pipelineClassName: null, config: await configOf(flags), calibration: given });

  it("only the measured one is calibrated, whatever names the other has", async () => {
    for (const method of [null, "gptq"]) {
      const [measured, other] = (await plan({ method, modality: "image" })) as [ComponentPlan, ComponentPlan];
      expect(measured.calibration).toEqual({
        label: calibration.label,
        fingerprint: calibration.fingerprint,
        gptq: { damp: 0.01, order: "activation" },
      });
      expect(measured.warnings).toEqual([]);
      expect(measured.layers.map(({ spec, calibrated }) => [spec?.method, calibrated])).toEqual([
        ["gptq", true],
        ["gptq", true],
      ]);
      expect(measured.decisions).toContainEqual({
        what: "calibration",
        value: calibration.label,
        rule: "statistics of 2 of 2 quantized layers",
      });
      expect(other).toMatchObject({ calibration: null, spatial: null, baseSpec: { method: "hqq" } });
      expect(other.layers[0]).toMatchObject({ calibrated: false, spatial: null });
      expect(other.decisions).toContainEqual({
        what: "calibration",
        value: "none",
        rule: `${calibration.label} is of component transformer`,
      });
    }
  });

  it("layers that were not measured are warned of", async () => {
    const [measured] = await plan({ modality: "image" }, { ...calibration, layerNames: new Set([names[1] as string]) });
    expect(measured?.warnings).toEqual([
      "samples.parquet, 64 samples covers 1 of 2 quantized layers, the others are weights only",
    ]);
    expect(measured?.layers[0]?.reason).toBe("quantized by default; no statistics: hqq, weights only");
  });
});
