import { describe, expect, it } from "vitest";
import { planComponent } from "../../dist/plan/component.js";
import { ARCHITECTURES, UNKNOWN_ARCHITECTURE } from "../../dist/plan/keep.js";
import { type ComponentOptions, component, configOf } from "./components.js";

interface Checkpoint extends ComponentOptions {
  readonly title: string;
  readonly architecture: string;
  readonly kept: readonly string[];
  readonly quantized: readonly string[];
}

const prefixed = (prefix: string, names: readonly string[]): string[] => names.map((name) => prefix + name);

const FLUX_ORIGINAL = {
  kept: [
    "img_in.weight",
    "txt_in.weight",
    "time_in.in_layer.weight",
    "time_in.out_layer.weight",
    "vector_in.in_layer.weight",
    "guidance_in.out_layer.weight",
    "final_layer.linear.weight",
    "final_layer.adaLN_modulation.1.weight",
  ],
  quantized: [
    "double_blocks.0.img_attn.qkv.weight",
    "double_blocks.0.img_attn.proj.weight",
    "double_blocks.0.img_mod.lin.weight",
    "double_blocks.0.txt_attn.qkv.weight",
    "double_blocks.18.txt_mlp.2.weight",
    "double_blocks.0.txt_mod.lin.weight",
    "single_blocks.0.linear1.weight",
    "single_blocks.37.linear2.weight",
    "single_blocks.0.modulation.lin.weight",
  ],
};

const LDM_UNET = {
  kept: ["time_embed.0.weight", "time_embed.2.weight", "input_blocks.0.0.weight", "out.2.weight"],
  quantized: [
    "input_blocks.1.0.in_layers.2.weight",
    "input_blocks.1.0.emb_layers.1.weight",
    "input_blocks.3.0.op.weight",
    "input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight",
    "input_blocks.1.1.proj_in.weight",
    "middle_block.1.transformer_blocks.0.ff.net.0.proj.weight",
    "middle_block.0.out_layers.3.weight",
    "output_blocks.2.1.conv.weight",
    "output_blocks.11.0.skip_connection.weight",
    "output_blocks.11.1.proj_out.weight",
  ],
};

const LDM_COMPANIONS = [
  "first_stage_model.encoder.conv_in.weight",
  "first_stage_model.decoder.mid.attn_1.q.weight",
  "first_stage_model.post_quant_conv.weight",
  "model_ema.diffusion_modelinput_blocks10weight",
];

