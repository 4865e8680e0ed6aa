/**
 * What loaders of diffusion models call an architecture, told from the names of its tensors, and what they need of it.
 *
 * Sources: https://github.com/city96/ComfyUI-GGUF (tools/convert.py: sets of names, names that must stay float32,
 * reshaping of Stable Diffusion; loader.py: names of architectures that it takes, the prefix that it takes off);
 * https://github.com/leejet/stable-diffusion.cpp (model.cpp); diffusers/loaders/single_file_utils.py.
 */

/** Names as the original repository of a model has them, or as diffusers does. */
export type Dialect = "original" | "diffusers";

export interface GgufArchitecture {
  /** Value of `general.architecture`. */
  readonly name: string;
  readonly dialect: Dialect;
  /** Sets of names; one whose every name is there tells the architecture. */
  readonly signatures: readonly (readonly string[])[];
  /** A name that only another architecture of such a set has. */
  readonly absent: string | null;
  /** ComfyUI-GGUF loads it under these names. */
  readonly loadsInComfy: boolean;
  /**
   * ComfyUI-GGUF quantizes tensors whose rows no block divides as rows of 256: convolutions are most of these models.
   * Of no other architecture, where rows are those of linear layers.
   */
  readonly reshapes: boolean;
  /** Parts of names of parameters that are no layer's weight: loaders read them as plain floats. */
  readonly plainNames: readonly string[];
}

type Row = readonly [
  name: string,
  dialect: Dialect,
  signatures: readonly (readonly string[])[],
  more?: Partial<Pick<GgufArchitecture, "absent" | "loadsInComfy" | "reshapes" | "plainNames">>,
];

const NOT_IN_COMFY = { loadsInComfy: false } as const;

