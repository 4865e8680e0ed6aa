/**
 * The type and shape that one tensor is stored in. The first rule that speaks decides:
 *
 * 1. No float type: as it is, where ggml has the type.
 * 2. More dimensions than loaders take: refused, or with `comfy` float32 in five.
 * 3. `--tensor-type`: the first pattern that matches, as far as rules 4 and 8 let it.
 * 4. Fewer than two dimensions, or no elements: float32.
 * 5. Parameters that are no layer's weight, which loaders read as plain floats.
 * 6. Small tensors.
 * 7. What the configuration or the architecture's keep table keeps.
 * 8. `--type`, or what stands in for it where rows are no whole blocks.
 *
 * Floats are kept as float16 where they are that, and as float32 otherwise: unlike bfloat16 every loader takes them
 * everywhere (gguf-py hands bfloat16 out as bytes, which diffusers and ComfyUI-GGUF undo for weights of layers only).
 */
import { ArrowQuantError } from "../../errors.js";
import { blockElements, GGUF_OUTPUT_TYPES, type GgufTypeName, ggmlTypeNumber } from "../../formats/gguf/output-type.js";
import { quoteName } from "../../formats/json.js";
import { DTYPES, type Dtype, isBlockQuantized, isFloat } from "../../tensor/dtype.js";
import type { TensorInfo } from "../../tensor/info.js";
import { countElements } from "../../tensor/layout.js";
import type { GgufTensorPlan, TensorTypeRule } from "./job.js";

/** GGML_MAX_DIMS. */
const MAX_DIMENSIONS = 4;

/** What ComfyUI-GGUF reads, through gguf-py: it stores the patch embeddings of video models so. */
const MAX_COMFY_DIMENSIONS = 5;

/** Tensors of no more elements save nothing (QUANTIZATION_THRESHOLD of ComfyUI-GGUF's convert.py). */
const SMALL_ELEMENTS = 1024;

/** ComfyUI-GGUF reshapes tensors from this many elements on (REARRANGE_THRESHOLD), to rows of a super-block. */
const RESHAPED_ELEMENTS = 512;
const RESHAPED_COLUMNS = 256;

/** What decides about one tensor. */
export interface TensorCase {
  readonly tensor: TensorInfo;
  /** In the file. */
  readonly name: string;
  readonly type: GgufTypeName;
  readonly asked: TensorTypeRule | null;
  readonly comfy: boolean;
  /** Tensors whose rows no block divides become rows of 256. */
  readonly reshapes: boolean;
  readonly plainNames: readonly string[];
  /** Why the configuration or the keep table keeps it; null: it does not. */
  readonly keepReason: string | null;
  /** What it was kept as before; null: what the source is. */
  readonly keptDtype: Dtype | null;
}

export type TensorStorage = Pick<GgufTensorPlan, "dtype" | "shape" | "reason" | "vetoed">;

/** @throws E_DTYPE, E_SHAPE */
export function chooseStorage(tensorCase: TensorCase): TensorStorage {
  const { tensor, asked, comfy, type } = tensorCase;
  const { shape, dtype } = tensor;
  const wanted = asked?.type ?? type;
  const rule = asked === null ? `--type ${type}` : `--tensor-type "${asked.pattern}": ${asked.type}`;
  const veto = (stored: Dtype, why: string): TensorStorage => ({
    dtype: stored,
    shape,
    reason: asked === null ? why : `${why}; ${rule} cannot be had`,
    vetoed: asked !== null,
  });
  if (!isFloat(dtype)) {
    if (ggmlTypeNumber(dtype) === null) throw refuseDtype(tensor);
    return veto(dtype, `kept: ${DTYPES[dtype].kind} type ${dtype}`);
  }
  if (shape.length > MAX_DIMENSIONS) {
    if (!comfy || shape.length > MAX_COMFY_DIMENSIONS) throw refuseDimensions(tensor, comfy);
    return veto("F32", "five dimensions: float32, as ComfyUI-GGUF stores them");
  }
  if (countElements(shape) === 0) return veto(plainDtype(tensorCase), "no elements");
  if (shape.length < 2) {
    // gguf-py hands bfloat16 out as bytes, of which only weights of layers are undone.
    if (asked?.type === "f16" || asked?.type === "f32") return store(tensorCase, wanted, rule);
    return veto("F32", "fewer than 2 dimensions: float32");
  }
  if (asked !== null) return store(tensorCase, wanted, rule);
  const kept = keepReasonOf(tensorCase);
  return kept === null
    ? store(tensorCase, wanted, rule)
    : { dtype: plainDtype(tensorCase), shape, reason: kept, vetoed: false };
}

