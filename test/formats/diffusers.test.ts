import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { openModel } from "../../dist/formats/open.js";
import { folderMaker, PIPELINE, tensorsOf, weights } from "./folders.ts";

const make = folderMaker();

describe("a pipeline folder", () => {
  it("gives its denoisers", async () => {
    const model = await openModel(make(PIPELINE));
    expect(model).toMatchObject({
      format: "diffusers-pipeline",
      pipelineClassName: "TwoStagePipeline",
      warnings: [],
    });
    expect(tensorsOf(model)).toEqual({ transformer: ["t"], transformer_2: ["t2"], unet: ["u"] });
    // From config.json, else from model_index.json.
    expect(model.components.map(({ className }) => className)).toEqual([
      "T",
      "WanTransformer3DModel",
      "UNet2DConditionModel",
    ]);
  });

  it("gives the components that are asked for, in its own order", async () => {
    const model = await openModel(make(PIPELINE), { components: ["text_encoder", "vae", "vae"] });
    expect(tensorsOf(model)).toEqual({ vae: ["v"], text_encoder: ["e"] });
    expect(model.components.map(({ name, className }) => [name, className])).toEqual([
      ["vae", "AutoencoderKLWan"],
      ["text_encoder", "CLIPTextModelX"],
    ]);
  });

  it.each([
    ["vea", /no component "vea"; it has: vae, unet, transformer_2, transformer, text_encoder$/],
    ["scheduler", /no weights in component "scheduler"; it has: vae/],
    ["safety_checker", /no component "safety_checker"/],
    ["id2label", /no component "id2label"/],
  ])("has no component %s to give", async (name, says) => {
    await expect(openModel(make(PIPELINE), { components: ["vae", name] })).rejects.toMatchObject({
      code: "E_COMPONENT",
      message: expect.stringMatching(says),
      details: { components: expect.arrayContaining(["vae"]) },
    });
  });

  it("says of a component in pickle that pickle is never read", async () => {
    await expect(openModel(make(PIPELINE), { components: ["image_encoder"] })).rejects.toMatchObject({
      code: "E_UNKNOWN_FORMAT",
      message: expect.stringMatching(/pytorch_model\.bin \(pickle.*never read\)/),
    });
  });

  it("without a denoiser names what there is", async () => {
    const folder = make({
      "model_index.json": { vae: ["diffusers", "AutoencoderKL"] },
      "vae/diffusion_pytorch_model.safetensors": weights("v"),
    });
    await expect(openModel(folder)).rejects.toMatchObject({
      code: "E_COMPONENT",
      message: expect.stringMatching(/none of the denoisers.*it has: vae/),
      hint: expect.stringContaining("--components vae"),
    });
  });

  it("whose denoiser was not downloaded is an error", async () => {
    const folder = make({ "model_index.json": { unet: ["diffusers", "UNet2DModel"] } });
    await expect(openModel(folder)).rejects.toMatchObject({
      code: "E_NOT_FOUND",
      message: expect.stringContaining("unet"),
    });
  });

  it.each(["..", "../x", "a/b", "/etc", "a\\b", "", "."])("with a component named %j is refused", async (name) => {
    const folder = make({ "model_index.json": { [name]: ["diffusers", "UNet2DModel"] } });
    await expect(openModel(folder)).rejects.toMatchObject({ code: "E_PATH" });
  });

  it.each([
    ['{"unet":1,"unet":2}', "E_DUPLICATE"],
    ["[]", "E_JSON"],
    ['{"unet":', "E_JSON"],
    ["", "E_JSON"],
    [Buffer.from([0x7b, 0xff]), "E_UTF8"],
    [`{"a":"${"x".repeat(4 * 1024 * 1024)}"}`, "E_LIMIT"],
  ])("with the index %.20s is refused", async (index, code) => {
    await expect(openModel(make({ "model_index.json": index }))).rejects.toMatchObject({ code });
  });
});

describe("the real pipelines", () => {
  const shared = fileURLToPath(new URL("../../../shared/models/", import.meta.url));
  const shipped = fileURLToPath(new URL("../models/", import.meta.url));
  const has = existsSync(shared);

  interface ListedModel {
    folder: string;
    variant?: string;
    component: string;
    className: string;
    files: number;
    tensors: number;
    parameters: number;
    dtype: string;
  }
  const real: ListedModel[] = [
    {
      folder: `${shipped}unet-mnist`,
      component: "unet",
      className: "UNet2DModel",
      files: 1,
      tensors: 185,
      parameters: 2_736_353,
      dtype: "F32",
    },
    {
      folder: `${shipped}dit-mnist`,
      component: "transformer",
      className: "DiTTransformer2DModel",
      files: 3,
      tensors: 82,
      parameters: 5_411_600,
      dtype: "BF16",
    },
    {
      folder: `${shared}unet-mnist`,
      component: "unet",
      className: "UNet2DModel",
      files: 1,
      tensors: 185,
      parameters: 2_736_353,
      dtype: "F32",
    },
    {
      folder: `${shared}unet-mnist`,
      variant: "fp16",
      component: "unet",
      className: "UNet2DModel",
      files: 1,
      tensors: 185,
      parameters: 2_736_353,
      dtype: "F16",
    },
    {
      folder: `${shared}unet-mnist/bf16-sharded`,
      component: "unet",
      className: "UNet2DModel",
      files: 3,
      tensors: 185,
      parameters: 2_736_353,
      dtype: "BF16",
    },
    {
      folder: `${shared}dit-mnist`,
      component: "transformer",
      className: "DiTTransformer2DModel",
      files: 1,
      tensors: 82,
      parameters: 5_411_600,
      dtype: "F32",
    },
    {
      folder: `${shared}dit-mnist`,
      variant: "fp16",
      component: "transformer",
      className: "DiTTransformer2DModel",
      files: 1,
      tensors: 82,
      parameters: 5_411_600,
      dtype: "F16",
    },
    {
      folder: `${shared}dit-mnist/bf16-sharded`,
      component: "transformer",
      className: "DiTTransformer2DModel",
      files: 3,
      tensors: 82,
      parameters: 5_411_600,
      dtype: "BF16",
    },
  ];

  it.for(real)(
    "$folder $variant",
    async ({ folder, variant, component, className, files, tensors, parameters, dtype }, { skip }) => {
      skip(
        folder.startsWith(shared) && !has && process.env["CI"] === undefined,
        "shared/models is not on this machine",
      );
      const model = await openModel(folder, variant === undefined ? {} : { variant });
      expect(model.warnings).toEqual([]);
      expect(model.components).toHaveLength(1);
      const [only] = model.components;
      expect(only).toMatchObject({ name: component, className });
      expect(only?.configText).toBe(readFileSync(join(folder, component, "config.json"), "utf8"));
      expect(only?.files).toHaveLength(files);
      expect(only?.tensors).toHaveLength(tensors);
      expect(new Set(only?.tensors.map((tensor) => tensor.dtype))).toEqual(new Set([dtype]));
      const elements = only?.tensors.map(({ shape }) => shape.reduce((product, size) => product * size, 1)) ?? [];
      expect(elements.reduce((sum, count) => sum + count, 0)).toBe(parameters);
      const order = only?.tensors.map(({ location }) => location.file * 2 ** 40 + location.byteOffset) ?? [];
      expect(order).toEqual([...order].sort((a, b) => a - b));
    },
  );
});
