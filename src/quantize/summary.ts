/** Figures over the layers of a run, quantized or validated. */
import { addSums, deriveMetrics, type ErrorMetrics, zeroSums } from "../tensor/metrics.js";

export interface Summary {
  readonly tensors: number;
  readonly quantized: number;
  readonly kept: number;
  readonly parameters: number;
  /** Bytes of all source tensors, and of the written file or files. */
  readonly bytesIn: number;
  readonly bytesOut: number;
  readonly compressionRatio: number;
  /** Over the quantized tensors: codes, scales and zero points; null when nothing is quantized. */
  readonly bitsPerWeight: number | null;
  /** Over the quantized tensors together; null when nothing is quantized. */
  readonly metrics: ErrorMetrics | null;
  readonly seconds: number;
}

/** What a layer adds to a summary. */
interface SummarizedLayer {
  readonly parameterCount: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
  /** null when kept. */
  readonly metrics: ErrorMetrics | null;
}

/** @param bytesOut length of the written file or files */
export function summarizeLayers(layers: readonly SummarizedLayer[], bytesOut: number, seconds: number): Summary {
  const quantized = layers.filter(({ metrics }) => metrics !== null);
  const bytesIn = sumOver(layers, ({ bytesIn }) => bytesIn);
  const quantizedParameters = sumOver(quantized, ({ parameterCount }) => parameterCount);
  return {
    tensors: layers.length,
    quantized: quantized.length,
    kept: layers.length - quantized.length,
    parameters: sumOver(layers, ({ parameterCount }) => parameterCount),
    bytesIn,
    bytesOut,
    compressionRatio: bytesIn / bytesOut,
    bitsPerWeight:
      quantizedParameters === 0 ? null : (8 * sumOver(quantized, (layer) => layer.bytesOut)) / quantizedParameters,
    metrics: totalMetrics(layers),
    seconds,
  };
}

/** Metrics of all quantized layers together; null without any. */
export function totalMetrics(layers: readonly Pick<SummarizedLayer, "metrics">[]): ErrorMetrics | null {
  const sums = zeroSums();
  const measured = layers.flatMap(({ metrics }) => (metrics === null ? [] : [metrics]));
  for (const metrics of measured) addSums(sums, metrics);
  return measured.length === 0 ? null : deriveMetrics(sums);
}

function sumOver<T>(items: readonly T[], value: (item: T) => number): number {
  return items.reduce((sum, item) => sum + value(item), 0);
}
