/**
 * What a model generates, from the names it carries.
 *
 * Evidence is `specific` (a name that means one modality) or `general` (a name that several share: the UNet
 * of Stable Diffusion also draws spectrograms). Where anything specific is found, general evidence is only
 * shown. The evidence that counts must agree; `code` is text of a narrower kind and agrees with it.
 */
import { ArrowQuantError } from "../errors.js";
import type { Component } from "../tensor/info.js";
import type { DetectedArchitecture } from "./keep.js";
import { MODALITIES, type Modality } from "./plan.js";

type Strength = "specific" | "general";

interface ClassRule {
  readonly pattern: RegExp;
  readonly modality: Modality;
  readonly strength: Strength;
}

const rule = (pattern: RegExp, modality: Modality, strength: Strength = "specific"): ClassRule => ({
  pattern,
  modality,
  strength,
});

/** `_class_name` of model_index.json; the first match counts. */
const PIPELINE_CLASSES: readonly ClassRule[] = [
  rule(/^(?:AudioLDM|AudioDiffusion|DanceDiffusion|MusicLDM|StableAudio|SpectrogramDiffusion|ACEStep)/, "audio"),
  rule(/^(?:Wan|LTX|HunyuanVideo|CogVideoX|Mochi|Allegro|Latte|AnimateDiff|TextToVideo|VideoToVideo)/, "video"),
  rule(/^(?:StableVideo|I2VGenXL|PIA|Cosmos|EasyAnimate|SkyReels|ConsisID|SanaVideo|Kandinsky5[TI]2V)/, "video"),
  rule(/^(?:LLaDA|Dream(?!Booth)|MDLM|SEDD|BD3LM)/i, "text"),
  rule(/^(?:StableDiffusion|StableCascade|LatentConsistency|LDM|Flux|Sana|PixArt|Lumina|HiDream|AuraFlow)/, "image"),
  rule(/^(?:Kandinsky|Chroma|QwenImage|CogView|HunyuanDiT|HunyuanImage|IF|Wuerstchen|UnCLIP|DiT)/, "image"),
  rule(/^(?:ControlNet|Bria|ZImage|OmniGen|Amused|Marigold|PaintByExample|LEditsPP)/, "image"),
  rule(/^(?:DDPM|DDIM|PNDM|ScoreSdeVe|KarrasVe|ConsistencyModel)Pipeline$/, "image", "general"),
];

/** `_class_name` or `architectures[0]` of the component; the first match counts. */
const COMPONENT_CLASSES: readonly ClassRule[] = [
  rule(/^(?:AudioLDM|StableAudio|MusicLDM|ACEStep|F5TTS|LongCatAudio)/, "audio"),
  rule(/^UNet1D/, "audio", "general"),
  rule(/Transformer3DModel$|^UNet(?:3DCondition|SpatioTemporalCondition|Motion)Model$|^I2VGenXLUNet$/, "video"),
  rule(/^(?:WanVACE|CogVideoX|HunyuanVideo|Mochi|Allegro)/, "video"),
  rule(/^(?:LLaDA|Dream(?:Model|For)|MDLM|SEDD|BD3LM|DiffuLlama)/i, "text"),
  rule(/^(?:Flux|SD3|PixArt|DiT|Sana|AuraFlow|Lumina|HiDream|Chroma|QwenImage|CogView|HunyuanDiT)/, "image"),
  rule(/^(?:HunyuanImage|ZImage|Bria|OmniGen|Kandinsky3UNet|StableCascadeUNet|UVit2D)/, "image"),
  rule(/^UNet2D(?:Condition)?Model$|Transformer2DModel$/, "image", "general"),
];

/**
 * What the tensor names of an architecture say; Latte and Open-Sora use the names of PixArt and DiT for
 * video.
 */
const ARCHITECTURE_MODALITIES: Readonly<Record<string, readonly [Modality, Strength]>> = {
  flux: ["image", "specific"],
  sd3: ["image", "specific"],
  pixart: ["image", "general"],
  dit: ["image", "general"],
  unet: ["image", "general"],
  wan: ["video", "specific"],
  ltx: ["video", "specific"],
  "hunyuan-video": ["video", "specific"],
  cogvideox: ["video", "specific"],
  "audio-dit": ["audio", "specific"],
  "diffusion-lm": ["text", "general"],
};

