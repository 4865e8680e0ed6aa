/** What a model or native file holds, tensor by tensor, from headers alone where the format allows. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { ArrowQuantError } from "../errors.js";
import { type OpenOptions, openModel } from "../formats/open.js";
import { isNativeFile, type NativeFile, openNative } from "../formats/parquet/reader.js";
import { type NativeRow, type NativeRowMeta, QUANT_TYPES, rowPayloadBytes } from "../formats/parquet/row.js";
import { DTYPES, type Dtype } from "../tensor/dtype.js";
import type { Component } from "../tensor/info.js";
import { type BitWidth, countElements, rowBytes, rowLayout, viewAs2d } from "../tensor/layout.js";
import { addSums, deriveMetrics, type ErrorMetrics, type ErrorSums, zeroSums } from "../tensor/metrics.js";
import { formatBitsPerWeight, formatBytes, formatCount, formatShape } from "./figures.js";
import { METRIC_COLUMNS, metricCells } from "./quantize.js";
import { type Column, listSection, type Section } from "./sections.js";

export interface InspectedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** In the source. */
  readonly dtype: Dtype;
  readonly parameterCount: number;
  /** Of codes, scales and zero points; of kept tensors and models the plain bytes. */
  readonly byteLength: number;
  readonly quantType: string;
  /** Of a code; of what is not quantized the element's. */
  readonly bits: number;
  readonly groupSize: number | null;
  readonly method: string | null;
  /** As measured when it was quantized; null where nothing was, or a plain V2 file does not say. */
  readonly metrics: ErrorMetrics | null;
}

interface InspectedComponent {
  readonly name: string;
  readonly className: string | null;
  readonly tensors: readonly InspectedTensor[];
  /** Key/value metadata of a native file. */
  readonly metadata?: Readonly<Record<string, string>>;
}

export interface Inspection {
  readonly path: string;
  readonly format: string;
  readonly components: readonly InspectedComponent[];
  readonly warnings: readonly string[];
}

/**
 * Lists the tensors of a native file, a folder of them, or any readable model.
 * @param options which variant and components of a model; of native files none
 * @throws errors of the readers
 */
export async function inspectPath(path: string, options: OpenOptions = {}): Promise<Inspection> {
  const found = await stat(path).catch(() => null);
  if (found?.isFile() && (await isNativeFile(path))) return inspectNative(path, [path]);
  try {
    const model = await openModel(path, options);
    const { format, warnings } = model;
    return { path, format, components: model.components.map(inspectComponent), warnings };
  } catch (thrown) {
    const isUnknown = thrown instanceof ArrowQuantError && thrown.code === "E_UNKNOWN_FORMAT";
    const files = isUnknown && found?.isDirectory() ? await listNativeFiles(path) : [];
    if (files.length === 0) throw thrown;
    return inspectNative(path, files);
  }
}

async function listNativeFiles(folder: string): Promise<string[]> {
  const files: string[] = [];
  for (const name of (await readdir(folder)).sort()) {
    const path = join(folder, name);
    if (name.endsWith(".parquet") && (await isNativeFile(path))) files.push(path);
  }
  return files;
}

function inspectComponent(component: Component): InspectedComponent {
  const { name, className } = component;
  const tensors = component.tensors.map(
    (tensor): InspectedTensor => ({
      name: tensor.name,
      shape: tensor.shape,
      dtype: tensor.dtype,
      parameterCount: countElements(tensor.shape),
      byteLength: tensor.location.byteLength,
      quantType: "none",
      bits: DTYPES[tensor.dtype].bits,
      groupSize: null,
      method: null,
      metrics: null,
    }),
  );
  return { name, className, tensors };
}

async function inspectNative(path: string, files: readonly string[]): Promise<Inspection> {
  const components: InspectedComponent[] = [];
  const kinds = new Set<string>();
  for (const file of files) {
    const native = await openNative(file);
    try {
      kinds.add(native.kind === "extended" ? "Parquet V2 Extended" : "Parquet V2");
      const { component, metadata } = native;
      const tensors = await listTensors(native);
      components.push({
        name: component,
        className: readClassName(metadata),
        tensors,
        metadata: Object.fromEntries(metadata),
      });
    } finally {
      native.close();
    }
  }
  return { path, format: [...kinds].join(", "), components, warnings: [] };
}

/** Class name in the component's own config, as the file carries it. */
function readClassName(metadata: ReadonlyMap<string, string>): string | null {
  const config = parseJson(metadata.get("arrowquant.component_config"));
  const name = config._class_name ?? (config.architectures as unknown[] | undefined)?.[0];
  return typeof name === "string" ? name : null;
}

function parseJson(text: string | undefined): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text ?? "{}");
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    // Metadata is for people here; whoever needs it exact reads it with a checking parser.
    return {};
  }
}

/** A tensor's rows, its chunks added up. */
interface Gathered {
  readonly meta: NativeRowMeta;
  byteLength: number;
  sums: ErrorSums | null;
}

