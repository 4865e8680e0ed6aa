/**
 * What a statistics file says of itself, and which tensors it must therefore hold.
 *
 * A statistics file is a safetensors file. Of every value (an input of one or more layers, or several inputs of a
 * layer that is used several times) it holds, T being the time bins, C the channels, K the columns of the layers'
 * 2-D view:
 *
 *     VALUE.absmax|min|max|mean|meansq  F32 [T, C]     over all positions that passed at those times
 *     VALUE.count                       I64 [T]        positions that passed
 *     VALUE.histogram                   U32 [T, 2048]  all channels together, over [−2^e, 2^e]
 *     VALUE.histogram_exponent          I32 [T]        e
 *     VALUE.hessian                     F32 [K, K]     XᵀX/n, where it could be taken
 *     VALUE.heldback                    F32 [R, K]     rows of X that none of the above has seen
 *     VALUE.heldback_time               F32 [R]        the time at which each passed
 *
 * Second moments alone, as an imatrix has them, are `meansq` and `count` with a single bin.
 */
import { z } from "zod";
import type { OutputTensor } from "../formats/safetensors/writer.js";

/** Key of `__metadata__` that marks the file, and its version. */
export const STATISTICS_KEY = "arrowquant.statistics";
export const STATISTICS_VERSION = "1";
/** Key of `__metadata__` with the JSON of `StatisticsInfo`. */
export const INFO_KEY = "arrowquant.statistics.info";

/** Finest resolution over time: beyond it a bin of usual calibration sets holds less than a sample. */
export const MAX_TIME_BINS = 128;

/** Bins of a histogram: fine enough for percentiles of 8-bit ranges, 8 KiB a time bin. */
export const HISTOGRAM_BINS = 2048;

/** Most held-back rows of a value: enough to tell two methods apart, little beside a Hessian. */
export const MAX_HELD_BACK_ROWS = 256;

const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
const count = z.int().min(0);
const size = z.int().min(1);

const convGeometry = z.object({
  kernel: z.tuple([size, size]),
  strides: z.tuple([size, size]),
  pads: z.tuple([count, count, count, count]),
  dilations: z.tuple([size, size]),
  groups: size,
});

/** Rows that a matrix was made of, or why there is none. */
const rows = z.union([z.object({ rows: size }), z.object({ reason: z.string() })]);

const valueInfo = z.object({
  /** Names of the values in the graph. */
  inputs: z.array(z.string()).min(1),
  channels: size,
  /** null: the value of a linear layer. */
  conv: convGeometry.nullable(),
  cols: size,
  hessian: rows,
  heldBack: rows,
});

const sourceInfo = z.discriminatedUnion("kind", [
  z.object({
    kind: z.literal("sampling"),
    scheduler: z.string(),
    steps: size,
    seed: count,
    trajectories: size,
    /** Classes that labels were drawn from; null: the model takes none. */
    classes: size.nullable(),
  }),
  z.object({ kind: z.literal("data"), fingerprint: sha256 }),
  z.object({ kind: z.literal("synthetic"), seed: count }),
  z.object({ kind: z.literal("imatrix"), fingerprint: sha256 }),
]);

const timeBin = z.object({ start: z.number(), end: z.number(), value: z.number(), count });

export const statisticsInfo = z.object({
  source: sourceInfo,
  component: z.string(),
  modelFingerprint: sha256,
  /** null: imported, nothing was run. */
  graph: z.object({ fingerprint: sha256, byteLength: count }).nullable(),
  settings: z.object({ samples: count, hessians: z.boolean(), heldBackEvery: count }),
  sampleCount: count,
  heldBackCount: count,
  time: z.object({
    /** The graph's input; null: imported. */
    input: z.string().nullable(),
    start: z.number(),
    end: z.number(),
    /** Ascending and without gaps, `start` inclusive, `end` exclusive; `value` is the mean of the times in it. */
    bins: z.array(timeBin).min(1).max(MAX_TIME_BINS),
  }),
  /** Only `meansq` and `count` are known of each value. */
  secondMomentsOnly: z.boolean(),
  values: z.record(z.string(), valueInfo),
  /** Tensor name to key of `values`. */
  layers: z.record(z.string(), z.string()),
  unmatched: z.array(z.object({ tensorName: z.string(), reason: z.string() })),
});

export type StatisticsInfo = Readonly<z.output<typeof statisticsInfo>>;
export type ValueInfo = Readonly<z.output<typeof valueInfo>>;
export type SourceInfo = Readonly<z.output<typeof sourceInfo>>;
export type TimeBin = Readonly<z.output<typeof timeBin>>;
export type RowsInfo = Readonly<z.output<typeof rows>>;

/** Arrays of one value per bin and channel. */
export const CHANNEL_STATISTICS = ["absmax", "min", "max", "mean", "meansq"] as const;
export type ChannelStatistic = (typeof CHANNEL_STATISTICS)[number];

/** Name of a value's tensor. */
export function tensorNameOf(key: string, part: string): string {
  return `${key}.${part}`;
}

/** Rows of a matrix; 0 where there is none. */
export function rowCountOf(info: RowsInfo): number {
  return "rows" in info ? info.rows : 0;
}

/** Every tensor of a file with that info. */
export function listStatisticsTensors(
  info: Pick<StatisticsInfo, "time" | "values" | "secondMomentsOnly">,
): OutputTensor[] {
  const binCount = info.time.bins.length;
  return Object.entries(info.values).flatMap(([key, value]) => {
    const tensor = (part: string, dtype: OutputTensor["dtype"], shape: number[]): OutputTensor => ({
      name: tensorNameOf(key, part),
      dtype,
      shape,
    });
    const counts = tensor("count", "I64", [binCount]);
    if (info.secondMomentsOnly) return [counts, tensor("meansq", "F32", [binCount, value.channels])];
    const heldBackRows = rowCountOf(value.heldBack);
    return [
      counts,
      ...CHANNEL_STATISTICS.map((part) => tensor(part, "F32", [binCount, value.channels])),
      tensor("histogram", "U32", [binCount, HISTOGRAM_BINS]),
      tensor("histogram_exponent", "I32", [binCount]),
      ...(rowCountOf(value.hessian) === 0 ? [] : [tensor("hessian", "F32", [value.cols, value.cols])]),
      ...(heldBackRows === 0
        ? []
        : [tensor("heldback", "F32", [heldBackRows, value.cols]), tensor("heldback_time", "F32", [heldBackRows])]),
    ];
  });
}