/** Layers that only models of one modality have. */
const LAYER_NAMES: readonly ClassRule[] = [
  rule(/\.(?:temp_convs|temp_attentions|motion_modules|temporal_transformer_blocks)\./, "video"),
];

/** Keys of the component's config.json that only models of one modality have. */
const CONFIG_FIELDS: readonly { readonly fields: readonly string[]; readonly modality: Modality }[] = [
  { fields: ["audio_channels"], modality: "audio" },
  { fields: ["sampling_rate"], modality: "audio" },
  { fields: ["sample_rate"], modality: "audio" },
  { fields: ["patch_size_t"], modality: "video" },
  { fields: ["num_frames"], modality: "video" },
  { fields: ["sample_frames"], modality: "video" },
  { fields: ["temporal_compression_ratio"], modality: "video" },
  { fields: ["mask_token_id", "vocab_size"], modality: "text" },
];

const MODEL_TYPES: readonly ClassRule[] = [rule(/^(?:llada|dream|mdlm|sedd|bd3lm)/i, "text")];

/** A name of a code model: DiffuCoder, Dream-Coder, CodeLLaDA; not an encoder, decoder, codec or codebook. */
const CODE_NAME = /(?<![eE]n|[dD]e|[vV]o|trans)[cC]oder(?![a-z])|(?:^|[^a-z])code(?![a-z])|Code(?=[A-Z]|$)/;

interface Evidence {
  readonly modality: Modality;
  readonly strength: Strength;
  readonly text: string;
}

export interface DetectedModality {
  readonly modality: Modality;
  /** What decided. */
  readonly rule: string;
  readonly evidence: readonly string[];
  readonly warnings: readonly string[];
}

/** One component with what its names gave. */
export interface NamedComponent {
  readonly component: Component;
  readonly detected: DetectedArchitecture;
  /** Tensor names without the denoiser's prefix. */
  readonly names: readonly string[];
}

/**
 * The modality of a model: `chosen` where it is set by hand, else what the evidence of the pipeline and of
 * all its components agrees on.
 * @param chosenBy where `chosen` was set, e.g. `flag --modality`
 * @throws `E_MODALITY` where there is no evidence, or evidence that disagrees
 */
export function detectModality(
  components: readonly NamedComponent[],
  pipelineClassName: string | null,
  chosen: Modality | null,
  chosenBy: string,
): DetectedModality {
  const evidence = collectEvidence(components, pipelineClassName);
  const texts = evidence.map(({ modality, text }) => `${text}: ${modality}`);
  const counted = selectCounted(evidence);
  const found = decide(counted);
  if (chosen !== null) {
    const other = found.filter((modality) => modality !== chosen && !isNarrower(chosen, modality));
    const warnings =
      other.length === 0 ? [] : [`modality ${chosen} (${chosenBy}) although the model looks like ${other.join(", ")}`];
    return { modality: chosen, rule: chosenBy, evidence: [chosenBy, ...texts], warnings };
  }
  const [modality] = found;
  if (modality !== undefined && found.length === 1) {
    const rule = counted.find((one) => one.modality === modality)?.text ?? "";
    return { modality, rule, evidence: texts, warnings: [] };
  }
  throw refuseModality(components, pipelineClassName, texts);
}

function isNarrower(modality: Modality, wider: Modality): boolean {
  return modality === "code" && wider === "text";
}

/** The evidence that counts: the specific where there is any. */
function selectCounted(evidence: readonly Evidence[]): readonly Evidence[] {
  const specific = evidence.filter(({ strength }) => strength === "specific");
  return specific.length > 0 ? specific : evidence;
}

/** The modalities that `counted` names: one where it agrees, none where there is none. */
function decide(counted: readonly Evidence[]): Modality[] {
  const found = new Set(counted.map(({ modality }) => modality));
  // Evidence of code is only collected beside text and refines it.
  if (found.has("code")) found.delete("text");
  return [...found];
}

