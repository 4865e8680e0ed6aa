/**
 * One tensor in memory, quantized and rebuilt in one call each: the kernels without files, threads or plans.
 */
import { ArrowQuantError } from "../errors.js";
import { type ChunkOutputs, ChunkQuantizer } from "../kernels/chunk-quantizer.js";
import { ChunkRebuilder } from "../kernels/chunk-rebuilder.js";
import { loadKernels } from "../kernels/load.js";
import { countElements, type QuantSpec, viewAs2d } from "../tensor/layout.js";
import { deriveMetrics, type ErrorMetrics } from "../tensor/metrics.js";
import { findMethod } from "./methods/index.js";
import { checkSpec } from "./methods/method.js";

/** What profile `local` does without calibration. */
const DEFAULT_SPEC: QuantSpec = {
  bits: 4,
  groupSize: 128,
  symmetric: false,
  method: "hqq",
  scaleBits: 6,
  zeroPointBits: 6,
  superGroupSize: 1024,
  weighting: "magnitude",
  preserveGain: true,
};

/** Bytes of float32 rows that are copied into the kernels' memory at a time. */
const SLAB_BYTES = 1024 * 1024;

export interface TensorOptions extends Partial<QuantSpec> {
  /** Outermost first, two dimensions or more. */
  readonly shape: readonly number[];
}

/** A quantized tensor: the parts of FORMAT.md over all its rows. */
export interface QuantizedTensor extends ChunkOutputs {
  readonly spec: QuantSpec;
  readonly shape: readonly number[];
  readonly metrics: ErrorMetrics;
}

/**
 * Quantizes `weights`, row-major in `shape`. Settings that are left out are those of profile `local`; without
 * `superGroupSize` there is one of 1024 where scales are coded, and `r2q` and symmetric need no zero points.
 * Throws `E_CONFIG`, `E_CONFLICT`, `E_SHAPE`, and `E_NONFINITE` with the position.
 */
export function quantizeTensor(weights: Float32Array, options: TensorOptions): QuantizedTensor {
  const { shape, ...given } = options;
  const spec: QuantSpec = {
    ...DEFAULT_SPEC,
    ...given,
    superGroupSize: given.superGroupSize ?? (given.scaleBits === null ? null : DEFAULT_SPEC.superGroupSize),
  };
  checkSpec(spec);
  const method = findMethod(spec.method);
  method.check(spec);
  checkShape(weights, shape);
  const { rows, cols } = viewAs2d(shape);
  const slabRows = Math.max(1, Math.floor(SLAB_BYTES / (4 * cols)));
  const quantizer = new ChunkQuantizer(loadKernels(), method, spec, {
    rows,
    cols,
    slabRows,
    dtype: "F32",
    sourceScale: "none",
  });
  for (let row = 0; row < rows; row += slabRows) {
    const rowCount = Math.min(slabRows, rows - row);
    quantizer.source(rowCount).set(bytesOf(weights.subarray(row * cols, (row + rowCount) * cols)));
    const bad = quantizer.quantize(rowCount);
    if (bad !== null) {
      throw new ArrowQuantError("E_NONFINITE", `weight at row ${bad.row}, column ${bad.col} is ${bad.value}`, {
        hint: "only finite weights up to 2^100 can be quantized",
        details: { ...bad },
      });
    }
  }
  const { data, scales, zeroPoints, scaleCodes, zeroPointCodes, residualScaleCodes } = quantizer.outputs();
  return {
    spec,
    shape,
    data: data.slice(),
    scales: scales.slice(),
    zeroPoints: zeroPoints?.slice() ?? null,
    scaleCodes: scaleCodes?.slice() ?? null,
    zeroPointCodes: zeroPointCodes?.slice() ?? null,
    residualScaleCodes: residualScaleCodes?.slice() ?? null,
    metrics: deriveMetrics(quantizer.sums()),
  };
}

/** The weights a reader rebuilds, row-major. */
export function rebuildTensor(tensor: QuantizedTensor): Float32Array {
  const { spec, shape } = tensor;
  const { rows, cols } = viewAs2d(shape);
  const slabRows = Math.max(1, Math.floor(SLAB_BYTES / (4 * cols)));
  const isR2q = spec.method === "r2q";
  const rebuilder = new ChunkRebuilder(
    loadKernels(),
    {
      ...tensor,
      bits: spec.bits,
      storageBits: spec.bits,
      groupSize: spec.groupSize,
      superGroupSize: spec.superGroupSize,
      scaleBits: spec.scaleBits,
      zeroPointBits: spec.symmetric || isR2q ? null : spec.zeroPointBits,
      isR2q,
      equalizationScales: null,
      rows,
      cols,
    },
    { slabRows, outDtype: "F32" },
  );
  const weights = new Float32Array(rows * cols);
  const bytes = bytesOf(weights);
  for (let row = 0; row < rows; row += slabRows) {
    bytes.set(rebuilder.rebuild(Math.min(slabRows, rows - row)), 4 * row * cols);
  }
  return weights;
}

function checkShape(weights: Float32Array, shape: readonly number[]): void {
  if (shape.length < 2) {
    throw new ArrowQuantError("E_SHAPE", `shape [${shape.join(", ")}] has fewer than two dimensions`, {
      hint: "such tensors are kept, not quantized",
      details: { shape },
    });
  }
  const expected = countElements(shape);
  if (expected !== weights.length || expected === 0) {
    throw new ArrowQuantError(
      "E_SHAPE",
      `shape [${shape.join(", ")}] has ${expected} elements, ${weights.length} are given`,
      {
        hint: "give at least one element, and the shape they have",
        details: { shape, given: weights.length },
      },
    );
  }
}

function bytesOf(floats: Float32Array): Uint8Array {
  return new Uint8Array(floats.buffer, floats.byteOffset, floats.byteLength);
}
