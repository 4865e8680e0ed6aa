/** In which form each quantized layer of a native file goes into a graph, decided before anything is written. */
import { ArrowQuantError } from "../errors.js";
import type { ModelProto } from "../formats/onnx/onnx-pb.js";
import { raiseOpset } from "../formats/onnx/opset.js";
import type { OnnxFile, OnnxInitializer } from "../formats/onnx/read.js";
import type { NativeFile, NativeRowHeader } from "../formats/parquet/reader.js";
import { QUANT_TYPES } from "../formats/parquet/row.js";
import type { GraphLayer } from "../graph/layers.js";
import { canBeMatMulNBits, MATMUL_BLOCK, type QuantizedForm, type QuantizedWeight } from "../graph/quantized-weight.js";
import { viewAs2d } from "../tensor/layout.js";
import type { QuantizePlan } from "./result.js";

/** A quantized layer, and where the graph multiplies with its weight. */
interface OnnxLayer {
  readonly row: NativeRowHeader;
  readonly layers: readonly GraphLayer[];
}

interface OnnxForms {
  readonly weights: readonly QuantizedWeight[];
  /** Why convolutions and others are spelled out in arithmetic although their zero points are whole; null: none is. */
  readonly opsetReason: string | null;
}

/** Widths that ONNX Runtime's MatMulNBits runs, and that divide the bytes which the arithmetic shifts codes out of. */
const WIDTHS: readonly number[] = [2, 4, 8];

/** MatMulNBits with float32 zero points: ONNX Runtime 1.30 runs it at these widths; at 8 bits its CPU has no kernel. */
const FLOAT_ZERO_POINT_WIDTHS: readonly number[] = [2, 4];

/** Widths of DequantizeLinear's types: uint4 and uint8. */
const DEQUANTIZE_WIDTHS: readonly number[] = [4, 8];

/** Layers named in an error; all of them stand in its details. */
const MAX_NAMED = 3;

/**
 * Chooses forms, and raises the operator set of `model`, a copy of the file's, where one of them needs it.
 * @param rowGroups the row groups that hold each layer
 * @throws E_CONFLICT for layers that no form gives exactly, errors of reading
 */
export async function planOnnxForms(
  native: NativeFile,
  file: OnnxFile,
  model: ModelProto,
  layers: readonly OnnxLayer[],
  rowGroups: ReadonlyMap<string, readonly number[]>,
): Promise<OnnxForms> {
  assertExpressible(layers);
  const whole = await findWholeZeroPoints(native, layers, rowGroups);
  const drafts = layers.map((layer) => draftWeight(file, model, layer, whole.has(layer.row.layerName)));
  const needsBlocks = drafts.some(({ form }) => form.kind === "dequantize-linear");
  const opsetReason = needsBlocks ? raiseOpset(model) : null;
  const weights = opsetReason === null ? drafts : drafts.map(withoutDequantizeLinear);
  return { weights, opsetReason };
}

/** Refuses what a graph could not hold once it is quantized so. @throws E_CONFLICT */
export function assertPlanExpressible({ components }: Pick<QuantizePlan, "components">): void {
  const layers = components.flatMap((component) => component.layers);
  refuseInexpressible(
    layers.flatMap(({ tensor, spec }) =>
      spec === null ? [] : [{ name: tensor.name, bits: spec.bits, method: spec.method }],
    ),
  );
}

function assertExpressible(layers: readonly OnnxLayer[]): void {
  refuseInexpressible(
    layers.map(({ row }) => ({ name: row.layerName, bits: QUANT_TYPES[row.quantType], method: row.method })),
  );
}

interface LayerCoding {
  readonly name: string;
  readonly bits: number;
  readonly method: string | null;
}

function refuseInexpressible(layers: readonly LayerCoding[]): void {
  const refused = layers.flatMap((layer) => {
    const reason = findObstacle(layer);
    return reason === null ? [] : [{ name: layer.name, ...reason }];
  });
  const [first] = refused;
  if (first === undefined) return;
  const shown = refused.slice(0, MAX_NAMED).map(({ name, reason }) => `"${name}" (${reason})`);
  const more = refused.length > shown.length ? ` and ${refused.length - shown.length} more` : "";
  throw new ArrowQuantError("E_CONFLICT", `ONNX cannot hold ${refused.length} layers: ${shown.join(", ")}${more}`, {
    hint: first.hint,
    details: { layers: refused.map(({ name, reason }) => ({ name, reason })) },
  });
}

