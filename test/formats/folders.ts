/** Model folders built for a test, below a scratch folder that is removed at the end. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll } from "vitest";
import type { Model } from "../../dist/tensor/info.js";
import { buildSafetensors, float32Part } from "../hostile/safetensors/build.ts";

export type Contents = Readonly<Record<string, string | Uint8Array | object>>;

/** Makes folders below one scratch folder; objects are written as JSON. */
export function folderMaker(): (contents: Contents) => string {
  const scratch = mkdtempSync(join(tmpdir(), "arrowquant-folders-"));
  afterAll(() => rmSync(scratch, { recursive: true }));
  return (contents) => {
    const folder = mkdtempSync(join(scratch, "f-"));
    for (const [path, content] of Object.entries(contents)) {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      const isBytes = typeof content === "string" || content instanceof Uint8Array;
      writeFileSync(join(folder, path), isBytes ? content : JSON.stringify(content));
    }
    return folder;
  };
}

/** A file of float32 tensors of one element each. */
export function weights(...names: readonly string[]): Buffer {
  return buildSafetensors(names.map((name, index) => float32Part(name, [1], index)));
}

/** Component names with the names of their tensors. */
export function tensorsOf(model: Model): Record<string, string[]> {
  return Object.fromEntries(model.components.map(({ name, tensors }) => [name, tensors.map((tensor) => tensor.name)]));
}

/** A pipeline of every kind of component that there is. */
export const PIPELINE: Contents = {
  "model_index.json": {
    _class_name: "TwoStagePipeline",
    _diffusers_version: "0.35",
    requires_safety_checker: false,
    id2label: { 0: "zero" },
    scheduler: ["diffusers", "DDIMScheduler"],
    vae: ["diffusers", "AutoencoderKL"],
    safety_checker: [null, null],
    unet: ["diffusers", "UNet2DConditionModel"],
    transformer_2: ["diffusers", "WanTransformer3DModel"],
    transformer: ["diffusers", "WanTransformer3DModel"],
    text_encoder: ["transformers", "CLIPTextModel"],
    tokenizer: ["transformers", "CLIPTokenizer"],
    image_encoder: ["transformers", "CLIPVisionModel"],
  },
  "scheduler/scheduler_config.json": {},
  "tokenizer/vocab.json": {},
  "vae/diffusion_pytorch_model.safetensors": weights("v"),
  "vae/config.json": { _class_name: "AutoencoderKLWan" },
  "unet/diffusion_pytorch_model.safetensors": weights("u"),
  "transformer/diffusion_pytorch_model.safetensors": weights("t"),
  "transformer/config.json": { _class_name: "T" },
  "transformer_2/diffusion_pytorch_model.safetensors": weights("t2"),
  "transformer_2/config.json": {},
  "text_encoder/model.safetensors": weights("e"),
  "text_encoder/config.json": { architectures: ["CLIPTextModelX", "Y"] },
  "image_encoder/pytorch_model.bin": "pickle",
};
