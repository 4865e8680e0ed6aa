/**
 * Architectures: how one is recognised and which of its layers are kept unquantized.
 *
 * Names come from the checkpoints themselves, as diffusers and the original repositories write them
 * (diffusers scripts/convert_*_to_diffusers.py hold both sides). The lists agree with what the field keeps:
 * ComfyUI-GGUF (tools/convert.py, lcpp.patch) and stable-diffusion.cpp
 * (ModelLoader::tensor_should_be_converted) keep embedders, input and final layers, modulation tables.
 * Patterns are matched against names without the prefix that checkpoints put before the denoiser, and are
 * linear in the name's length: names may be hostile.
 */
import type { Component, TensorInfo } from "../tensor/info.js";

export interface KeepRule {
  readonly pattern: RegExp;
  /** What the layer is, in a few words. */
  readonly what: string;
}

export interface Architecture {
  readonly name: string;
  readonly componentNames: RegExp | null;
  readonly classNames: RegExp | null;
  /** Sets of patterns; a set whose every pattern occurs among the tensor names marks the architecture. */
  readonly signatures: readonly (readonly RegExp[])[];
  readonly keeps: readonly KeepRule[];
}

/** Longest first; the first that some tensor name starts with is left out of every name. */
const DENOISER_PREFIXES = [
  "model.diffusion_model.",
  "diffusion_model.",
  "model.model.",
  "backbone.",
  "module.",
  "model.",
  "net.",
] as const;

const keep = (pattern: RegExp, what: string): KeepRule => ({ pattern, what });

/** Kept in every architecture. */
const COMMON: readonly KeepRule[] = [
  keep(/^(?:first_stage_model|vae|audio_vae|vocoder|pretransform)\./, "VAE beside the denoiser"),
  keep(
    /^(?:cond_stage_model|conditioner|text_encoders?|text_embedding_projection)\./,
    "text encoder beside the denoiser",
  ),
  keep(/^model_ema\./, "second copy of the denoiser"),
  keep(/\.gamma$|(?:^|[._])norm\d*\.weight$/, "norm gain"),
  keep(/\.weight_g$/, "weight-norm gain"),
];

const SCALE_SHIFT_TABLE = keep(/(?:^|[._])scale_shift_table$/, "adaLN-single table");

/** DiT and its descendants under the names of the original repositories. */
const ORIGINAL_DIT: readonly KeepRule[] = [
  keep(/^x_embedder\./, "patch embedding"),
  keep(/^t_embedder\./, "timestep embedder"),
  keep(/^y_embedder\./, "label or text embedder"),
  keep(/^pos_embed$/, "position embedding"),
  keep(/^final_layer\./, "final layer"),
];

/** Flux and HunyuanVideo share these names. */
const MMDIT_INPUTS: readonly KeepRule[] = [
  keep(/^img_in\./, "patch embedding"),
  keep(/^txt_in\./, "text embedder"),
  keep(/^time_in\./, "timestep embedder"),
  keep(/^guidance_in\./, "guidance embedder"),
  keep(/^vector_in\./, "pooled text embedder"),
  keep(/^final_layer\./, "final layer"),
];

const DIFFUSERS_MMDIT: readonly KeepRule[] = [
  keep(/^x_embedder\./, "patch embedding"),
  keep(/^context_embedder(?:_2)?\./, "text embedder"),
  keep(/^time_(?:text_|guidance_)?embed\./, "timestep, guidance and pooled text embedders"),
  keep(/^norm_out\./, "final adaLN"),
  keep(/^proj_out\./, "final projection"),
];