function findObstacle({ bits, method }: LayerCoding): { reason: string; hint: string } | null {
  if (method === "r2q") return { reason: "method r2q has no zero points", hint: "quantize with another --method" };
  if (WIDTHS.includes(bits)) return null;
  return { reason: `${bits} bits`, hint: `ONNX Runtime runs ${WIDTHS.join(", ")} bits: quantize with one of them` };
}

/** Names of the layers with whole zero points only; read are the rows of those whose headers do not tell. */
async function findWholeZeroPoints(
  native: NativeFile,
  layers: readonly OnnxLayer[],
  rowGroups: ReadonlyMap<string, readonly number[]>,
): Promise<Set<string>> {
  const whole = new Set<string>();
  for (const { row } of layers) {
    const { layerName, zeroPointBits, quantType } = row;
    const bits = QUANT_TYPES[quantType];
    const isWhole =
      zeroPointBits === null
        ? await readsWhole(native, layerName, bits, rowGroups.get(layerName) ?? [])
        : // Steps of (2^bits − 1) / (2^zeroPointBits − 1).
          bits % zeroPointBits === 0;
    if (isWhole) whole.add(layerName);
  }
  return whole;
}

async function readsWhole(
  native: NativeFile,
  layerName: string,
  bits: number,
  rowGroups: readonly number[],
): Promise<boolean> {
  const largest = 2 ** bits - 1;
  for await (const row of native.rows({ rowGroups })) {
    if (row.layerName !== layerName || row.zeroPoints === null) continue;
    if (!row.zeroPoints.every((value) => Number.isInteger(value) && value >= 0 && value <= largest)) return false;
  }
  return true;
}

function draftWeight(file: OnnxFile, model: ModelProto, { row, layers }: OnnxLayer, isWhole: boolean): QuantizedWeight {
  const { rows, cols } = viewAs2d(row.shape);
  const bits = QUANT_TYPES[row.quantType];
  const scales = row.spatial?.equalizationScales ?? null;
  const names = [...new Set(layers.map(({ initializer }) => initializer))];
  const initializers = names.map((name) => ({
    initializer: file.initializers.get(name) as OnnxInitializer,
    layers: layers.filter(({ initializer }) => initializer === name),
  }));
  // A plain V2 file's may be one of a row, or one of a column.
  const groupSize = Math.min(row.groupSize ?? (row.quantAxis === 1 ? 1 : cols), cols);
  const isProduct = initializers.every(({ initializer, layers: uses }) =>
    uses.every((layer) => canBeMatMulNBits(model, layer, initializer)),
  );
  return {
    tensorName: row.layerName,
    rows,
    cols,
    bits,
    form: chooseForm({ bits, cols, groupSize, isWhole, isProduct }),
    equalizationScales: scales === null || scales.length === 0 ? null : scales,
    initializers,
  };
}

interface FormFacts {
  readonly bits: number;
  readonly cols: number;
  readonly groupSize: number;
  readonly isWhole: boolean;
  readonly isProduct: boolean;
}

function chooseForm({ bits, cols, groupSize, isWhole, isProduct }: FormFacts): QuantizedForm {
  const matmulBlock = isProduct ? chooseMatMulBlock(groupSize, cols) : null;
  if (matmulBlock !== null && (isWhole || FLOAT_ZERO_POINT_WIDTHS.includes(bits))) {
    return { kind: "matmul-nbits", blockSize: matmulBlock, zeroPoints: isWhole ? "packed" : "float32" };
  }
  if (isWhole && DEQUANTIZE_WIDTHS.includes(bits) && (cols * bits) % 8 === 0) {
    return { kind: "dequantize-linear", blockSize: groupSize, zeroPoints: "packed" };
  }
  return { kind: "arithmetic", blockSize: groupSize, zeroPoints: "float32" };
}

/**
 * The largest block that MatMulNBits takes and that the group size is a multiple of; a scale stands for several blocks
 * where it is smaller than the group. null where there is none.
 */
function chooseMatMulBlock(groupSize: number, cols: number): number | null {
  let block: number = MATMUL_BLOCK.most;
  // A group as long as the row ends with it, whatever the block.
  while (groupSize < cols && groupSize % block !== 0) block /= 2;
  while (block / 2 >= cols) block /= 2;
  return block >= MATMUL_BLOCK.least ? block : groupSize >= cols ? MATMUL_BLOCK.least : null;
}

function withoutDequantizeLinear(weight: QuantizedWeight): QuantizedWeight {
  if (weight.form.kind !== "dequantize-linear") return weight;
  return { ...weight, form: { kind: "arithmetic", blockSize: weight.form.blockSize, zeroPoints: "float32" } };
}
