import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { openModel } from "../../dist/formats/open.js";
import { folderMaker, PIPELINE, tensorsOf, weights } from "./folders.ts";

const make = folderMaker();

const VARIANTS = {
  "diffusion_pytorch_model.safetensors": weights("plain"),
  "diffusion_pytorch_model.fp16.safetensors": weights("half"),
  "diffusion_pytorch_model.non_ema.safetensors": weights("non_ema"),
  "config.json": { _class_name: "UNet2DModel", time_step_limit: [0] },
};

describe("variants", () => {
  it.each([
    [undefined, "plain"],
    ["fp16", "half"],
    ["non_ema", "non_ema"],
  ])("%s", async (variant, name) => {
    const model = await openModel(make(VARIANTS), variant === undefined ? {} : { variant });
    expect(tensorsOf(model)).toEqual({ model: [name] });
  });

  it("that are not there are named with those that are", async () => {
    await expect(openModel(make(VARIANTS), { variant: "bf16" })).rejects.toMatchObject({
      code: "E_VARIANT",
      message: expect.stringMatching(/"bf16"; it has: weights without a variant, fp16, non_ema$/),
      details: { variants: ["fp16", "non_ema"], hasPlain: true },
    });
  });

  it("must be asked for where there is nothing else", async () => {
    const folder = make({ "model.fp16.safetensors": weights("half") });
    await expect(openModel(folder)).rejects.toMatchObject({
      code: "E_VARIANT",
      hint: "name one: --variant fp16",
    });
    expect(tensorsOf(await openModel(folder, { variant: "fp16" }))).toEqual({ model: ["half"] });
  });

  it("of a pipeline must be there for every chosen component", async () => {
    const folder = make({ ...PIPELINE, "unet/diffusion_pytorch_model.fp16.safetensors": weights("half") });
    expect(tensorsOf(await openModel(folder, { variant: "fp16", components: ["unet"] }))).toEqual({
      unet: ["half"],
    });
    await expect(openModel(folder, { variant: "fp16" })).rejects.toMatchObject({
      code: "E_VARIANT",
      message: expect.stringContaining("transformer"),
    });
  });

  it("of a lone file contradict it", async () => {
    const path = join(make(VARIANTS), "diffusion_pytorch_model.safetensors");
    await expect(openModel(path, { variant: "fp16" })).rejects.toMatchObject({ code: "E_CONFLICT" });
  });

  // huggingface/diffusers#8869 settled the first spelling of the index; the others came before or elsewhere.
  it.each([
    [
      "diffusion_pytorch_model.safetensors.index.fp16.json",
      "diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
      "diffusion_pytorch_model.fp16-00002-of-00002.safetensors",
    ],
    [
      "diffusion_pytorch_model.safetensors.index.fp16.json",
      "diffusion_pytorch_model-00001-of-00002.fp16.safetensors",
      "diffusion_pytorch_model-00002-of-00002.fp16.safetensors",
    ],
    [
      "diffusion_pytorch_model.fp16.safetensors.index.json",
      "diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
      "diffusion_pytorch_model.fp16-00002-of-00002.safetensors",
    ],
    [
      "model.fp16.safetensors.index.json",
      "model.fp16-00001-of-00002.safetensors",
      "model.fp16-00002-of-00002.safetensors",
    ],
  ])("in shards, %s with %s", async (index, first, second) => {
    const folder = make({
      [index]: { metadata: { total_size: 12 }, weight_map: { c: second, a: first, b: first } },
      [first]: weights("a", "b"),
      [second]: weights("c"),
    });
    const model = await openModel(folder, { variant: "fp16" });
    expect(tensorsOf(model)).toEqual({ model: ["a", "b", "c"] });
    expect(model.components[0]?.files.map(({ name }) => name)).toEqual([first, second]);
    expect(model.warnings).toEqual([]);
    await expect(openModel(folder)).rejects.toMatchObject({ code: "E_VARIANT" });
  });
});