/** Real names of each architecture's checkpoints: of every kind of layer one or a few. */
const CHECKPOINTS: readonly Checkpoint[] = [
  { title: "Flux, original", architecture: "flux", ...FLUX_ORIGINAL },
  {
    title: "Flux in a whole checkpoint",
    architecture: "flux",
    kept: [
      ...prefixed("model.diffusion_model.", FLUX_ORIGINAL.kept),
      "vae.decoder.conv_in.weight",
      "text_encoders.t5xxl.transformer.shared.weight",
      "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.weight",
    ],
    quantized: prefixed("model.diffusion_model.", FLUX_ORIGINAL.quantized),
  },
  {
    title: "Flux, diffusers",
    architecture: "flux",
    className: "FluxTransformer2DModel",
    kept: [
      "x_embedder.weight",
      "context_embedder.weight",
      "time_text_embed.timestep_embedder.linear_1.weight",
      "time_text_embed.guidance_embedder.linear_2.weight",
      "time_text_embed.text_embedder.linear_1.weight",
      "norm_out.linear.weight",
      "proj_out.weight",
    ],
    quantized: [
      "transformer_blocks.0.attn.to_q.weight",
      "transformer_blocks.0.attn.add_k_proj.weight",
      "transformer_blocks.0.attn.to_add_out.weight",
      "transformer_blocks.0.ff_context.net.2.weight",
      "transformer_blocks.0.norm1.linear.weight",
      "transformer_blocks.0.norm1_context.linear.weight",
      "single_transformer_blocks.0.proj_mlp.weight",
      "single_transformer_blocks.0.proj_out.weight",
      "single_transformer_blocks.0.norm.linear.weight",
      "single_transformer_blocks.37.attn.to_v.weight",
    ],
  },
  {
    title: "Flux.2, original",
    architecture: "flux",
    kept: [
      "img_in.weight",
      "txt_in.weight",
      "time_in.in_layer.weight",
      "guidance_in.in_layer.weight",
      "double_stream_modulation_img.lin.weight",
      "double_stream_modulation_txt.lin.weight",
      "single_stream_modulation.lin.weight",
      "final_layer.linear.weight",
    ],
    quantized: [
      "double_blocks.0.img_attn.qkv.weight",
      "double_blocks.7.txt_mlp.0.weight",
      "single_blocks.47.linear1.weight",
    ],
  },
  {
    title: "Chroma, original",
    architecture: "flux",
    kept: [
      "img_in.weight",
      "txt_in.weight",
      "distilled_guidance_layer.in_proj.weight",
      "distilled_guidance_layer.layers.0.in_layer.weight",
      "final_layer.linear.weight",
    ],
    quantized: [
      "double_blocks.0.img_attn.qkv.weight",
      "double_blocks.0.img_mlp.0.weight",
      "single_blocks.37.linear1.weight",
    ],
  },
  {
    title: "Stable Diffusion 1, whole checkpoint",
    architecture: "unet",
    kept: [
      ...prefixed("model.diffusion_model.", LDM_UNET.kept),
      ...LDM_COMPANIONS,
      "cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight",
    ],
    quantized: prefixed("model.diffusion_model.", LDM_UNET.quantized),
  },
  {
    title: "Stable Diffusion XL, whole checkpoint",
    architecture: "unet",
    kept: [
      ...prefixed("model.diffusion_model.", [...LDM_UNET.kept, "label_emb.0.0.weight", "label_emb.0.2.weight"]),
      ...LDM_COMPANIONS,
      "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight",
    ],
    quantized: prefixed("model.diffusion_model.", LDM_UNET.quantized),
  },
  { title: "LDM UNet alone", architecture: "unet", ...LDM_UNET },
  {
    title: "Stable Diffusion XL UNet, diffusers",
    architecture: "unet",
    className: "UNet2DConditionModel",
    kept: [
      "conv_in.weight",
      "conv_out.weight",
      "time_embedding.linear_1.weight",
      "time_embedding.linear_2.weight",
      "add_embedding.linear_1.weight",
      "class_embedding.linear_1.weight",
      "encoder_hid_proj.weight",
    ],
    quantized: [
      "down_blocks.0.resnets.0.conv1.weight",
      "down_blocks.0.resnets.0.time_emb_proj.weight",
      "down_blocks.1.attentions.0.proj_in.weight",
      "down_blocks.1.attentions.0.proj_out.weight",
      "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight",
      "down_blocks.0.downsamplers.0.conv.weight",
      "mid_block.attentions.0.transformer_blocks.9.ff.net.0.proj.weight",
      "up_blocks.0.resnets.2.conv_shortcut.weight",
    ],
  },
  {
    title: "Stable Video Diffusion UNet",
    architecture: "unet",
    className: "UNetSpatioTemporalConditionModel",
    kept: [
      "conv_in.weight",
      "time_embedding.linear_1.weight",
      "add_embedding.linear_1.weight",
      "conv_out.weight",
      "down_blocks.0.attentions.0.time_pos_embed.linear_1.weight",
    ],
    quantized: [
      "down_blocks.0.attentions.0.temporal_transformer_blocks.0.attn1.to_q.weight",
      "up_blocks.1.resnets.0.spatial_res_block.conv1.weight",
    ],
  },
  {
    title: "SD3, original",
    architecture: "sd3",
    kept: prefixed("model.diffusion_model.", [
      "x_embedder.proj.weight",
      "t_embedder.mlp.0.weight",
      "y_embedder.mlp.2.weight",
      "context_embedder.weight",
      "pos_embed",
      "final_layer.linear.weight",
      "final_layer.adaLN_modulation.1.weight",
    ]),
    quantized: prefixed("model.diffusion_model.", [
      "joint_blocks.0.x_block.attn.qkv.weight",
      "joint_blocks.0.x_block.attn2.proj.weight",
      "joint_blocks.0.context_block.mlp.fc1.weight",
      "joint_blocks.0.x_block.adaLN_modulation.1.weight",
    ]),
  },
  {
    title: "SD3, diffusers",
    architecture: "sd3",
    className: "SD3Transformer2DModel",
    kept: [
      "pos_embed.proj.weight",
      "pos_embed.pos_embed",
      "context_embedder.weight",
      "norm_out.linear.weight",
      "time_text_embed.timestep_embedder.linear_1.weight",
      "time_text_embed.text_embedder.linear_2.weight",
      "proj_out.weight",
    ],
    quantized: [
      "transformer_blocks.0.attn.add_q_proj.weight",
      "transformer_blocks.0.attn2.to_out.0.weight",
      "transformer_blocks.23.norm1_context.linear.weight",
      "transformer_blocks.0.ff.net.0.proj.weight",
    ],
  },
  {
    title: "PixArt, original",
    architecture: "pixart",
    kept: [
      "x_embedder.proj.weight",
      "t_embedder.mlp.0.weight",
      "t_block.1.weight",
      "y_embedder.y_proj.fc1.weight",
      "y_embedder.y_embedding",
      "csize_embedder.mlp.0.weight",
      "ar_embedder.mlp.2.weight",
      "pos_embed",
      "blocks.0.scale_shift_table",
      "final_layer.linear.weight",
      "final_layer.scale_shift_table",
    ],
    quantized: ["blocks.0.attn.qkv.weight", "blocks.0.cross_attn.kv_linear.weight", "blocks.27.mlp.fc2.weight"],
  },
  {
    title: "PixArt, diffusers",
    architecture: "pixart",
    className: "Transformer2DModel",
    kept: [
      "pos_embed.proj.weight",
      "adaln_single.emb.timestep_embedder.linear_1.weight",
      "adaln_single.linear.weight",
      "adaln_single.emb.resolution_embedder.linear_1.weight",
      "caption_projection.linear_1.weight",
      "scale_shift_table",
      "transformer_blocks.0.scale_shift_table",
      "proj_out.weight",
    ],
    quantized: [
      "transformer_blocks.0.attn1.to_q.weight",
      "transformer_blocks.0.attn2.to_k.weight",
      "transformer_blocks.0.ff.net.2.weight",
    ],
  },
  {
    title: "DiT, original",
    architecture: "dit",
    kept: [
      "x_embedder.proj.weight",
      "t_embedder.mlp.0.weight",
      "y_embedder.embedding_table.weight",
      "pos_embed",
      "final_layer.linear.weight",
      "final_layer.adaLN_modulation.1.weight",
    ],
    quantized: [
      "blocks.0.attn.qkv.weight",
      "blocks.0.attn.proj.weight",
      "blocks.0.mlp.fc1.weight",
      "blocks.27.adaLN_modulation.1.weight",
    ],
  },
  {
    title: "DiT, diffusers",
    architecture: "dit",
    className: "DiTTransformer2DModel",
    kept: [
      "pos_embed.proj.weight",
      "transformer_blocks.0.norm1.emb.timestep_embedder.linear_1.weight",
      "transformer_blocks.27.norm1.emb.class_embedder.embedding_table.weight",
      "proj_out_1.weight",
      "proj_out_2.weight",
    ],
    quantized: [
      "transformer_blocks.0.norm1.linear.weight",
      "transformer_blocks.0.attn1.to_out.0.weight",
      "transformer_blocks.27.ff.net.2.weight",
    ],
  },
  {
    title: "Wan, original",
    architecture: "wan",
    kept: [
      "patch_embedding.weight",
      "time_embedding.0.weight",
      "time_projection.1.weight",
      "text_embedding.2.weight",
      "img_emb.proj.1.weight",
      "blocks.0.modulation",
      "head.modulation",
      "head.head.weight",
    ],
    quantized: [
      "blocks.0.self_attn.q.weight",
      "blocks.0.cross_attn.k_img.weight",
      "blocks.0.ffn.0.weight",
      "blocks.39.ffn.2.weight",
    ],
  },
  {
    title: "Wan, diffusers",
    architecture: "wan",
    className: "WanTransformer3DModel",
    kept: [
      "patch_embedding.weight",
      "condition_embedder.time_embedder.linear_1.weight",
      "condition_embedder.time_proj.weight",
      "condition_embedder.text_embedder.linear_2.weight",
      "condition_embedder.image_embedder.ff.net.0.proj.weight",
      "scale_shift_table",
      "blocks.0.scale_shift_table",
      "proj_out.weight",
    ],
    quantized: ["blocks.0.attn1.to_q.weight", "blocks.0.attn2.add_k_proj.weight", "blocks.0.ffn.net.0.proj.weight"],
  },
  {
    title: "LTX, original, whole checkpoint",
    architecture: "ltx",
    kept: [
      ...prefixed("model.diffusion_model.", [
        "patchify_proj.weight",
        "adaln_single.emb.timestep_embedder.linear_2.weight",
        "adaln_single.linear.weight",
        "caption_projection.linear_1.weight",
        "scale_shift_table",
        "transformer_blocks.27.scale_shift_table",
        "proj_out.weight",
      ]),
      "vae.decoder.conv_in.conv.weight",
    ],
    quantized: prefixed("model.diffusion_model.", [
      "transformer_blocks.0.attn1.to_q.weight",
      "transformer_blocks.0.attn2.to_out.0.weight",
      "transformer_blocks.0.ff.net.0.proj.weight",
    ]),
  },
  {
    title: "LTX, diffusers",
    architecture: "ltx",
    className: "LTXVideoTransformer3DModel",
    kept: [
      "proj_in.weight",
      "time_embed.emb.timestep_embedder.linear_1.weight",
      "time_embed.linear.weight",
      "caption_projection.linear_2.weight",
      "scale_shift_table",
      "transformer_blocks.0.scale_shift_table",
      "proj_out.weight",
    ],
    quantized: ["transformer_blocks.0.attn1.to_q.weight", "transformer_blocks.0.ff.net.2.weight"],
  },
  {
    title: "HunyuanVideo, original",
    architecture: "hunyuan-video",
    kept: [
      "img_in.proj.weight",
      "txt_in.input_embedder.weight",
      "txt_in.t_embedder.mlp.0.weight",
      "txt_in.individual_token_refiner.blocks.1.self_attn_qkv.weight",
      "time_in.mlp.0.weight",
      "vector_in.in_layer.weight",
      "guidance_in.mlp.2.weight",
      "final_layer.linear.weight",
    ],
    quantized: [
      "double_blocks.0.img_attn_qkv.weight",
      "double_blocks.0.txt_mod.linear.weight",
      "double_blocks.19.txt_mlp.fc2.weight",
      "single_blocks.0.linear1.weight",
      "single_blocks.39.modulation.linear.weight",
    ],
  },
  {
    title: "HunyuanVideo, diffusers",
    architecture: "hunyuan-video",
    className: "HunyuanVideoTransformer3DModel",
    kept: [
      "x_embedder.proj.weight",
      "context_embedder.proj_in.weight",
      "context_embedder.token_refiner.refiner_blocks.0.attn.to_q.weight",
      "time_text_embed.guidance_embedder.linear_1.weight",
      "norm_out.linear.weight",
      "proj_out.weight",
    ],
    quantized: [
      "transformer_blocks.0.attn.add_q_proj.weight",
      "single_transformer_blocks.0.proj_out.weight",
      "single_transformer_blocks.0.norm.linear.weight",
    ],
  },
  {
    title: "HunyuanVideo 1.5, original",
    architecture: "hunyuan-video",
    kept: [
      "img_in.proj.weight",
      "txt_in.individual_token_refiner.blocks.0.mlp.fc1.weight",
      "time_in.mlp.2.weight",
      "byt5_in.fc1.weight",
      "vision_in.proj.1.weight",
      "cond_type_embedding.weight",
      "final_layer.linear.weight",
    ],
    quantized: ["double_blocks.0.img_attn_q.weight", "double_blocks.53.txt_attn_proj.weight"],
  },
  {
    title: "HunyuanVideo 1.5, diffusers",
    architecture: "hunyuan-video",
    className: "HunyuanVideo15Transformer3DModel",
    kept: [
      "x_embedder.proj.weight",
      "time_embed.timestep_embedder.linear_1.weight",
      "cond_type_embed.weight",
      "context_embedder.token_refiner.refiner_blocks.0.ff.net.2.weight",
      "context_embedder_2.linear_1.weight",
      "image_embedder.linear_1.weight",
      "proj_out.weight",
    ],
    quantized: ["transformer_blocks.0.attn.to_q.weight", "transformer_blocks.0.norm1.linear.weight"],
  },
  {
    title: "CogVideoX, diffusers",
    architecture: "cogvideox",
    className: "CogVideoXTransformer3DModel",
    kept: [
      "patch_embed.proj.weight",
      "patch_embed.text_proj.weight",
      "patch_embed.pos_embedding",
      "time_embedding.linear_1.weight",
      "ofs_embedding.linear_1.weight",
      "norm_out.linear.weight",
      "proj_out.weight",
    ],
    quantized: ["transformer_blocks.0.attn1.to_q.weight", "transformer_blocks.0.norm1.linear.weight"],
  },
  {
    title: "Stable Audio, original, whole checkpoint",
    architecture: "audio-dit",
    kept: [
      ...prefixed("model.model.", [
        "timestep_features.weight",
        "to_timestep_embed.0.weight",
        "to_global_embed.2.weight",
        "to_cond_embed.0.weight",
        "preprocess_conv.weight",
        "postprocess_conv.weight",
        "transformer.project_in.weight",
        "transformer.project_out.weight",
      ]),
      "pretransform.model.decoder.layers.0.weight_v",
      "conditioner.conditioners.seconds_total.embedder.embedding.1.weight",
    ],
    quantized: prefixed("model.model.", [
      "transformer.layers.0.self_attn.to_qkv.weight",
      "transformer.layers.0.cross_attn.to_kv.weight",
      "transformer.layers.23.ff.ff.0.proj.weight",
    ]),
  },
  {
    title: "Stable Audio, diffusers",
    architecture: "audio-dit",
    className: "StableAudioDiTModel",
    kept: [
      "timestep_proj.0.weight",
      "global_proj.2.weight",
      "cross_attention_proj.0.weight",
      "preprocess_conv.weight",
      "proj_in.weight",
      "proj_out.weight",
      "postprocess_conv.weight",
    ],
    quantized: [
      "transformer_blocks.0.attn1.to_q.weight",
      "transformer_blocks.0.attn2.to_v.weight",
      "transformer_blocks.23.ff.net.2.weight",
    ],
  },
  {
    title: "LLaDA",
    architecture: "diffusion-lm",
    className: "LLaDAModelLM",
    kept: ["model.transformer.wte.weight", "model.transformer.ff_out.weight"],
    quantized: [
      "model.transformer.blocks.0.q_proj.weight",
      "model.transformer.blocks.0.attn_out.weight",
      "model.transformer.blocks.0.ff_proj.weight",
      "model.transformer.blocks.31.ff_out.weight",
    ],
  },
  {
    title: "Dream",
    architecture: "diffusion-lm",
    className: "DreamModel",
    kept: ["model.embed_tokens.weight", "lm_head.weight"],
    quantized: [
      "model.layers.0.self_attn.q_proj.weight",
      "model.layers.0.mlp.gate_proj.weight",
      "model.layers.27.mlp.down_proj.weight",
    ],
  },
  {
    title: "LLaDA, mixture of experts",
    architecture: "diffusion-lm",
    className: "LLaDA2MoeModelLM",
    kept: ["model.word_embeddings.weight", "model.layers.1.mlp.gate.weight", "lm_head.weight"],
    quantized: ["model.layers.0.attention.query_key_value.weight", "model.layers.1.mlp.experts.0.gate_proj.weight"],
  },
  {
    title: "MDLM",
    architecture: "diffusion-lm",
    className: "MDLM",
    kept: [
      "backbone.vocab_embed.embedding",
      "backbone.sigma_map.mlp.0.weight",
      "backbone.output_layer.linear.weight",
      "backbone.output_layer.adaLN_modulation.weight",
    ],
    quantized: [
      "backbone.blocks.0.attn_qkv.weight",
      "backbone.blocks.0.mlp.2.weight",
      "backbone.blocks.11.adaLN_modulation.weight",
    ],
  },
  {
    title: "CLIP text encoder",
    architecture: "text-encoder",
    name: "text_encoder",
    className: "CLIPTextModelWithProjection",
    kept: [
      "text_model.embeddings.token_embedding.weight",
      "text_model.embeddings.position_embedding.weight",
      "text_projection.weight",
    ],
    quantized: ["text_model.encoder.layers.0.self_attn.q_proj.weight", "text_model.encoder.layers.11.mlp.fc2.weight"],
  },
  {
    title: "T5 text encoder",
    architecture: "text-encoder",
    name: "text_encoder_2",
    className: "T5EncoderModel",
    kept: [
      "shared.weight",
      "encoder.embed_tokens.weight",
      "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    ],
    quantized: ["encoder.block.0.layer.0.SelfAttention.q.weight", "encoder.block.23.layer.1.DenseReluDense.wo.weight"],
  },
  {
    title: "Llama text encoder",
    architecture: "text-encoder",
    name: "text_encoder_3",
    className: "LlamaForCausalLM",
    kept: ["model.embed_tokens.weight", "lm_head.weight"],
    quantized: ["model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.gate_proj.weight"],
  },
  {
    title: "KL autoencoder",
    architecture: "vae",
    name: "vae",
    className: "AutoencoderKL",
    kept: [
      "encoder.conv_in.weight",
      "encoder.conv_out.weight",
      "decoder.conv_in.weight",
      "decoder.conv_out.weight",
      "quant_conv.weight",
      "post_quant_conv.weight",
    ],
    quantized: [
      "encoder.down_blocks.0.resnets.0.conv1.weight",
      "decoder.mid_block.attentions.0.to_q.weight",
      "decoder.up_blocks.3.resnets.2.conv2.weight",
    ],
  },
  {
    title: "Wan autoencoder",
    architecture: "vae",
    name: "vae",
    className: "AutoencoderKLWan",
    kept: [
      "encoder.conv_in.weight",
      "decoder.mid_block.resnets.0.norm1.gamma",
      "quant_conv.weight",
      "decoder.conv_out.weight",
    ],
    quantized: ["encoder.down_blocks.0.conv1.weight", "decoder.mid_block.attentions.0.to_qkv.weight"],
  },
  {
    title: "Wan autoencoder, original",
    architecture: "vae",
    kept: [
      "encoder.conv1.weight",
      "encoder.head.2.weight",
      "conv1.weight",
      "conv2.weight",
      "decoder.conv1.weight",
      "decoder.middle.0.residual.0.gamma",
    ],
    quantized: ["encoder.downsamples.0.residual.2.weight", "decoder.middle.1.to_qkv.weight"],
  },
  {
    title: "VQ autoencoder",
    architecture: "vae",
    name: "vqvae",
    className: "VQModel",
    kept: ["encoder.conv_in.weight", "quantize.embedding.weight", "quant_conv.weight"],
    quantized: ["decoder.up_blocks.0.resnets.0.conv1.weight"],
  },
  {
    title: "Oobleck autoencoder",
    architecture: "vae",
    name: "vae",
    className: "AutoencoderOobleck",
    kept: [
      "encoder.conv1.weight_v",
      "encoder.conv1.weight_g",
      "encoder.block.0.snake1.alpha",
      "decoder.block.4.res_unit1.conv1.weight_g",
      "decoder.conv2.weight_v",
    ],
    quantized: ["encoder.block.0.res_unit1.conv1.weight_v", "decoder.block.4.conv_t1.weight_v"],
  },
  {
    title: "an architecture nobody knows",
    architecture: "unknown",
    kept: [
      "time_embed.0.weight",
      "t_embedder.mlp.0.weight",
      "label_embedding.weight",
      "context_embedder.weight",
      "text_embedding.0.weight",
      "pos_embed",
      "x_embedder.proj.weight",
      "patch_embed.proj.weight",
      "conv_in.weight",
      "caption_projection.linear_1.weight",
      "x_pad_token",
      "layers.0.scale_shift_table",
      "final_layer.linear.weight",
      "proj_out.weight",
      "norm_out.linear.weight",
      "embed_tokens.weight",
    ],
    quantized: [
      "layers.0.attention.qkv.weight",
      "layers.0.time_emb_proj.weight",
      "layers.0.feed_forward.w1.weight",
      "layers.0.proj_out.weight",
      "blocks.0.text_proj.weight",
      "layers.0.adaLN_modulation.1.weight",
    ],
  },
];

describe("the keep table", () => {
  it.each(CHECKPOINTS)("$title", async ({ architecture, kept, quantized, ...options }) => {
    const plan = planComponent({
      // Quantized names first, so that nothing depends on the order.
      component: component([...quantized, ...kept], options),
      pipelineClassName: null,
      config: await configOf({ modality: "image" }),
      calibration: null,
    });
    expect(plan.architecture).toBe(architecture);
    const namesOf = (isKept: boolean): string[] =>
      plan.layers.filter(({ spec }) => (spec === null) === isKept).map(({ tensor }) => tensor.name);
    expect(namesOf(false)).toEqual(quantized);
    expect(namesOf(true)).toEqual(kept);
    for (const { spec, reason } of plan.layers) {
      if (spec === null) expect(reason).toMatch(new RegExp(`^keep ${architecture} ".+" \\([a-zA-Z].+\\)$`));
    }
  });

  it("has a checkpoint above for every architecture", () => {
    const names = [...ARCHITECTURES, UNKNOWN_ARCHITECTURE].map(({ name }) => name);
    expect(new Set(CHECKPOINTS.map(({ architecture }) => architecture))).toEqual(new Set(names));
  });

  it("every rule keeps something of the checkpoints above", () => {
    const rules = [...ARCHITECTURES, UNKNOWN_ARCHITECTURE].flatMap(({ name, keeps }) =>
      keeps.map((rule) => ({ name, rule })),
    );
    const names = CHECKPOINTS.flatMap(({ kept }) =>
      kept.map((name) => name.replace(/^(?:model\.diffusion_model|model\.model|backbone|model)\./, "")),
    );
    const unused = rules.filter(({ rule }) => !names.some((name) => rule.pattern.test(name)));
    expect(unused.map(({ name, rule }) => `${name} ${rule.pattern.source}`)).toEqual([]);
  });

  it.each(CHECKPOINTS.filter(({ className }) => className))(
    "$title is found by its class alone too",
    async (checkpoint) => {
      if (checkpoint.className === "Transformer2DModel") return;
      const plan = planComponent({
        component: component(["some.layer.weight"], {
          name: checkpoint.name ?? "model",
          className: checkpoint.className ?? null,
        }),
        pipelineClassName: null,
        config: await configOf({ modality: "image" }),
        calibration: null,
      });
      expect(plan.architecture).toBe(checkpoint.architecture);
      expect(plan.warnings.filter((warning) => warning.includes("architecture"))).toEqual([]);
    },
  );

  it("an unknown architecture is a warning, unless nothing is kept by it", async () => {
    const plan = async (flags: Record<string, unknown>) =>
      planComponent({
        component: component(["layers.0.weight", "pos_embed"]),
        pipelineClassName: null,
        config: await configOf({ modality: "image", ...flags }),
        calibration: null,
      });
    expect((await plan({})).warnings).toEqual([
      'component "model" has no known architecture: layers are kept by common names',
    ]);
    const bold = await plan({ skip_sensitive_layers: false });
    expect(bold.warnings).toEqual([]);
    expect(bold.layers.every(({ spec }) => spec !== null)).toBe(true);
  });
});
