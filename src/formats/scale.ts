/**
 * Sources that are already quantized: float8 weights get their scales attached, everything else is refused
 * with its reason. Nothing is ever read as something it is not.
 *
 * Float8 conventions (`w = float32(code) · scale` in all of them):
 * - ComfyUI "fp8 scaled": `X.weight`, `X.scale_weight`, optional `X.scale_input`, marker `scaled_fp8`
 *   (comfy/utils.py, convert_old_quants);
 * - ComfyUI since 2025, compressed-tensors, vLLM, ModelOpt, torchao: `X.weight`, `X.weight_scale`, optional
 *   `X.input_scale`; ComfyUI adds the marker `X.comfy_quant` (JSON as U8) or, in the file's metadata,
 *   `_quantization_metadata` (QUANTIZATION.md).
 */
import { ArrowQuantError } from "../errors.js";
import { readExactly, withFile } from "../io/read.js";
import { DTYPES, type Dtype, isFloat } from "../tensor/dtype.js";
import type { SourceFile, SourceScale, TensorInfo } from "../tensor/info.js";
import { countElements, viewAs2d } from "../tensor/layout.js";
import { describe, isJsonObject, type JsonValue, parseJsonObject, quoteName } from "./json.js";
import type { WeightSet } from "./safetensors/reader.js";

/** Last segments of a weight's scale, and of its input's: a hint for float8 arithmetic, no use here. */
const WEIGHT_SCALES: readonly string[] = ["scale_weight", "weight_scale"];
const INPUT_SCALES: readonly string[] = ["scale_input", "input_scale"];

/** Names that only quantized models have, whatever the types of their tensors. */
const QUANTIZED_NAMES: readonly { readonly ending: RegExp; readonly scheme: string }[] = [
  { ending: /(?:^|\.)(?:qweight|qzeros)$/, scheme: "integers packed by GPTQ, AWQ or SVDQuant" },
  { ending: /(?:^|\.)weight_packed$/, scheme: "codes packed by compressed-tensors" },
  { ending: /\.weight\.(?:absmax|quant_map|nested_absmax|nested_quant_map)$/, scheme: "bitsandbytes 4 bits" },
  { ending: /\.quant_state\.[^.]*$/, scheme: "bitsandbytes 4 bits" },
  { ending: /(?:^|\.)SCB$/, scheme: "bitsandbytes LLM.int8" },
  { ending: /(?:^|\.)W_q$/, scheme: "HQQ" },
  { ending: /weight(?:\.|:)_(?:data|scale|shift)$/, scheme: "quanto" },
  { ending: /weight(?:[.:_]_?)qdata$/, scheme: "a torchao tensor subclass" },
  { ending: /(?:^|\.)weight_scale_inv$/, scheme: "float8 with a scale per block" },
  { ending: /(?:^|\.)weight_(?:scale_2|global_scale)$/, scheme: "NVFP4, or two levels of scales" },
];
const ANY_QUANTIZED_NAME = new RegExp(QUANTIZED_NAMES.map(({ ending }) => ending.source).join("|"));

/** What the last segment of a name holds when it is a parameter of some quantization. */
const SCALE_LIKE = /scal|zero|absmax|amax|quant|codebook|scb|shift/i;

/** Formats of a ComfyUI marker that are read, with the type their weights must have. */
const COMFY_FORMATS: Readonly<Record<string, Dtype>> = { float8_e4m3fn: "F8_E4M3", float8_e5m2: "F8_E5M2" };
/** Keys of a marker that change no value. Others do (`convrot` rotates the weight). */
const HARMLESS_KEYS: readonly string[] = ["format", "full_precision_matrix_mult", "orig_dtype", "orig_shape"];
/** A marker is a line of JSON. */
const MAX_MARKER_BYTES = 4096;

/** Types a scale may have. */
const SCALE_DTYPES: readonly Dtype[] = ["F32", "F16", "BF16", "F64"];

export interface ScaledTensors {
  readonly tensors: readonly TensorInfo[];
  readonly warnings: readonly string[];
}

/**
 * The tensors of `weights` with the scales of float8 weights attached to them and scale, input-scale and
 * marker tensors taken out. Throws `E_PREQUANTIZED` for every other form of quantization, for a scale
 * without its weight and for a scale of a weight that is not float8.
 */
