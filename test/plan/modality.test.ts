import { describe, expect, it } from "vitest";
import type { ArrowQuantError } from "../../dist/errors.js";
import { planComponents } from "../../dist/plan/component.js";
import type { ComponentPlan, Modality } from "../../dist/plan/plan.js";
import type { Component } from "../../dist/tensor/info.js";
import { type ComponentOptions, component, configOf } from "./components.js";

const WEIGHT = "some.layer.weight";

async function plan(
  components: readonly Component[],
  pipelineClassName: string | null = null,
  flags: Record<string, unknown> = {},
): Promise<ComponentPlan> {
  const config = await configOf(flags);
  return planComponents({ components, pipelineClassName, config, calibration: null })[0] as ComponentPlan;
}

async function refusal(...given: Parameters<typeof plan>): Promise<ArrowQuantError> {
  return plan(...given).then(
    (found) => expect.unreachable(`taken for ${found.modality}`),
    (error: ArrowQuantError) => error,
  );
}

describe("the modality by class", () => {
  it.each<[string, Modality]>([
    ["FluxTransformer2DModel", "image"],
    ["UNet2DConditionModel", "image"],
    ["UNet2DModel", "image"],
    ["DiTTransformer2DModel", "image"],
    ["SD3Transformer2DModel", "image"],
    ["PixArtTransformer2DModel", "image"],
    ["SanaTransformer2DModel", "image"],
    ["QwenImageTransformer2DModel", "image"],
    ["SomeoneElsesTransformer2DModel", "image"],
    ["WanTransformer3DModel", "video"],
    ["LTXVideoTransformer3DModel", "video"],
    ["HunyuanVideoTransformer3DModel", "video"],
    ["CogVideoXTransformer3DModel", "video"],
    ["SanaVideoTransformer3DModel", "video"],
    ["UNet3DConditionModel", "video"],
    ["UNetMotionModel", "video"],
    ["StableAudioDiTModel", "audio"],
    ["AudioLDM2UNet2DConditionModel", "audio"],
    ["UNet1DModel", "audio"],
    ["LLaDAModelLM", "text"],
    ["DreamModel", "text"],
    ["MDLM", "text"],
  ])("%s: %s", async (className, modality) => {
    const found = await plan([component([WEIGHT], { className })]);
    expect(found.modality).toBe(modality);
    expect(found.modalityEvidence).toEqual([`class ${className}: ${modality}`]);
    expect(found.decisions).toContainEqual({ what: "modality", value: modality, rule: `class ${className}` });
  });
});

describe("the modality by pipeline", () => {
  it.each<[string, Modality]>([
    ["StableDiffusionXLPipeline", "image"],
    ["FluxPipeline", "image"],
    ["DiTPipeline", "image"],
    ["DDPMPipeline", "image"],
    ["AudioLDMPipeline", "audio"],
    ["StableAudioPipeline", "audio"],
    ["StableVideoDiffusionPipeline", "video"],
    ["AnimateDiffPipeline", "video"],
    ["WanPipeline", "video"],
  ])("%s: %s, over the UNet that many share", async (pipeline, modality) => {
    const found = await plan([component([WEIGHT], { className: "UNet2DConditionModel" })], pipeline);
    expect(found.modality).toBe(modality);
    expect(found.modalityEvidence).toContain("class UNet2DConditionModel: image");
  });
});

describe("the modality by names and config", () => {
  const cases: [string, readonly string[], ComponentOptions, Modality][] = [
    [
      "tensor names of a UNet",
      ["down_blocks.0.a.weight", "up_blocks.0.a.weight", "time_embedding.linear_1.weight"],
      {},
      "image",
    ],
    [
      "tensor names of Wan",
      ["text_embedding.0.weight", "time_projection.1.weight", "blocks.0.ffn.0.weight"],
      {},
      "video",
    ],
    [
      "tensor names of LLaDA",
      ["model.transformer.wte.weight", "model.transformer.blocks.0.ff_proj.weight"],
      {},
      "text",
    ],
    ["layers over time", ["down_blocks.0.temp_convs.0.conv1.weight"], {}, "video"],
    ["a sampling rate", [WEIGHT], { config: { sampling_rate: 16000 } }, "audio"],
    ["a temporal patch size", [WEIGHT], { config: { patch_size_t: 2 } }, "video"],
    ["a mask token", [WEIGHT], { config: { mask_token_id: 5, vocab_size: 100 } }, "text"],
    ["a model type", [WEIGHT], { config: { model_type: "llada" } }, "text"],
  ];
  it.each(cases)("%s", async (_title, names, options, modality) => {
    expect((await plan([component(names, options)])).modality).toBe(modality);
  });

  it("says how many tensor names told", async () => {
    const names = [0, 1, 2].map((index) => `double_blocks.${index}.img_attn.qkv.weight`);
    const found = await plan([component([...names, "single_blocks.0.linear1.weight"])]);
    expect(found.modalityEvidence).toEqual([
      '3 tensor names match "^double_blocks\\.\\d+\\.img_attn\\." (flux): image',
    ]);
  });

  it("a config that is no JSON, or no object, tells nothing", async () => {
    for (const configText of ["{", "[]", "null", "7", '"text"']) {
      const broken = { ...component([WEIGHT]), configText };
      expect((await refusal([broken])).code).toBe("E_MODALITY");
    }
  });
});

