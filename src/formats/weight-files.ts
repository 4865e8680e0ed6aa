/** Which of a folder's files are its weights, and in which variant. */
import { ArrowQuantError } from "../errors.js";

/** A way to read a folder's weights: one file, or a set of shards by its index. */
export interface WeightFile {
  readonly kind: "file" | "index";
  readonly fileName: string;
  /** Name of the weights, `diffusion_pytorch_model`, `model` or whatever stands before `.safetensors`. */
  readonly base: string;
  /** `fp16` of `model.fp16.safetensors`; null for the weights without one. */
  readonly variant: string | null;
}

/**
 * The names that the libraries give to weights, first diffusers', then transformers', each with what its
 * library opens where a single file and a sharded set stand side by side.
 */
const STANDARD_BASES: readonly { readonly base: string; readonly prefers: WeightFile["kind"] }[] = [
  { base: "diffusion_pytorch_model", prefers: "index" },
  { base: "model", prefers: "file" },
];

const WEIGHT_FILE = /^(.+)\.safetensors$/;
/** `x.safetensors.index.json`, and diffusers' older `x.safetensors.index.VARIANT.json`. */
const INDEX_FILE = /^(.+)\.safetensors\.index(?:\.([^.]+))?\.json$/;
/** `x-00001-of-00002` (`x.VARIANT-00001-of-00002` too), diffusers' newer `x-00001-of-00002.VARIANT`. */
const SHARD_STEM = /-\d{5}-of-\d{5}(?:\.[^.]+)?$/;

/** Weights in formats that are not read, with the reason where there is more to say than that. */
const OTHER_WEIGHTS: readonly { readonly ending: RegExp; readonly kind: string }[] = [
  {
    ending: /\.(?:bin|ckpt|pt|pth|pkl)$/,
    kind: "pickle, which runs code when it is loaded and is never read",
  },
  { ending: /\.gguf$/, kind: "GGUF, read where it is given itself" },
  { ending: /\.onnx$/, kind: "ONNX, read where it is given itself" },
  { ending: /\.(?:msgpack|h5|tflite|npz)$/, kind: "weights of another framework" },
];

/** Every way to read weights among the entries of a folder; shards alone are none. */
export function listWeightFiles(names: readonly string[]): WeightFile[] {
  const found: WeightFile[] = [];
  for (const fileName of [...names].sort()) {
    const index = INDEX_FILE.exec(fileName);
    const file = WEIGHT_FILE.exec(fileName);
    if (index !== null) {
      const parsed = splitVariant(index[1] as string);
      found.push({ kind: "index", fileName, base: parsed.base, variant: index[2] ?? parsed.variant });
    } else if (file !== null && !SHARD_STEM.test(file[1] as string)) {
      found.push({ kind: "file", fileName, ...splitVariant(file[1] as string) });
    }
  }
  return found;
}

/** Whether a file's name is diffusers' or transformers' own: then a config.json beside it is its. */
export function isStandardName(fileName: string): boolean {
  const stem = WEIGHT_FILE.exec(fileName)?.[1];
  return stem !== undefined && STANDARD_BASES.some(({ base }) => base === splitVariant(stem).base);
}

/** `1 of 3` for `x-00001-of-00003.safetensors`; null for a file that is no shard. */
export function shardNumber(fileName: string): string | null {
  const match = /-(\d{5})-of-(\d{5})(?:\.[^.]+)?\.safetensors$/.exec(fileName);
  return match === null ? null : `${Number(match[1])} of ${Number(match[2])}`;
}

/** Whether a folder has safetensors weights in any form. */
export function hasWeights(names: readonly string[]): boolean {
  return names.some((name) => WEIGHT_FILE.test(name) || INDEX_FILE.test(name));
}

/** Files of the folder that are weights in a format that is not read, each with what it is. */
export function describeOtherWeights(names: readonly string[]): string[] {
  return [...names].sort().flatMap((name) => {
    const other = OTHER_WEIGHTS.find(({ ending }) => ending.test(name));
    return other === undefined ? [] : [`${name} (${other.kind})`];
  });
}