function collectEvidence(components: readonly NamedComponent[], pipelineClassName: string | null): Evidence[] {
  const evidence: Evidence[] = [];
  const add = (found: ClassRule | undefined, text: string): void => {
    if (found !== undefined) evidence.push({ modality: found.modality, strength: found.strength, text });
  };
  if (pipelineClassName !== null) {
    add(
      PIPELINE_CLASSES.find(({ pattern }) => pattern.test(pipelineClassName)),
      `pipeline ${pipelineClassName}`,
    );
  }
  for (const { component, detected, names } of components) {
    const { className } = component;
    const isDenoiser = detected.architecture.componentNames === null;
    if (!isDenoiser) continue;
    if (className !== null) {
      add(
        COMPONENT_CLASSES.find(({ pattern }) => pattern.test(className)),
        `class ${className}`,
      );
    }
    evidence.push(...collectConfigEvidence(component));
    if (detected.byNames !== null) {
      const known = ARCHITECTURE_MODALITIES[detected.byNames.architecture.name];
      if (known !== undefined) {
        evidence.push({ modality: known[0], strength: known[1], text: detected.byNames.evidence });
      }
    }
    for (const layer of LAYER_NAMES) {
      const count = names.filter((name) => layer.pattern.test(name)).length;
      if (count > 0) add(layer, `${count} tensor names match "${layer.pattern.source}"`);
    }
  }
  const isText = evidence.some(({ modality }) => modality === "text");
  if (isText) evidence.push(...collectCodeEvidence(components, pipelineClassName, evidence));
  return evidence;
}

function collectConfigEvidence(component: Component): Evidence[] {
  const config = parseConfig(component);
  const evidence: Evidence[] = CONFIG_FIELDS.filter(({ fields }) => fields.every((field) => isSet(config[field]))).map(
    ({ fields, modality }) => ({
      modality,
      strength: "general",
      text: `config ${fields.join(" and ")}`,
    }),
  );
  const modelType = config["model_type"];
  if (typeof modelType === "string") {
    const known = MODEL_TYPES.find(({ pattern }) => pattern.test(modelType));
    if (known !== undefined) {
      evidence.push({
        modality: known.modality,
        strength: known.strength,
        text: `config model_type ${modelType}`,
      });
    }
  }
  return evidence;
}

/** Names of code models, as strong as the text they refine. */
function collectCodeEvidence(
  components: readonly NamedComponent[],
  pipelineClassName: string | null,
  evidence: readonly Evidence[],
): Evidence[] {
  const strength = evidence.some((one) => one.modality === "text" && one.strength === "specific")
    ? "specific"
    : "general";
  const named: [string, unknown][] = [["pipeline", pipelineClassName]];
  for (const { component } of components) {
    const config = parseConfig(component);
    named.push(
      ["class", component.className],
      ["config model_type", config["model_type"]],
      ["config _name_or_path", config["_name_or_path"]],
    );
  }
  return named
    .filter((entry): entry is [string, string] => typeof entry[1] === "string" && CODE_NAME.test(entry[1]))
    .map(([label, name]) => ({ modality: "code", strength, text: `${label} ${name.slice(0, 100)}` }));
}

function isSet(value: unknown): boolean {
  return value !== undefined && value !== null && value !== false;
}

/**
 * The component's config as an object; {} where there is none or it is not one, which only costs evidence.
 */
function parseConfig({ configText }: Component): Record<string, unknown> {
  if (configText === null) return {};
  try {
    const config: unknown = JSON.parse(configText);
    return typeof config === "object" && config !== null ? (config as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

function refuseModality(
  components: readonly NamedComponent[],
  pipelineClassName: string | null,
  evidence: readonly string[],
): ArrowQuantError {
  const seen = [
    ...(pipelineClassName === null ? [] : [`pipeline ${pipelineClassName}`]),
    ...components.map(({ component }) => {
      const first = component.tensors[0]?.name;
      const example = first === undefined ? "" : ` such as "${first.slice(0, 100)}"`;
      const tensors = `${component.tensors.length} tensors${example}`;
      return `component "${component.name}" (${component.className ?? "no class name"}, ${tensors})`;
    }),
  ];
  const reason =
    evidence.length === 0
      ? `no class name, config field or tensor name is known; seen: ${seen.join("; ")}`
      : `the evidence disagrees: ${evidence.join("; ")}`;
  return new ArrowQuantError("E_MODALITY", `the modality is not evident: ${reason}`, {
    hint: `give --modality ${MODALITIES.join("|")}`,
    details: { evidence, seen },
  });
}
