/** Architectures told from tensor names, as published checkpoints have them. */
import { describe, expect, it } from "vitest";
import { detectGgufArchitecture, GGUF_ARCHITECTURES } from "../../../dist/formats/gguf/architecture.js";

/** Some names of real checkpoints, among many others that say nothing. */
const CHECKPOINTS: readonly [name: string, dialect: string, names: readonly string[]][] = [
  ["flux", "original", ["double_blocks.0.img_attn.proj.weight", "single_blocks.0.linear1.weight", "img_in.weight"]],
  [
    "flux",
    "diffusers",
    [
      "transformer_blocks.0.attn.norm_added_k.weight",
      "transformer_blocks.0.attn.add_q_proj.weight",
      "single_transformer_blocks.0.attn.to_q.weight",
      "x_embedder.weight",
    ],
  ],
  ["sd3", "original", ["joint_blocks.0.x_block.attn.qkv.weight", "x_embedder.proj.weight"]],
  // Stable Diffusion 3.5 normalizes its keys, as Flux does.
  [
    "sd3",
    "diffusers",
    [
      "transformer_blocks.0.attn.add_q_proj.weight",
      "transformer_blocks.0.attn.norm_added_k.weight",
      "pos_embed.proj.weight",
    ],
  ],
  ["aura", "original", ["double_layers.3.modX.1.weight", "single_layers.0.modCX.1.weight"]],
  ["aura", "diffusers", ["joint_transformer_blocks.3.ff_context.out_projection.weight"]],
  [
    "hidream",
    "original",
    ["caption_projection.0.linear.weight", "double_stream_blocks.0.block.ff_i.shared_experts.w3.weight"],
  ],
  ["cosmos", "original", ["blocks.0.mlp.layer1.weight", "blocks.0.adaln_modulation_cross_attn.1.weight"]],
  [
    "ltxv",
    "original",
    [
      "adaln_single.emb.timestep_embedder.linear_2.weight",
      "transformer_blocks.27.scale_shift_table",
      "caption_projection.linear_2.weight",
      "patchify_proj.weight",
    ],
  ],
  [
    "ltxv",
    "diffusers",
    ["time_embed.emb.timestep_embedder.linear_2.weight", "proj_in.weight", "transformer_blocks.0.attn1.to_q.weight"],
  ],
  [
    "hyvid",
    "original",
    [
      "double_blocks.0.img_attn_proj.weight",
      "txt_in.individual_token_refiner.blocks.0.self_attn_qkv.weight",
      "txt_in.individual_token_refiner.blocks.1.self_attn_qkv.weight",
    ],
  ],
  [
    "hyvid",
    "diffusers",
    [
      "context_embedder.token_refiner.refiner_blocks.0.attn.to_q.weight",
      "transformer_blocks.0.attn.add_q_proj.weight",
      "transformer_blocks.0.attn.norm_added_k.weight",
      "single_transformer_blocks.0.attn.to_q.weight",
    ],
  ],
  ["wan", "original", ["blocks.0.self_attn.norm_q.weight", "text_embedding.2.weight", "head.modulation"]],
  ["wan", "diffusers", ["condition_embedder.time_embedder.linear_1.weight", "blocks.0.attn1.to_q.weight"]],
  ["sdxl", "diffusers", ["down_blocks.0.downsamplers.0.conv.weight", "add_embedding.linear_1.weight"]],
  ["sdxl", "original", ["input_blocks.3.0.op.weight", "input_blocks.6.0.op.weight", "label_emb.0.0.weight"]],
  ["sd1", "diffusers", ["down_blocks.0.downsamplers.0.conv.weight", "down_blocks.0.resnets.0.conv1.weight"]],
  [
    "sd1",
    "original",
    [
      ...[3, 6, 9].map((block) => `input_blocks.${block}.0.op.weight`),
      ...["2.1", "5.2", "8.2"].map((block) => `output_blocks.${block}.conv.weight`),
    ],
  ],
  ["lumina2", "original", ["cap_embedder.1.weight", "context_refiner.0.attention.qkv.weight"]],
  ["lumina2", "diffusers", ["time_caption_embed.caption_embedder.1.weight", "context_refiner.0.attn.to_q.weight"]],
  [
    "qwen_image",
    "diffusers",
    [
      "time_text_embed.timestep_embedder.linear_2.weight",
      "transformer_blocks.0.attn.norm_added_q.weight",
      "transformer_blocks.0.attn.norm_added_k.weight",
      "transformer_blocks.0.attn.add_q_proj.weight",
      "transformer_blocks.0.img_mlp.net.0.proj.weight",
    ],
  ],
];

describe("the architecture of a set of names", () => {
  it.each(CHECKPOINTS)("%s (%s)", (name, dialect, names) => {
    for (const prefix of ["", "model.diffusion_model.", "diffusion_model.", "model.", "net."]) {
      const all = [...names, "norm_out.weight"].map((tensor) => prefix + tensor);
      const found = detectGgufArchitecture(all);
      expect(found).toMatchObject({ architecture: { name, dialect }, prefix, isUniform: true });
      // A checkpoint with a VAE and text encoders beside the denoiser.
      const beside = detectGgufArchitecture([...all, "first_stage_model.decoder.conv_in.weight"]);
      expect(beside).toMatchObject({ architecture: { name, dialect }, prefix, isUniform: prefix === "" });
    }
  });

  it("every row of the table is reached", () => {
    const rows = GGUF_ARCHITECTURES.map(({ name, dialect }) => `${name} ${dialect}`).sort();
    expect(CHECKPOINTS.map(([name, dialect]) => `${name} ${dialect}`).sort()).toEqual(rows);
  });

  it("is none for a set that lacks a name, and for others' names", () => {
    for (const [, , names] of CHECKPOINTS) {
      expect(detectGgufArchitecture(names.map((name) => `other.${name}`))).toBeNull();
    }
    expect(detectGgufArchitecture([])).toBeNull();
    expect(detectGgufArchitecture(["transformer_blocks.0.attn1.to_q.weight", "proj_out.weight"])).toBeNull();
    // PixArt has the same embedder and as many blocks as LTX-Video.
    const pixart = ["adaln_single.emb.timestep_embedder.linear_2.weight", "transformer_blocks.27.scale_shift_table"];
    const rest = ["caption_projection.linear_2.weight", "pos_embed.proj.weight"];
    expect(detectGgufArchitecture([...pixart, ...rest])).toBeNull();
  });
});