/**
 * The weights to read among a folder's entries. `variant` null asks for those without one.
 * Throws `E_VARIANT` where they are not there, naming the variants that are; `E_UNKNOWN_FORMAT` where there
 * are none or several; `E_INDEX` where there are shards without an index.
 */
export function chooseWeightFile(
  folder: string,
  names: readonly string[],
  variant: string | null,
): { readonly chosen: WeightFile; readonly warnings: readonly string[] } {
  const all = listWeightFiles(names);
  if (all.length === 0) throw noWeights(folder, names);
  const standard = STANDARD_BASES.map(({ base, prefers }) => ({
    prefers,
    files: all.filter((file) => file.base === base),
  })).filter(({ files }) => files.length > 0);
  for (const { prefers, files } of standard) {
    const matching = files.filter((file) => file.variant === variant);
    const chosen = matching.find(({ kind }) => kind === prefers) ?? matching[0];
    if (chosen === undefined) continue;
    const others = matching.filter((file) => file !== chosen).map(({ fileName }) => fileName);
    const warnings = others.length === 0 ? [] : [`${chosen.fileName} was read, ${others.join(", ")} beside it was not`];
    return { chosen, warnings };
  }
  if (standard.length > 0 || variant !== null) throw noVariant(folder, all, variant);
  const indexes = all.filter(({ kind }) => kind === "index");
  const [chosen, second] = indexes.length > 0 ? indexes : all;
  if (chosen !== undefined && second === undefined) return { chosen, warnings: [] };
  const listed = all.map(({ fileName }) => fileName);
  throw new ArrowQuantError("E_UNKNOWN_FORMAT", `"${folder}" holds several sets of weights: ${listed.join(", ")}`, {
    hint: "give one of these files instead of the folder",
    details: { folder, files: listed },
  });
}

function splitVariant(stem: string): Pick<WeightFile, "base" | "variant"> {
  for (const { base } of STANDARD_BASES) {
    if (stem === base) return { base, variant: null };
    if (stem.startsWith(`${base}.`)) return { base, variant: stem.slice(base.length + 1) };
  }
  return { base: stem, variant: null };
}

function noVariant(folder: string, all: readonly WeightFile[], variant: string | null): ArrowQuantError {
  const variants = [...new Set(all.flatMap((file) => (file.variant === null ? [] : [file.variant])))].sort();
  const hasPlain = all.some((file) => file.variant === null);
  const available = [...(hasPlain ? ["weights without a variant"] : []), ...variants].join(", ");
  const wanted = variant === null ? "no weights without a variant" : `no weights of variant ${JSON.stringify(variant)}`;
  const [first] = variants;
  return new ArrowQuantError("E_VARIANT", `"${folder}" has ${wanted}; it has: ${available}`, {
    hint: first === undefined ? "leave --variant out" : `name one: --variant ${first}`,
    details: { folder, variant, variants, hasPlain },
  });
}

function noWeights(folder: string, names: readonly string[]): ArrowQuantError {
  const shards = names.filter((name) => shardNumber(name) !== null);
  if (shards.length > 0) {
    return new ArrowQuantError(
      "E_INDEX",
      `"${folder}" holds ${shards.length} shards but no index that says what is in them`,
      {
        hint: "fetch the *.safetensors.index.json that belongs to them",
        details: { folder, shards },
      },
    );
  }
  const others = describeOtherWeights(names);
  const found = others.length === 0 ? "nothing that looks like weights" : `only ${others.join(", ")}`;
  return new ArrowQuantError("E_UNKNOWN_FORMAT", `"${folder}" holds no safetensors weights; found ${found}`, {
    hint: "give a .safetensors file, a folder that holds one, or a diffusers pipeline folder",
    details: { folder, found: others },
  });
}