export async function attachSourceScales(weights: WeightSet): Promise<ScaledTensors> {
  const { files, tensors } = weights;
  // Nearly every name ends in one of these two, and none of those says anything of quantization.
  const others = tensors.filter(({ name }) => !name.endsWith(".weight") && !name.endsWith(".bias"));
  for (const tensor of tensors) refuseBlockType(tensor);
  for (const tensor of others) refuseQuantizedName(tensor);
  for (const metadata of weights.metadata) checkComfyMetadata(metadata);
  if (others.length === 0) return { tensors, warnings: [] };
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const scales = new Map<string, SourceScale>();
  const taken = new Set<string>();
  const warnings: string[] = [];
  for (const tensor of others) {
    const [prefix, leaf] = splitName(tensor.name);
    if (!WEIGHT_SCALES.includes(leaf)) continue;
    const weight = findWeight(byName, tensor, prefix);
    const scale = describeScale(tensor, weight);
    if (isFloat8(weight.dtype)) {
      if (scales.has(weight.name)) throw refuse(tensor, `${quoteName(weight.name)} has two scales`);
      scales.set(weight.name, scale);
    } else {
      warnings.push(await dropNeutralScale(files, scale, weight));
    }
    taken.add(tensor.name);
  }
  const inputScales: string[] = [];
  for (const tensor of others) {
    const [prefix, leaf] = splitName(tensor.name);
    if (INPUT_SCALES.includes(leaf)) {
      const hasScale = WEIGHT_SCALES.some((scaleLeaf) => taken.has(prefix + scaleLeaf));
      if (!hasScale) throw refuse(tensor, `there is no scale of "${prefix}weight" beside it`);
      inputScales.push(tensor.name);
    } else if (leaf === "comfy_quant") {
      const scale = scales.get(`${prefix}weight`);
      const weight = findWeight(byName, tensor, prefix);
      await checkComfyMarker(files, tensor, weight);
      if (scale === undefined) throw refuse(tensor, `"${prefix}weight" has no scale`);
    } else if (leaf !== "scaled_fp8" || countElements(tensor.shape) > 2) {
      continue;
    }
    taken.add(tensor.name);
  }
  const [first] = inputScales;
  if (first !== undefined) {
    warnings.push(`${inputScales.length} input scales of the float8 source left out, the first ${quoteName(first)}`);
  }
  const float8 = new Set(tensors.filter(({ dtype }) => isFloat8(dtype)).map(({ name }) => name));
  for (const tensor of others) if (!taken.has(tensor.name)) refuseUnknownScale(tensor, float8);
  return {
    tensors: tensors
      .filter(({ name }) => !taken.has(name))
      .map((tensor) => {
        const sourceScale = scales.get(tensor.name);
        return sourceScale === undefined ? tensor : { ...tensor, sourceScale };
      }),
    warnings,
  };
}

/**
 * The values of a scale: one, or one per row of the weight's 2-D view. Throws `E_NONFINITE` where one is
 * NaN or infinite.
 */
export async function readSourceScales(files: readonly SourceFile[], scale: SourceScale): Promise<Float32Array> {
  const bytes = await readTensorBytes(files, scale.location);
  const view = new DataView(bytes.buffer);
  const width = DTYPES[scale.dtype].bits / 8;
  const values = new Float32Array(bytes.length / width);
  for (let index = 0; index < values.length; index += 1) {
    const value = Math.fround(readScale(view, index * width, scale.dtype));
    if (!Number.isFinite(value)) {
      throw new ArrowQuantError("E_NONFINITE", `scale ${quoteName(scale.tensorName)}, value ${index}: ${value}`, {
        details: { tensor: scale.tensorName, index },
      });
    }
    values[index] = value;
  }
  return values;
}

function refuseBlockType(tensor: TensorInfo): void {
  if (DTYPES[tensor.dtype].kind !== "block") return;
  throw refuse(tensor, `type ${tensor.dtype} is a code or scale of a block format, which means nothing alone`);
}

function refuseQuantizedName(tensor: TensorInfo): void {
  if (!ANY_QUANTIZED_NAME.test(tensor.name)) return;
  const scheme = QUANTIZED_NAMES.find(({ ending }) => ending.test(tensor.name))?.scheme;
  throw refuse(tensor, `the name is one of ${scheme}`);
}

/** A tensor beside or below a float8 weight that looks like a parameter of its quantization. */
function refuseUnknownScale(tensor: TensorInfo, float8: ReadonlySet<string>): void {
  const { name } = tensor;
  const [prefix, leaf] = splitName(name);
  if (!SCALE_LIKE.test(leaf)) return;
  const weight = float8.has(`${prefix}weight`) ? `${prefix}weight` : findLongerNameOf(name, float8);
  if (weight === undefined || weight === name) return;
  throw refuse(tensor, `beside the float8 ${quoteName(weight)} it is no scale that is known`);
}

/** The float8 tensor that `name` extends (`experts_scale` and `experts:scale` extend `experts`). */
function findLongerNameOf(name: string, float8: ReadonlySet<string>): string | undefined {
  for (const { index } of name.matchAll(/[._:]/g)) {
    const stem = name.slice(0, index);
    if (float8.has(stem)) return stem;
  }
  return undefined;
}

function findWeight(byName: ReadonlyMap<string, TensorInfo>, scale: TensorInfo, prefix: string): TensorInfo {
  const weight = byName.get(`${prefix}weight`);
  if (weight === undefined) throw refuse(scale, `there is no ${quoteName(`${prefix}weight`)} that it belongs to`);
  return weight;
}

