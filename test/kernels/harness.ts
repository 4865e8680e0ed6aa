/** Runs the kernels of one build over a tensor in memory and copies everything out. */
import { type ChunkOutputs, ChunkQuantizer, type InputQuantization } from "../../dist/kernels/chunk-quantizer.js";
import { ChunkRebuilder } from "../../dist/kernels/chunk-rebuilder.js";
import { Converter, type OutDtype } from "../../dist/kernels/converter.js";
import { KERNEL_BUILDS, type KernelBuild, type Kernels, loadKernels } from "../../dist/kernels/load.js";
import { findMethod } from "../../dist/quantize/methods/index.js";
import { DTYPES, type Dtype } from "../../dist/tensor/dtype.js";
import type { QuantSpec } from "../../dist/tensor/layout.js";
import type { ErrorSums, OutputSums } from "../../dist/tensor/metrics.js";
import type { StoredChunk } from "../../dist/tensor/stored.js";
import { type FactoredHessian, syntheticFactor } from "./hessians.js";

export { KERNEL_BUILDS };

const instances = new Map<KernelBuild, Kernels>();

/** One instance per build, its memory dirty from whatever ran before: results must not depend on it. */
export function kernelsOf(build: KernelBuild): Kernels {
  const kernels = instances.get(build) ?? loadKernels({ build });
  instances.set(build, kernels);
  return kernels;
}

export function specOf(spec: Partial<QuantSpec> = {}): QuantSpec {
  const scaleBits = spec.scaleBits ?? null;
  return {
    bits: 4,
    groupSize: 32,
    symmetric: false,
    method: "rtn",
    scaleBits,
    zeroPointBits: null,
    superGroupSize: scaleBits === null ? null : 1024,
    weighting: "none",
    preserveGain: false,
    ...spec,
  };
}

export interface SourceTensor {
  rows: number;
  cols: number;
  dtype: Dtype;
  bytes: Uint8Array;
  /** One, or one per row. */
  scales?: Float32Array;
  /** One per column. */
  importance?: Float32Array;
  /** One per input channel. */
  equalizationScales?: Float32Array;
  /** gptq takes `syntheticFactor` where it is left out. */
  hessian?: FactoredHessian;
  /** [rows, cols] */
  heldBack?: { rows: Float32Array; activations?: InputQuantization };
}

export function floatSource(weights: Float32Array, cols: number): SourceTensor {
  return { rows: weights.length / cols, cols, dtype: "F32", bytes: bytesOf(weights) };
}

export function bytesOf(array: ArrayBufferView): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

function scaleMode(source: SourceTensor) {
  if (source.scales === undefined) return "none";
  return source.scales.length === 1 ? "tensor" : "row";
}

interface SlabReader {
  source(rowCount: number): Uint8Array;
  sourceScales(): Float32Array;
}

function feed(source: SourceTensor, into: SlabReader, row: number, rowCount: number): void {
  const rowBytes = (source.cols * DTYPES[source.dtype].bits) / 8;
  into.source(rowCount).set(source.bytes.subarray(row * rowBytes, (row + rowCount) * rowBytes));
  if (source.scales !== undefined) {
    into.sourceScales().set(source.scales.length === 1 ? source.scales : source.scales.subarray(row, row + rowCount));
  }
}

/** `outputSums` where inputs are held back. */
export type Quantized = ChunkOutputs & { sums: ErrorSums; outputSums?: OutputSums };

export function quantize(
  build: KernelBuild,
  source: SourceTensor,
  spec: QuantSpec,
  slabRows: number = source.rows,
): Quantized {
  const { rows, cols, dtype, importance, equalizationScales, heldBack } = source;
  const hessian = source.hessian ?? (spec.method === "gptq" ? syntheticFactor(cols) : undefined);
  const quantizer = new ChunkQuantizer(kernelsOf(build), findMethod(spec.method), spec, {
    rows,
    cols,
    slabRows,
    dtype,
    sourceScale: scaleMode(source),
    ...(importance === undefined ? {} : { importance }),
    ...(equalizationScales === undefined ? {} : { equalizationScales }),
    ...(hessian === undefined ? {} : { hessian }),
    ...(heldBack === undefined
      ? {}
      : { heldBack: { rowCount: heldBack.rows.length / cols, activations: heldBack.activations ?? null } }),
  });
  if (hessian !== undefined) quantizer.factor().set(hessian.factor);
  quantizer.readHeldBack((firstRow, into) => {
    const { rows } = heldBack as NonNullable<SourceTensor["heldBack"]>;
    into.set(rows.subarray(firstRow * cols, firstRow * cols + into.length));
  });
  for (let row = 0; row < rows; row += slabRows) {
    const rowCount = Math.min(slabRows, rows - row);
    feed(source, quantizer, row, rowCount);
    const bad = quantizer.quantize(rowCount);
    if (bad !== null) throw Object.assign(new Error(`bad weight ${bad.value} at ${bad.row}, ${bad.col}`), bad);
  }
  const outputs = quantizer.outputs();
  return {
    data: outputs.data.slice(),
    scales: outputs.scales.slice(),
    zeroPoints: outputs.zeroPoints?.slice() ?? null,
    scaleCodes: outputs.scaleCodes?.slice() ?? null,
    zeroPointCodes: outputs.zeroPointCodes?.slice() ?? null,
    residualScaleCodes: outputs.residualScaleCodes?.slice() ?? null,
    sums: quantizer.sums(),
    ...(heldBack === undefined ? {} : { outputSums: quantizer.outputSums() }),
  };
}

