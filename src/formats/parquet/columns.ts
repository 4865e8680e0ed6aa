/**
 * The columns of FORMAT.md as a table: names, types, nullability, and the property of a row each one holds.
 */

export type ScalarType = "utf8" | "binary" | "bool" | "int32" | "uint32" | "int64" | "float32" | "float64";

/**
 * As JavaScript values: texts are strings, binaries `Uint8Array`, int64 numbers within ±2^53, lists of
 * float32 `Float32Array`, other lists arrays, structs objects with the keys of their fields.
 */
export type ColumnType = ScalarType | { readonly list: ColumnType } | { readonly struct: readonly Column[] };

export interface Column {
  readonly name: string;
  /** Property of the row, or of the struct, that holds the value. */
  readonly key: string;
  readonly type: ColumnType;
  readonly nullable: boolean;
}

function required(name: string, key: string, type: ColumnType): Column {
  return { name, key, type, nullable: false };
}

function nullable(name: string, key: string, type: ColumnType): Column {
  return { name, key, type, nullable: true };
}

const TIME_GROUP_PARAMS: ColumnType = {
  struct: [
    required("time_range", "timeRange", {
      struct: [required("start", "start", "float64"), required("end", "end", "float64")],
    }),
    required("scale", "scale", "float32"),
    required("zero_point", "zeroPoint", "float32"),
    nullable("group_size", "groupSize", "int32"),
  ],
};

const TIME_AWARE_QUANT: ColumnType = {
  struct: [
    required("enabled", "enabled", "bool"),
    required("num_time_groups", "numTimeGroups", "int32"),
    required("activation_bits", "activationBits", "int32"),
    required("time_input", "timeInput", "utf8"),
    required("time_group_params", "timeGroupParams", { list: TIME_GROUP_PARAMS }),
  ],
};

const SPATIAL_QUANT: ColumnType = {
  struct: [
    required("enabled", "enabled", "bool"),
    required("channel_equalization", "channelEqualization", "bool"),
    required("activation_smoothing", "activationSmoothing", "float32"),
    required("equalization_scales", "equalizationScales", { list: "float32" }),
  ],
};

const ACTIVATION_STATS: ColumnType = {
  struct: [
    required("mean", "mean", "float32"),
    required("std", "std", "float32"),
    required("min", "min", "float32"),
    required("max", "max", "float32"),
  ],
};

const METRICS: ColumnType = {
  struct: [
    required("dot", "dot", "float64"),
    required("source_norm2", "sourceNorm2", "float64"),
    required("rebuilt_norm2", "rebuiltNorm2", "float64"),
    required("error_norm2", "errorNorm2", "float64"),
    required("max_abs_error", "maxAbsError", "float32"),
    required("cosine_similarity", "cosineSimilarity", "float32"),
    required("sqnr_db", "sqnrDb", "float32"),
    required("relative_rmse", "relativeRmse", "float32"),
  ],
};

/** Columns 1–10: all that a plain V2 file has. */
const PLAIN_V2_COLUMNS: readonly Column[] = [
  required("layer_name", "layerName", "utf8"),
  required("shape", "shape", { list: "int64" }),
  required("dtype", "dtype", "utf8"),
  required("data", "data", "binary"),
  required("num_params", "paramCount", "int64"),
  required("quant_type", "quantType", "utf8"),
  nullable("scales", "scales", { list: "float32" }),
  nullable("zero_points", "zeroPoints", { list: "float32" }),
  nullable("quant_axis", "quantAxis", "int32"),
  nullable("group_size", "groupSize", "int32"),
];

/** Its absence is what marks a plain V2 file. */
export const EXTENDED_MARK = "is_diffusion_model";

const EXTENDED_COLUMNS: readonly Column[] = [
  ...PLAIN_V2_COLUMNS,
  required(EXTENDED_MARK, "isDiffusionModel", "bool"),
  nullable("modality", "modality", "utf8"),
  nullable("time_aware_quant", "timeAware", TIME_AWARE_QUANT),
  nullable("spatial_quant", "spatial", SPATIAL_QUANT),
  nullable("activation_stats", "activationStats", ACTIVATION_STATS),
  required("component", "component", "utf8"),
  nullable("method", "method", "utf8"),
  nullable("stored_dtype", "storedDtype", "utf8"),
  nullable("metrics", "metrics", METRICS),
  required("crc32", "crc32", "uint32"),
  required("chunk_index", "chunkIndex", "int32"),
  required("chunk_count", "chunkCount", "int32"),
  nullable("scale_bits", "scaleBits", "int32"),
  nullable("super_group_size", "superGroupSize", "int32"),
  nullable("scale_codes", "scaleCodes", "binary"),
  nullable("zero_point_bits", "zeroPointBits", "int32"),
  nullable("zero_point_codes", "zeroPointCodes", "binary"),
  nullable("residual_scale_codes", "residualScaleCodes", "binary"),
];

export const FILE_KINDS = { extended: EXTENDED_COLUMNS, "plain-v2": PLAIN_V2_COLUMNS } as const;
export type FileKind = keyof typeof FILE_KINDS;

/** Columns that hold codes and scales: what is left unread where only headers are asked for. */
export const PAYLOAD_COLUMNS: ReadonlySet<string> = new Set([
  "data",
  "scales",
  "zero_points",
  "scale_codes",
  "zero_point_codes",
  "residual_scale_codes",
]);