/** In order of detection: what is more particular stands before what it could be taken for. */
const ROWS: readonly Row[] = [
  [
    "qwen_image",
    "diffusers",
    [
      [
        "time_text_embed.timestep_embedder.linear_2.weight",
        "transformer_blocks.0.attn.norm_added_q.weight",
        "transformer_blocks.0.img_mlp.net.0.proj.weight",
      ],
    ],
  ],
  [
    "hyvid",
    "diffusers",
    [
      [
        "context_embedder.token_refiner.refiner_blocks.0.attn.to_q.weight",
        "transformer_blocks.0.attn.add_q_proj.weight",
      ],
    ],
    NOT_IN_COMFY,
  ],
  ["flux", "original", [["double_blocks.0.img_attn.proj.weight"]]],
  [
    "flux",
    "diffusers",
    [
      ["transformer_blocks.0.attn.norm_added_k.weight", "single_transformer_blocks.0.attn.to_q.weight"],
      ["transformer_blocks.0.attn.norm_added_k.weight", "single_transformer_blocks.0.attn.to_qkv_mlp_proj.weight"],
    ],
    NOT_IN_COMFY,
  ],
  ["sd3", "original", [["joint_blocks.0.x_block.attn.qkv.weight"]]],
  ["sd3", "diffusers", [["transformer_blocks.0.attn.add_q_proj.weight", "pos_embed.proj.weight"]], NOT_IN_COMFY],
  ["aura", "original", [["double_layers.3.modX.1.weight"]]],
  [
    "aura",
    "diffusers",
    [
      ["joint_transformer_blocks.3.ff_context.out_projection.weight"],
      ["joint_transformer_blocks.3.ff_context.linear_2.weight"],
    ],
    NOT_IN_COMFY,
  ],
  [
    "hidream",
    "original",
    [["caption_projection.0.linear.weight", "double_stream_blocks.0.block.ff_i.shared_experts.w3.weight"]],
    { plainNames: [".ff_i.gate.weight", "img_emb.emb_pos"] },
  ],
  [
    "cosmos",
    "original",
    [["blocks.0.mlp.layer1.weight", "blocks.0.adaln_modulation_cross_attn.1.weight"]],
    { plainNames: ["pos_embedder"] },
  ],
  [
    "ltxv",
    "original",
    [
      [
        "adaln_single.emb.timestep_embedder.linear_2.weight",
        "transformer_blocks.27.scale_shift_table",
        "caption_projection.linear_2.weight",
      ],
      ["adaln_single.emb.timestep_embedder.linear_2.weight", "patchify_proj.weight"],
    ],
    // Of PixArt.
    { absent: "pos_embed.proj.weight", plainNames: ["scale_shift_table"] },
  ],
  [
    "ltxv",
    "diffusers",
    [["time_embed.emb.timestep_embedder.linear_2.weight", "proj_in.weight", "transformer_blocks.0.attn1.to_q.weight"]],
    { ...NOT_IN_COMFY, plainNames: ["scale_shift_table"] },
  ],
  [
    "hyvid",
    "original",
    [
      ["double_blocks.0.img_attn_proj.weight", "txt_in.individual_token_refiner.blocks.0.self_attn_qkv.weight"],
      ["double_blocks.0.img_attn_proj.weight", "txt_in.individual_token_refiner.blocks.1.self_attn_qkv.weight"],
    ],
  ],
  [
    "wan",
    "original",
    [["blocks.0.self_attn.norm_q.weight", "text_embedding.2.weight", "head.modulation"]],
    { plainNames: [".modulation"] },
  ],
  [
    "wan",
    "diffusers",
    [["condition_embedder.time_embedder.linear_1.weight", "blocks.0.attn1.to_q.weight"]],
    { ...NOT_IN_COMFY, plainNames: ["scale_shift_table"] },
  ],
  [
    "sdxl",
    "diffusers",
    [["down_blocks.0.downsamplers.0.conv.weight", "add_embedding.linear_1.weight"]],
    { reshapes: true },
  ],
  [
    "sdxl",
    "original",
    [
      [
        "input_blocks.3.0.op.weight",
        "input_blocks.6.0.op.weight",
        "output_blocks.2.2.conv.weight",
        "output_blocks.5.2.conv.weight",
      ],
      ["label_emb.0.0.weight"],
    ],
    { reshapes: true },
  ],
  ["sd1", "diffusers", [["down_blocks.0.downsamplers.0.conv.weight"]], { reshapes: true }],
  [
    "sd1",
    "original",
    [
      [
        "input_blocks.3.0.op.weight",
        "input_blocks.6.0.op.weight",
        "input_blocks.9.0.op.weight",
        "output_blocks.2.1.conv.weight",
        "output_blocks.5.2.conv.weight",
        "output_blocks.8.2.conv.weight",
      ],
    ],
    { reshapes: true },
  ],
  [
    "lumina2",
    "original",
    [["cap_embedder.1.weight", "context_refiner.0.attention.qkv.weight"]],
    { plainNames: ["x_pad_token", "cap_pad_token"] },
  ],
  [
    "lumina2",
    "diffusers",
    [["time_caption_embed.caption_embedder.1.weight", "context_refiner.0.attn.to_q.weight"]],
    NOT_IN_COMFY,
  ],
];

export const GGUF_ARCHITECTURES: readonly GgufArchitecture[] = ROWS.map(([name, dialect, signatures, more]) => ({
  name,
  dialect,
  signatures,
  absent: null,
  loadsInComfy: true,
  reshapes: false,
  plainNames: [],
  ...more,
}));

/**
 * What checkpoints have before the denoiser's names. ComfyUI and stable-diffusion.cpp know the first; of names with
 * another, which all loaders but one take for a model that they do not know, it is taken off.
 */
const PREFIXES = ["model.diffusion_model.", "diffusion_model.", "model.", "net."] as const;

export interface DetectedGgufArchitecture {
  readonly architecture: GgufArchitecture;
  /** What names have before those of the architecture; empty for nothing. */
  readonly prefix: string;
  /** Every tensor has the prefix: it is all that stands in the way. */
  readonly isUniform: boolean;
}

/** null: no architecture that loaders have a name for. */
export function detectGgufArchitecture(names: readonly string[]): DetectedGgufArchitecture | null {
  for (const prefix of ["", ...PREFIXES]) {
    const bare = new Set(names.filter((name) => name.startsWith(prefix)).map((name) => name.slice(prefix.length)));
    const architecture = GGUF_ARCHITECTURES.find(
      ({ signatures, absent }) =>
        (absent === null || !bare.has(absent)) &&
        signatures.some((signature) => signature.every((name) => bare.has(name))),
    );
    if (architecture !== undefined) return { architecture, prefix, isUniform: bare.size === names.length };
  }
  return null;
}