/** In order of detection: what is more particular stands before what it could be taken for. */
export const ARCHITECTURES: readonly Architecture[] = [
  {
    name: "text-encoder",
    componentNames: /^(?:text_encoder|image_encoder|prior_text_encoder)(?:_\d+)?$/,
    classNames: /^(?:CLIP|T5|UMT5|MT5|ByT5|Llama|Gemma|Qwen\d|Mistral|ChatGLM|Clap|(?:XLM)?Roberta|Bert|Siglip)/,
    signatures: [[/^text_model\.encoder\.layers\./], [/^encoder\.block\.\d+\.layer\./, /^shared\./]],
    keeps: [
      ...COMMON,
      keep(/(?:^|\.)(?:embeddings|embed_tokens|wte|wpe|word_embeddings)\./, "token and position embeddings"),
      keep(/^shared\./, "token embeddings"),
      keep(/\.relative_attention_bias\./, "position bias"),
      keep(/(?:^|\.)(?:text_projection|visual_projection)(?:\.|$)/, "final projection"),
      keep(/^lm_head\./, "final projection"),
    ],
  },
  {
    name: "vae",
    componentNames: /^(?:vae|vqvae|audio_vae|movq|vocoder)$/,
    classNames: /^(?:Autoencoder|AsymmetricAutoencoder|VQModel|ConsistencyDecoder)|VAE|Vocoder/,
    signatures: [[/^decoder\.(?:conv_in|conv1|mid|mid_block|middle)\./]],
    keeps: [
      ...COMMON,
      keep(/^(?:post_)?quant_conv\./, "latent projection"),
      keep(/^conv[12]\./, "latent projection"),
      keep(/^(?:encoder|decoder)\.(?:conv_in|conv1)\./, "input convolution"),
      keep(/^(?:encoder|decoder)\.(?:conv_out|conv2|head\.\d+)\./, "output convolution"),
      keep(/\.snake\d\.(?:alpha|beta)$/, "activation parameter"),
      keep(/(?:^|\.)(?:time_embedder|timestep_embedder|last_time_embedder)\./, "timestep embedder"),
      SCALE_SHIFT_TABLE,
      keep(/(?:^|\.)(?:quantize|quantizer)\.embedding\./, "codebook"),
    ],
  },
  {
    name: "hunyuan-video",
    componentNames: null,
    classNames: /^HunyuanVideo/,
    signatures: [[/^txt_in\.individual_token_refiner\./], [/^context_embedder\.token_refiner\./]],
    keeps: [
      ...COMMON,
      ...MMDIT_INPUTS,
      keep(/^(?:byt5_in|vision_in)\./, "text and image embedders"),
      keep(/^cond_type_embed(?:ding)?\./, "condition embedding"),
      ...DIFFUSERS_MMDIT,
      keep(/^image_embedder\./, "image embedder"),
    ],
  },
  {
    name: "flux",
    componentNames: null,
    classNames: /^(?:Flux|Chroma)/,
    signatures: [
      [/^double_blocks\.\d+\.img_attn\./, /^single_blocks\.\d+\.linear1\./],
      [/^single_transformer_blocks\.\d+\./, /^x_embedder\.weight$/],
    ],
    keeps: [
      ...COMMON,
      ...MMDIT_INPUTS,
      keep(/^distilled_guidance_layer\./, "modulation from the timestep"),
      keep(/^(?:double_stream_modulation_(?:img|txt)|single_stream_modulation)\./, "modulation shared by all blocks"),
      ...DIFFUSERS_MMDIT,
    ],
  },
  {
    name: "sd3",
    componentNames: null,
    classNames: /^SD3/,
    signatures: [
      [/^joint_blocks\.\d+\.x_block\./],
      [/^transformer_blocks\.\d+\.attn\.add_q_proj\./, /^pos_embed\.proj\./],
    ],
    keeps: [
      ...COMMON,
      ...ORIGINAL_DIT,
      keep(/^pos_embed\./, "patch and position embedding"),
      ...DIFFUSERS_MMDIT.slice(1),
    ],
  },
  {
    name: "wan",
    componentNames: null,
    classNames: /^Wan.*Transformer/,
    signatures: [
      [/^text_embedding\.\d\./, /^time_projection\.\d\./],
      [/^condition_embedder\.time_embedder\./, /^blocks\.\d+\.attn1\./],
    ],
    keeps: [
      ...COMMON,
      keep(/^(?:vace_)?patch_embedding\./, "patch embedding"),
      keep(/^time_embedding\./, "timestep embedder"),
      keep(/^time_projection\./, "timestep modulation of all blocks"),
      keep(/^text_embedding\./, "text embedder"),
      keep(/^img_emb\./, "image embedder"),
      keep(/(?:^|\.)modulation$/, "adaLN-single table"),
      keep(/^head\./, "final projection"),
      keep(/^condition_embedder\./, "timestep, text and image embedders"),
      SCALE_SHIFT_TABLE,
      keep(/^proj_out\./, "final projection"),
    ],
  },
  {
    name: "ltx",
    componentNames: null,
    classNames: /^LTX.*Transformer/,
    signatures: [
      [/^patchify_proj\./, /^adaln_single\./],
      [/^time_embed\.emb\.timestep_embedder\./, /^proj_in\./, SCALE_SHIFT_TABLE.pattern],
    ],
    keeps: [
      ...COMMON,
      keep(/^(?:audio_)?patchify_proj\./, "patch embedding"),
      keep(/^(?:audio_)?proj_in\./, "patch embedding"),
      keep(/^\w*adaln_single\./, "timestep embedder and adaLN-single"),
      keep(/^\w*time_embed\./, "timestep embedder and adaLN-single"),
      keep(/^(?:audio_)?caption_projection\./, "text embedder"),
      SCALE_SHIFT_TABLE,
      keep(/^(?:audio_)?proj_out\./, "final projection"),
    ],
  },
  {
    name: "cogvideox",
    componentNames: null,
    classNames: /^CogVideoX/,
    signatures: [[/^patch_embed\.text_proj\./, /^time_embedding\.linear_1\./]],
    keeps: [
      ...COMMON,
      keep(/^patch_embed\./, "patch, text and position embedding"),
      keep(/^(?:time|ofs)_embedding\./, "timestep embedder"),
      keep(/^norm_out\./, "final adaLN"),
      keep(/^proj_out\./, "final projection"),
    ],
  },
  {
    name: "pixart",
    componentNames: null,
    classNames: /^PixArt/,
    signatures: [
      [/^adaln_single\.emb\./, /^pos_embed\.proj\./],
      [/^t_block\.\d\./, /^y_embedder\.y_proj\./],
    ],
    keeps: [
      ...COMMON,
      ...ORIGINAL_DIT,
      keep(/^(?:csize|ar)_embedder\./, "size embedder"),
      keep(/^t_block\./, "adaLN-single"),
      keep(/^pos_embed\./, "patch and position embedding"),
      keep(/^adaln_single\./, "timestep and size embedders, adaLN-single"),
      keep(/^caption_projection\./, "text embedder"),
      SCALE_SHIFT_TABLE,
      keep(/^proj_out\./, "final projection"),
    ],
  },
  {
    name: "dit",
    componentNames: null,
    classNames: /^DiT/,
    signatures: [
      [/^transformer_blocks\.\d+\.norm1\.emb\.class_embedder\./],
      [/^blocks\.\d+\.adaLN_modulation\.1\./, /^y_embedder\.embedding_table\./],
    ],
    keeps: [
      ...COMMON,
      ...ORIGINAL_DIT,
      keep(/^pos_embed\./, "patch and position embedding"),
      keep(/\.timestep_embedder\./, "timestep embedder"),
      keep(/\.class_embedder\./, "label embedder"),
      keep(/^proj_out_1\./, "final adaLN"),
      keep(/^proj_out_2\./, "final projection"),
    ],
  },
  {
    name: "unet",
    componentNames: null,
    classNames: /^(?:UNet2D|UNet3D|UNetSpatioTemporal|UNetMotion|AudioLDM2UNet|Kandinsky3UNet|I2VGenXLUNet)/,
    signatures: [
      [/^down_blocks\.\d+\./, /^up_blocks\.\d+\./, /^time_embedding\./],
      [/^input_blocks\.0\.0\./, /^output_blocks\.\d+\./, /^time_embed\.\d\./],
    ],
    keeps: [
      ...COMMON,
      keep(/^conv_in\./, "input convolution"),
      keep(/^input_blocks\.0\.0\./, "input convolution"),
      keep(/^time_embed(?:ding)?\./, "timestep embedder"),
      keep(/^(?:class_embedding|label_emb)\./, "label embedder"),
      keep(/^add_embedding\./, "added condition embedder"),
      keep(/^encoder_hid_proj\./, "text embedder"),
      keep(/\.(?:time_pos_embed|pos_embed|pos_encoder)\./, "frame position embedding"),
      keep(/^conv_out\./, "output convolution"),
      keep(/^out\.\d\./, "output convolution"),
    ],
  },
  {
    name: "audio-dit",
    componentNames: null,
    classNames: /^StableAudioDiT/,
    signatures: [
      [/^timestep_proj\.\d\./, /^global_proj\.\d\./],
      [/^to_timestep_embed\.\d\./, /^transformer\.project_in\./],
    ],
    keeps: [
      ...COMMON,
      keep(/^(?:timestep_features|timestep_proj|to_timestep_embed)\./, "timestep embedder"),
      keep(/^(?:global_proj|to_global_embed)\./, "duration embedder"),
      keep(/^(?:cross_attention_proj|to_cond_embed|to_prepend_embed)\./, "text embedder"),
      keep(/^preprocess_conv\./, "input convolution"),
      keep(/^(?:transformer\.project_in|proj_in)\./, "input projection"),
      keep(/^(?:transformer\.project_out|proj_out)\./, "final projection"),
      keep(/^postprocess_conv\./, "output convolution"),
    ],
  },
  {
    name: "diffusion-lm",
    componentNames: null,
    classNames: /^(?:LLaDA|Dream(?:Model|For)|MDLM|SEDD|BD3LM|DiffuLlama)/i,
    signatures: [
      [/^transformer\.blocks\.\d+\.ff_proj\./, /^transformer\.wte\./],
      [/^layers\.\d+\.self_attn\.q_proj\./, /^embed_tokens\./],
      [/^layers\.\d+\.attention\.query_key_value\./, /^word_embeddings\./],
      [/^blocks\.\d+\.attn_qkv\./, /^(?:vocab_embed|sigma_map)\./],
    ],
    keeps: [
      ...COMMON,
      keep(/^(?:transformer\.wte|embed_tokens|word_embeddings|vocab_embed)\./, "token embeddings"),
      keep(/^sigma_map\./, "noise level embedder"),
      keep(/\.mlp\.gate\.weight$/, "expert router"),
      keep(/^(?:lm_head|transformer\.ff_out|output_layer)\./, "final projection"),
    ],
  },
];