function keepReasonOf({ tensor, name, plainNames, keepReason }: TensorCase): string | null {
  const plain = plainNames.find((part) => name.includes(part));
  if (plain !== undefined) return `keep "${plain}": loaders read it as plain floats`;
  // A matrix that a graph multiplies with is a weight whatever its name.
  if (!name.endsWith("weight") && !tensor.transposed) return "keep: a parameter that is no layer's weight";
  if (countElements(tensor.shape) <= SMALL_ELEMENTS) return `keep: no more than ${SMALL_ELEMENTS} elements`;
  return keepReason;
}

/** The float type that loses nothing and that every loader reads. */
function plainDtype({ tensor, keptDtype }: TensorCase): Dtype {
  const dtype = keptDtype ?? tensor.dtype;
  return dtype === "F16" && tensor.sourceScale === null ? "F16" : "F32";
}

/** As `wanted`, or as what stands in for it where rows are no whole blocks. */
function store(tensorCase: TensorCase, wanted: GgufTypeName, rule: string): TensorStorage {
  const { tensor } = tensorCase;
  const { dtype } = GGUF_OUTPUT_TYPES[wanted];
  if (dtype === tensor.dtype && isBlockQuantized(dtype)) {
    return { dtype, shape: tensor.shape, reason: `${rule}, copied: it is that already`, vetoed: false };
  }
  const shape = storedShape(tensorCase, dtype);
  const rowLength = shape.at(-1) ?? 1;
  if (rowLength % blockElements(dtype) === 0) {
    const note = shape === tensor.shape ? "" : `, as rows of ${RESHAPED_COLUMNS}`;
    return { dtype, shape, reason: rule + note, vetoed: false };
  }
  const why = `rows of ${rowLength} are no whole blocks of ${blockElements(dtype)}`;
  for (
    let name: GgufTypeName | null = GGUF_OUTPUT_TYPES[wanted].fallback;
    name !== null;
    name = GGUF_OUTPUT_TYPES[name].fallback
  ) {
    const standIn = GGUF_OUTPUT_TYPES[name].dtype;
    if (rowLength % blockElements(standIn) !== 0) continue;
    return { dtype: standIn, shape: tensor.shape, reason: `${rule}; ${name}: ${why}`, vetoed: true };
  }
  throw new ArrowQuantError("E_INTERNAL", `no type for ${quoteName(tensor.name)}`);
}

/** Rows of 256 where ComfyUI-GGUF would make them, and there is something to win. */
function storedShape({ tensor, reshapes }: TensorCase, dtype: Dtype): readonly number[] {
  const { shape, sourceScale, transposed } = tensor;
  const count = countElements(shape);
  const isReshaped =
    reshapes &&
    isBlockQuantized(dtype) &&
    count >= RESHAPED_ELEMENTS &&
    count % RESHAPED_COLUMNS === 0 &&
    // Rows of its own that are whole blocks any loader reads.
    (shape.at(-1) ?? 1) % blockElements(dtype) !== 0 &&
    // Rows that the source knows would be parts of these rows.
    sourceScale?.per !== "row" &&
    !transposed;
  return isReshaped ? [count / RESHAPED_COLUMNS, RESHAPED_COLUMNS] : shape;
}

function refuseDtype({ name, dtype }: TensorInfo): ArrowQuantError {
  return new ArrowQuantError("E_DTYPE", `${quoteName(name)} is ${dtype}, which GGUF has no type for`, {
    hint: "GGUF holds floats and signed integers: take the tensor out of the model, or write a .parquet file",
    details: { tensor: name, dtype },
  });
}

function refuseDimensions({ name, shape }: TensorInfo, comfy: boolean): ArrowQuantError {
  const limit = comfy ? MAX_COMFY_DIMENSIONS : MAX_DIMENSIONS;
  const message = `${quoteName(name)} is [${shape}], ${shape.length} dimensions, ${comfy ? "ComfyUI-GGUF" : "ggml"} has ${limit}`;
  return new ArrowQuantError("E_SHAPE", message, {
    hint: comfy
      ? "there is no loader for it"
      : "--comfy stores five dimensions as ComfyUI-GGUF and diffusers read them",
    details: { tensor: name, shape, limit },
  });
}