describe("code", () => {
  it.each<[ComponentOptions, Modality]>([
    [{ className: "DreamModel", config: { _name_or_path: "apple/DiffuCoder-7B-Instruct" } }, "code"],
    [{ className: "DreamModel", config: { _name_or_path: "Dream-org/Dream-Coder-v0-Base-7B" } }, "code"],
    [{ className: "LLaDAModelLM", config: { _name_or_path: "someone/stable-diffcoder" } }, "code"],
    [{ className: "LLaDAModelLM", config: { model_type: "llada_code" } }, "code"],
    [{ className: "DreamModel", config: { _name_or_path: "Dream-org/Dream-v0-Base-7B" } }, "text"],
    [{ className: "DreamModel", config: { _name_or_path: "x/text-encoder" } }, "text"],
    [{ className: "DreamModel", config: { _name_or_path: "x/Autoencoder-codec-codebook-decoder" } }, "text"],
    [{ className: "FluxTransformer2DModel", config: { _name_or_path: "x/coder" } }, "image"],
  ])("%j: %s", async (options, modality) => {
    expect((await plan([component([WEIGHT], options)])).modality).toBe(modality);
  });
});

describe("conflicts and silence", () => {
  it("specific names that disagree are shown and refused", async () => {
    const error = await refusal([
      component(["text_embedding.0.weight", "time_projection.1.weight"], {
        className: "FluxTransformer2DModel",
      }),
    ]);
    expect(error).toMatchObject({
      code: "E_MODALITY",
      exitCode: 2,
      hint: "give --modality text|code|image|audio|video",
    });
    expect(error.message).toBe(
      "the modality is not evident: the evidence disagrees: class FluxTransformer2DModel: image; " +
        '1 tensor names match "^text_embedding\\.\\d\\." (wan): video',
    );
  });

  it("so are a pipeline and a class", async () => {
    const error = await refusal([component([WEIGHT], { className: "FluxTransformer2DModel" })], "WanPipeline");
    expect(error.message).toContain("pipeline WanPipeline: video; class FluxTransformer2DModel: image");
  });

  it("and general names where nothing is specific", async () => {
    const error = await refusal([component([WEIGHT], { className: "UNet2DModel", config: { sample_rate: 16000 } })]);
    expect(error.message).toContain("class UNet2DModel: image; config sample_rate: audio");
  });

  it("nothing known lists what was seen", async () => {
    const error = await refusal([component([WEIGHT, "b.weight"], { className: "Foo" })], "BarPipeline");
    expect(error.code).toBe("E_MODALITY");
    expect(error.message).toBe(
      "the modality is not evident: no class name, config field or tensor name is known; " +
        'seen: pipeline BarPipeline; component "model" (Foo, 2 tensors such as "some.layer.weight")',
    );
  });

  it("--modality decides, with a warning where the model looks otherwise", async () => {
    const wan = component([WEIGHT], { className: "WanTransformer3DModel" });
    const found = await plan([wan], null, { modality: "audio" });
    expect(found.modality).toBe("audio");
    expect(found.modalityEvidence).toEqual(["flag --modality", "class WanTransformer3DModel: video"]);
    expect(found.warnings[0]).toBe("modality audio (flag --modality) although the model looks like video");
    const silent = await plan([component([WEIGHT])], null, { modality: "text" });
    expect(silent.warnings.join()).not.toContain("modality");
    const coder = await plan([component([WEIGHT], { className: "DreamModel" })], null, { modality: "code" });
    expect(coder.warnings).toEqual([]);
  });

  it("text encoders and autoencoders say nothing of the model they serve", async () => {
    const encoder = component(["model.layers.0.self_attn.q_proj.weight", "model.embed_tokens.weight"], {
      name: "text_encoder",
      className: "LlamaForCausalLM",
    });
    const unet = component([WEIGHT], { name: "unet", className: "UNet2DConditionModel" });
    expect((await plan([encoder, unet])).modality).toBe("image");
    expect((await plan([encoder], "StableDiffusion3Pipeline")).modality).toBe("image");
    expect((await refusal([encoder])).code).toBe("E_MODALITY");
  });
});