/**
 * What is kept where nothing is recognised: the same kinds of layers under the names the field gives them.
 */
export const UNKNOWN_ARCHITECTURE: Architecture = {
  name: "unknown",
  componentNames: null,
  classNames: null,
  signatures: [],
  keeps: [
    ...COMMON,
    keep(
      /(?:^|\.)(?:t|time|timestep|time_text|sigma|noise|guidance)_(?:emb|embed|embedder|embedding)\./,
      "timestep embedder",
    ),
    keep(/(?:^|\.)(?:timestep_proj|time_projection|time_in|guidance_in|sigma_map|t_block)\./, "timestep embedder"),
    keep(/(?:^|\.)(?:y|label|class|add)_(?:emb|embed|embedder|embedding)\./, "label embedder"),
    keep(
      /(?:^|\.)(?:context|caption|cap|text|txt|image|img)_(?:emb|embed|embedder|embedding)\w*\./,
      "condition embedder",
    ),
    keep(/^(?:caption_projection|txt_in|vector_in|condition_embedder|cap_embedder)\./, "condition embedder"),
    keep(
      /(?:^|\.)pos(?:ition|itional)?_?(?:emb|embed|embedder|embedding|embeddings|encoding)(?:\.|$)/,
      "position embedding",
    ),
    keep(/(?:^|\.)(?:x|patch|input)_(?:emb|embed|embedder|embedding)\./, "patch embedding"),
    keep(/^(?:patchify_proj|conv_in|proj_in|img_in|input_proj|input_blocks\.0\.0|preprocess_conv)\./, "input layer"),
    keep(/(?:^|\.)(?:embed_tokens|word_embeddings|wte|wpe)\./, "token embeddings"),
    keep(/(?:^|\.)(?:cls|mask|pad|x_pad|cap_pad|register|query)_tokens?$/, "learned token"),
    keep(/(?:^|\.)adaln_single\.|(?:^|\.)modulation$/, "adaLN-single table"),
    SCALE_SHIFT_TABLE,
    keep(/^(?:final_layer|output_layer|lm_head|head|conv_out|proj_out\w*|norm_out|postprocess_conv)\./, "final layer"),
  ],
};