async function listTensors(native: NativeFile): Promise<InspectedTensor[]> {
  const isSymmetric = parseJson(native.metadata.get("arrowquant.config")).symmetric;
  // Headers leave one thing open: whether there are float32 zero points. Where the settings do not say, rows do.
  const rows = typeof isSymmetric === "boolean" ? native.rowHeaders() : native.rows();
  const gathered: Gathered[] = [];
  for await (const row of rows) {
    if (row.chunkIndex === 0)
      gathered.push({ meta: row, byteLength: 0, sums: row.metrics === null ? null : zeroSums() });
    const current = gathered.at(-1) as Gathered;
    if (row.metrics !== null && current.sums !== null) addSums(current.sums, row.metrics);
    if ("data" in row) current.byteLength += rowPayloadBytes(row as NativeRow);
    else if (row.chunkIndex === 0) current.byteLength = storedBytes(row, isSymmetric === true);
  }
  return gathered.map(({ meta, byteLength, sums }) => ({
    name: meta.layerName,
    shape: meta.shape,
    dtype: meta.dtype,
    parameterCount: meta.paramCount,
    byteLength,
    quantType: meta.quantType,
    bits: QUANT_TYPES[meta.quantType] || DTYPES[meta.storedDtype ?? meta.dtype].bits,
    groupSize: meta.groupSize,
    method: meta.method,
    metrics: sums === null ? null : deriveMetrics(sums),
  }));
}

/** Bytes of a whole tensor of an extended file, by FORMAT.md's layout. */
function storedBytes(row: NativeRowMeta, symmetric: boolean): number {
  const { rows, cols } = viewAs2d(row.shape);
  if (row.quantType === "none") return (row.paramCount * DTYPES[row.storedDtype ?? row.dtype].bits) / 8;
  const layout = rowLayout(cols, {
    bits: QUANT_TYPES[row.quantType] as BitWidth,
    groupSize: row.groupSize ?? cols,
    symmetric,
    method: row.method ?? "rtn",
    scaleBits: row.scaleBits,
    zeroPointBits: row.zeroPointBits,
    superGroupSize: row.superGroupSize,
    weighting: "none",
    preserveGain: false,
  });
  return rows * rowBytes(layout);
}

const COLUMNS: readonly Column[] = [
  { title: "tensor", elastic: true },
  { title: "shape" },
  { title: "type" },
  { title: "size", align: "right" },
  { title: "bits", align: "right", drop: 7 },
];
const QUANTIZED_COLUMNS: readonly Column[] = [
  ...COLUMNS,
  { title: "group", align: "right", drop: 3 },
  { title: "method", drop: 4 },
  ...METRIC_COLUMNS,
];

function tensorRow(tensor: InspectedTensor, isNative: boolean): string[] {
  const { name, shape, dtype, quantType, byteLength, bits, groupSize, method, metrics } = tensor;
  const type = quantType === "none" ? dtype : `${quantType} (${dtype})`;
  const common = [name, formatShape(shape), type, formatBytes(byteLength), String(bits)];
  return isNative
    ? [...common, groupSize === null ? "" : String(groupSize), method ?? "", ...metricCells(metrics)]
    : common;
}

function sumOf<T>(items: readonly T[], figure: (item: T) => number): number {
  return items.reduce((sum, item) => sum + figure(item), 0);
}

function componentSections(component: InspectedComponent): Section[] {
  const { name, className, tensors, metadata } = component;
  const isNative = metadata !== undefined;
  const quantized = tensors.filter(({ quantType }) => quantType !== "none");
  const parameters = sumOf(quantized, ({ parameterCount }) => parameterCount);
  const bytes = sumOf(quantized, ({ byteLength }) => byteLength);
  return [
    {
      kind: "facts",
      title: name,
      facts: [
        ...(className === null ? [] : ([["class", className]] as [string, string][])),
        ["tensors", isNative ? `${tensors.length}, ${quantized.length} quantized` : String(tensors.length)],
        ["parameters", formatCount(sumOf(tensors, ({ parameterCount }) => parameterCount))],
        ["size", formatBytes(sumOf(tensors, ({ byteLength }) => byteLength))],
        ...(isNative
          ? ([["bits per weight", formatBitsPerWeight(parameters === 0 ? null : (8 * bytes) / parameters)]] as [
              string,
              string,
            ][])
          : []),
      ],
    },
    {
      kind: "table",
      columns: isNative ? QUANTIZED_COLUMNS : COLUMNS,
      rows: tensors.map((tensor) => tensorRow(tensor, isNative)),
    },
  ];
}

export function inspectSections(inspection: Inspection): Section[] {
  return [
    {
      kind: "facts",
      facts: [
        ["path", inspection.path],
        ["format", inspection.format],
      ],
    },
    ...inspection.components.flatMap(componentSections),
    ...listSection("Warnings", inspection.warnings),
  ];
}
