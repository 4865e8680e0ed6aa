/**
 * Entropy of a layer's weights: an older heuristic for how many bits a layer needs, kept to be compared with. It sees
 * how evenly weights fill their range, not what becomes of the layer's output.
 */
import type { Session } from "../../engine/session.js";
import { WeightHistogram } from "../../kernels/weight-histogram.js";
import { DTYPES } from "../../tensor/dtype.js";
import type { NonFiniteWeight, SourceRows } from "../../worker/messages.js";
import { scaleKind } from "../../worker/source.js";
import type { EntropyClass } from "./table.js";

/** Bins of the heuristic: one per code of 8 bits. */
const BINS = 256;

/** Least normalised entropy of each class above the lowest. */
const THRESHOLDS = { medium: 0.5, high: 0.7 } as const;

export interface WeightEntropy {
  /** −Σ p log p over log 256: 0 … 1. */
  readonly entropy: number;
  readonly entropyClass: EntropyClass;
}

/** −Σ p log p over the log of the number of bins; 0 of no weights at all. */
export function normalizedEntropy(counts: Float64Array): number {
  const total = counts.reduce((sum, count) => sum + count, 0);
  let entropy = 0;
  for (const count of counts) if (count > 0) entropy -= (count / total) * Math.log(count / total);
  return entropy / Math.log(counts.length);
}

export function classifyEntropy(entropy: number): EntropyClass {
  return entropy < THRESHOLDS.medium ? "low" : entropy < THRESHOLDS.high ? "medium" : "high";
}

/**
 * The entropy of all rows of a tensor, counted by a worker.
 * @throws E_MEMORY where one row does not fit a worker's arena
 */
export async function countHistogram(
  source: SourceRows,
  session: Session,
  signal: AbortSignal,
): Promise<{ readonly entropy: WeightEntropy | null; readonly nonFinite: NonFiniteWeight | null }> {
  const { cols, dtype, scales, rows, tensorName } = source;
  const rowBytes = (cols * DTYPES[dtype].bits) / 8;
  const slabRows = Math.max(1, Math.min(rows, Math.floor(session.slabBytes / rowBytes)));
  const shape = { cols, dtype, sourceScale: scaleKind(scales), bins: BINS };
  const neededBytes = WeightHistogram.bytesNeeded({ ...shape, slabRows });
  const lackBytes = Math.max(0, neededBytes - session.arenaBytes);
  if (lackBytes > 0) throw session.memoryError(`"${tensorName}"`, lackBytes, 0);
  const { counts, nonFinite } = await session.run({ kind: "histogram", source, bins: BINS, slabRows }, [], signal);
  if (nonFinite !== null) return { entropy: null, nonFinite };
  const entropy = normalizedEntropy(counts);
  return { entropy: { entropy, entropyClass: classifyEntropy(entropy) }, nonFinite };
}