/** The names of `tensors` without the prefix of the denoiser, in order. */
export function stripNames(tensors: readonly TensorInfo[]): string[] {
  const prefix = DENOISER_PREFIXES.find((candidate) => tensors.some(({ name }) => name.startsWith(candidate)));
  return tensors.map(({ name }) =>
    prefix !== undefined && name.startsWith(prefix) ? name.slice(prefix.length) : name,
  );
}

export interface DetectedArchitecture {
  readonly architecture: Architecture;
  /** What told: `component text_encoder`, `312 tensor names match …`, `class DiTTransformer2DModel`. */
  readonly evidence: string;
  /** The architecture whose signature the tensor names carry, whatever decided; null for none. */
  readonly byNames: { readonly architecture: Architecture; readonly evidence: string } | null;
}

/**
 * The architecture of a component. Tensor names decide before the class name, since the keep patterns are
 * about names: `Transformer2DModel` has been a DiT and a PixArt.
 */
export function detectArchitecture(component: Component, names: readonly string[]): DetectedArchitecture {
  const byNames = detectByNames(names);
  const byComponent = ARCHITECTURES.find(({ componentNames }) => componentNames?.test(component.name));
  if (byComponent !== undefined) {
    return { architecture: byComponent, evidence: `component ${component.name}`, byNames: null };
  }
  if (byNames !== null) return { ...byNames, byNames };
  const { className } = component;
  const byClass = ARCHITECTURES.find(({ classNames }) => className !== null && classNames?.test(className));
  if (byClass !== undefined) return { architecture: byClass, evidence: `class ${className}`, byNames };
  return { architecture: UNKNOWN_ARCHITECTURE, evidence: "no class name or tensor names known", byNames };
}

function detectByNames(names: readonly string[]): DetectedArchitecture["byNames"] {
  for (const architecture of ARCHITECTURES) {
    for (const signature of architecture.signatures) {
      if (!signature.every((pattern) => names.some((name) => pattern.test(name)))) continue;
      const [pattern] = signature as [RegExp];
      const count = names.filter((name) => pattern.test(name)).length;
      return {
        architecture,
        evidence: `${count} tensor names match "${pattern.source}" (${architecture.name})`,
      };
    }
  }
  return null;
}