export function storedOf(
  quantized: ChunkOutputs,
  spec: QuantSpec,
  rows: number,
  cols: number,
  equalizationScales: Float32Array | null = null,
): StoredChunk {
  const isR2q = spec.method === "r2q";
  return {
    bits: spec.bits,
    storageBits: spec.bits,
    groupSize: spec.groupSize,
    superGroupSize: spec.superGroupSize,
    scaleBits: spec.scaleBits,
    zeroPointBits: spec.symmetric || isR2q ? null : spec.zeroPointBits,
    isR2q,
    rows,
    cols,
    data: quantized.data,
    scales: quantized.scales,
    zeroPoints: quantized.zeroPoints,
    scaleCodes: quantized.scaleCodes,
    zeroPointCodes: quantized.zeroPointCodes,
    residualScaleCodes: quantized.residualScaleCodes,
    equalizationScales,
  };
}

export function rebuild(
  build: KernelBuild,
  stored: StoredChunk,
  outDtype: OutDtype = "F32",
  slabRows: number = stored.rows,
): Uint8Array {
  const rebuilder = new ChunkRebuilder(kernelsOf(build), stored, { slabRows, outDtype });
  const parts: Uint8Array[] = [];
  for (let row = 0; row < stored.rows; row += slabRows) {
    parts.push(rebuilder.rebuild(Math.min(slabRows, stored.rows - row)).slice());
  }
  return new Uint8Array(Buffer.concat(parts));
}

export function rebuildFloats(build: KernelBuild, stored: StoredChunk): Float32Array {
  return new Float32Array(rebuild(build, stored).buffer);
}

export function compare(
  build: KernelBuild,
  stored: StoredChunk,
  source: SourceTensor,
  slabRows: number = stored.rows,
): ErrorSums {
  const rebuilder = new ChunkRebuilder(kernelsOf(build), stored, {
    slabRows,
    sourceDtype: source.dtype,
    sourceScale: scaleMode(source),
  });
  for (let row = 0; row < stored.rows; row += slabRows) {
    const rowCount = Math.min(slabRows, stored.rows - row);
    feed(source, rebuilder, row, rowCount);
    const bad = rebuilder.compare(rowCount);
    if (bad !== null) throw Object.assign(new Error(`bad weight ${bad.value} at ${bad.row}, ${bad.col}`), bad);
  }
  return rebuilder.sums();
}

export function convert(
  build: KernelBuild,
  source: SourceTensor,
  outDtype: OutDtype,
  slabRows: number = source.rows,
): Uint8Array {
  const converter = new Converter(kernelsOf(build), {
    cols: source.cols,
    slabRows,
    sourceDtype: source.dtype,
    sourceScale: scaleMode(source),
    outDtype,
  });
  const parts: Uint8Array[] = [];
  for (let row = 0; row < source.rows; row += slabRows) {
    const rowCount = Math.min(slabRows, source.rows - row);
    feed(source, converter, row, rowCount);
    parts.push(converter.convert(rowCount).slice());
  }
  return new Uint8Array(Buffer.concat(parts));
}

/** Deterministic normal numbers, for tests that need many. */
export function gaussians(count: number, seed: number, deviation = 0.05): Float32Array {
  let state = seed >>> 0 || 1;
  const uniform = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return ((state >>> 0) + 0.5) / 2 ** 32;
  };
  return Float32Array.from(
    { length: count },
    () => deviation * Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()),
  );
}
