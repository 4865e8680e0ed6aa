/** What calibration knows of one layer, in the form the kernels take. */
import type { LayerStatistics } from "../calibration/statistics.js";
import type { ActivationStats } from "../formats/parquet/row.js";
import type { FloatPlace } from "../worker/messages.js";

export interface LayerCalibration {
  /** Name of the layer's input in the graph: layers of the same input share statistics. */
  readonly value: string;
  /**
   * float32[cols], mean one: second moment of each column of the 2-D view, over all calibration samples. null of a
   * grouped convolution, whose columns meet other channels in other rows.
   */
  readonly importance: Float32Array | null;
  /**
   * float32[channels]: largest magnitude over all times (DiTAS, arXiv 2409.07756); null where it is not known, or a
   * column meets more than one channel.
   */
  readonly channelMaxima: Float32Array | null;
  /** Consecutive columns of one input channel. */
  readonly colsPerChannel: number;
  /** float32[cols, cols]: XᵀX/n; null where none could be taken. */
  readonly hessian: FloatPlace | null;
  /** float32[rowCount, cols]: rows of the input that the statistics have not seen. */
  readonly heldBack: (FloatPlace & { readonly rowCount: number }) | null;
  readonly statistics: LayerStatistics;
  /** null where second moments are all that is known. */
  readonly activationStats: ActivationStats | null;
}

export function layerCalibration(statistics: LayerStatistics): LayerCalibration {
  const { channels, cols, colsPerChannel, count, secondMomentsOnly } = statistics;
  // Bins weigh by what passed through them, that is, as the sampler visits the times.
  const secondMoments = averageBins(statistics.meansq, count, channels);
  const isGrouped = channels * colsPerChannel !== cols;
  return {
    value: statistics.value,
    importance: isGrouped ? null : normalizeImportance(secondMoments, colsPerChannel),
    channelMaxima: isGrouped || secondMomentsOnly ? null : maximaOverBins(statistics.absmax, channels),
    colsPerChannel,
    hessian: statistics.hessian,
    heldBack: statistics.heldBack,
    statistics,
    activationStats: secondMomentsOnly ? null : activationStats(statistics, secondMoments),
  };
}

/** Values per bin and channel, averaged over bins by their counts. */
function averageBins(values: Float32Array, counts: Float64Array, channels: number): Float64Array {
  const averaged = new Float64Array(channels);
  const total = sum(counts);
  if (total === 0) return averaged;
  for (const [bin, count] of counts.entries()) {
    const weight = count / total;
    if (weight === 0) continue;
    for (let c = 0; c < channels; c++)
      averaged[c] = (averaged[c] as number) + weight * (values[bin * channels + c] as number);
  }
  return averaged;
}

function maximaOverBins(absmax: Float32Array, channels: number): Float32Array {
  const maxima = new Float32Array(channels);
  for (const [index, value] of absmax.entries()) {
    const channel = index % channels;
    if (value > (maxima[channel] as number)) maxima[channel] = value;
  }
  return maxima;
}

/**
 * Second moments as importances of columns, of mean one; all ones where nothing ever passed. A channel that was
 * always zero has importance zero: whatever its weights become, the output stays.
 */
function normalizeImportance(secondMoments: Float64Array, colsPerChannel: number): Float32Array {
  const importance = new Float32Array(secondMoments.length * colsPerChannel);
  const mean = sum(secondMoments) / secondMoments.length;
  if (!(mean > 0)) return importance.fill(1);
  for (const [channel, moment] of secondMoments.entries()) {
    importance.fill(moment / mean, channel * colsPerChannel, (channel + 1) * colsPerChannel);
  }
  return importance;
}

function activationStats(statistics: LayerStatistics, secondMoments: Float64Array): ActivationStats {
  const { min, max, count, channels } = statistics;
  if (sum(count) === 0) return { mean: 0, std: 0, min: 0, max: 0 };
  // Every channel has as many elements as any other.
  const mean = sum(averageBins(statistics.mean, count, channels)) / channels;
  const moment = sum(secondMoments) / channels;
  return {
    mean,
    std: Math.sqrt(Math.max(0, moment - mean * mean)),
    min: min.reduce((least, value) => Math.min(least, value), Infinity),
    max: max.reduce((largest, value) => Math.max(largest, value), -Infinity),
  };
}

/**
 * The importance of columns once the input is divided by `scales`, E[(x/s)²] = E[x²]/s², of mean one again.
 * @param norm p of the error |x·(w − ŵ)|^p that the method reduces: importances of squared errors are raised to p/2
 */
export function equalizeImportance(
  importance: Float32Array | null,
  scales: Float32Array | null,
  colsPerChannel: number,
  norm = 2,
): Float32Array | null {
  if (importance === null || (scales === null && norm === 2)) return importance;
  const equalized = new Float32Array(importance.length);
  let total = 0;
  for (const [col, value] of importance.entries()) {
    const scale = scales === null ? 1 : (scales[Math.floor(col / colsPerChannel)] as number);
    const divided = (value / scale / scale) ** (norm / 2);
    equalized[col] = divided;
    total += divided;
  }
  if (!(total > 0)) return equalized.fill(1);
  const factor = importance.length / total;
  for (const [col, value] of equalized.entries()) equalized[col] = value * factor;
  return equalized;
}

/** A channel that would need more than this is next to dead on one side, and its error next to nothing. */
const MAX_SCALE_RATIO = 1e4;

/**
 * s_c = a_c^α / w_c^(1−α) (SmoothQuant, arXiv 2211.10438, eq. 4), of geometric mean one, since a common factor changes
 * nothing. Channels that are zero on either side keep 1.
 * @param activations float32[channels], largest magnitude of the input
 * @param weights float32[channels], largest magnitude of the weights that it meets
 */
export function smoothingScales(activations: Float32Array, weights: Float32Array, alpha: number): Float32Array {
  const logs = new Float64Array(activations.length);
  let total = 0;
  let live = 0;
  for (const [channel, a] of activations.entries()) {
    const w = weights[channel] as number;
    if (!(a > 0 && w > 0)) {
      logs[channel] = Number.NaN;
      continue;
    }
    const log = alpha * Math.log(a) - (1 - alpha) * Math.log(w);
    logs[channel] = log;
    total += log;
    live += 1;
  }
  const mean = live === 0 ? 0 : total / live;
  const limit = Math.log(MAX_SCALE_RATIO);
  return Float32Array.from(logs, (log) =>
    Number.isNaN(log) ? 1 : Math.exp(Math.min(limit, Math.max(-limit, log - mean))),
  );
}

function sum(values: Float64Array): number {
  return values.reduce((total, value) => total + value, 0);
}