/** A scale by its shape: one number, or one per row (`[o]`, `[o, 1]`, …). Blocks and columns refused. */
function describeScale(tensor: TensorInfo, weight: TensorInfo): SourceScale {
  if (!SCALE_DTYPES.includes(tensor.dtype)) throw refuse(tensor, `a scale of type ${tensor.dtype} is not known`);
  const count = countElements(tensor.shape);
  const { rows } = viewAs2d(weight.shape);
  const isPerRow = tensor.shape[0] === rows && count === rows;
  if (count !== 1 && !isPerRow) {
    throw refuse(tensor, `shape [${tensor.shape}] is neither one number nor one per row of [${weight.shape}]`);
  }
  const per = count === 1 ? "tensor" : "row";
  return { tensorName: tensor.name, dtype: tensor.dtype, per, location: tensor.location };
}

/**
 * Some writers of "fp8 scaled" files give the layers they left in full precision a scale of 1. That one
 * changes nothing; any other would have to be applied to a weight that is not quantized.
 */
async function dropNeutralScale(files: readonly SourceFile[], scale: SourceScale, weight: TensorInfo): Promise<string> {
  const name = quoteName(scale.tensorName);
  const isNeutral = isFloat(weight.dtype) && (await readSourceScales(files, scale)).every((value) => value === 1);
  if (isNeutral) return `scale ${name} of the ${weight.dtype} ${quoteName(weight.name)} is 1 and was left out`;
  throw refuse({ name: scale.tensorName }, `${quoteName(weight.name)} is ${weight.dtype}, not float8`);
}

async function checkComfyMarker(files: readonly SourceFile[], marker: TensorInfo, weight: TensorInfo): Promise<void> {
  if (marker.dtype !== "U8" || marker.location.byteLength > MAX_MARKER_BYTES) {
    throw refuse(marker, `${marker.location.byteLength} bytes of ${marker.dtype} are no marker of a format`);
  }
  const bytes = await readTensorBytes(files, marker.location);
  const format = checkComfyLayer(parseJsonObject(bytes, `tensor ${quoteName(marker.name)}`), marker.name);
  if (weight.dtype !== COMFY_FORMATS[format]) {
    throw refuse(marker, `it says ${format}, ${quoteName(weight.name)} is ${weight.dtype}`);
  }
}

function checkComfyMetadata(metadata: ReadonlyMap<string, string>): void {
  const text = metadata.get("_quantization_metadata");
  if (text === undefined) return;
  const source = '"_quantization_metadata"';
  const layers = parseJsonObject(Buffer.from(text, "utf8"), source).get("layers");
  if (!isJsonObject(layers)) throw new ArrowQuantError("E_PREQUANTIZED", `${source} has no "layers" that can be read`);
  for (const [layer, settings] of layers) checkComfyLayer(settings, layer);
}

/** The format a ComfyUI marker names; refused where it is none of float8 with plain scales. */
function checkComfyLayer(settings: JsonValue, name: string): string {
  const format = isJsonObject(settings) ? settings.get("format") : settings;
  if (typeof format !== "string" || !Object.hasOwn(COMFY_FORMATS, format)) {
    const shown = typeof format === "string" ? quoteName(format) : describe(format);
    throw refuse({ name }, `its format, ${shown}, cannot be read`);
  }
  const unknown = isJsonObject(settings) ? [...settings.keys()].find((key) => !HARMLESS_KEYS.includes(key)) : undefined;
  if (unknown !== undefined) throw refuse({ name }, `its setting ${quoteName(unknown)} is not known`);
  return format;
}

async function readTensorBytes(files: readonly SourceFile[], location: TensorInfo["location"]): Promise<Uint8Array> {
  const file = files[location.file] as SourceFile;
  const bytes = new Uint8Array(location.byteLength);
  await withFile(file.path, (open) => readExactly(open, bytes, location.byteOffset));
  return bytes;
}

function readScale(view: DataView, at: number, dtype: Dtype): number {
  switch (dtype) {
    case "F64":
      return view.getFloat64(at, true);
    case "F16":
      return halfToNumber(view.getUint16(at, true));
    case "BF16": {
      const word = new DataView(new ArrayBuffer(4));
      word.setUint16(2, view.getUint16(at, true), true);
      return word.getFloat32(0, true);
    }
    default:
      return view.getFloat32(at, true);
  }
}

/** IEEE binary16: 1 sign, 5 exponent and 10 fraction bits. */
function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) return fraction === 0 ? sign * Infinity : NaN;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}

function isFloat8(dtype: Dtype): boolean {
  return dtype === "F8_E4M3" || dtype === "F8_E5M2";
}

/** A name as what is before its last segment (with the dot) and that segment. */
function splitName(name: string): readonly [prefix: string, leaf: string] {
  const at = name.lastIndexOf(".") + 1;
  return [name.slice(0, at), name.slice(at)];
}

function refuse(tensor: { readonly name: string }, reason: string): ArrowQuantError {
  const message = `${quoteName(tensor.name)}: already quantized, not in a way that can be read: ${reason}`;
  return new ArrowQuantError("E_PREQUANTIZED", message, {
    hint: "give the model in F32, F16, BF16, or float8 with one scale per tensor or row",
    details: { tensor: tensor.name, reason },
  });
}
