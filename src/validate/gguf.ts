/** Compares a GGUF file, or a split of them, with the source that it was made from. */
import { closeSync, openSync } from "node:fs";
import { ProgressMeter } from "../engine/meter.js";
import { runInOrder } from "../engine/queue.js";
import type { Session } from "../engine/session.js";
import { raceSignal } from "../engine/signal.js";
import { ArrowQuantError } from "../errors.js";
import { looksLikeGguf } from "../formats/gguf/header.js";
import { GGUF_OUTPUT_TYPES, isGgufTypeName } from "../formats/gguf/output-type.js";
import { type GgufModel, openGguf } from "../formats/gguf/reader.js";
import { quoteName } from "../formats/json.js";
import { openModel } from "../formats/open.js";
import { readSourceScales } from "../formats/scale.js";
import { readExactly, withFile } from "../io/read.js";
import { assertUnchanged } from "../io/unchanged.js";
import type { RowView } from "../quantize/gguf/job.js";
import { plainRows, usualRows } from "../quantize/gguf/row-view.js";
import { type OpenSource, type RowSpan, tensorRows } from "../quantize/gguf/tensor-rows.js";
import { summarizeLayers, totalMetrics } from "../quantize/summary.js";
import { isBlockQuantized, isFloat, spanOf } from "../tensor/dtype.js";
import type { Component, SourceFile, TensorInfo } from "../tensor/info.js";
import { CHUNK_BYTES, countElements, viewAs2d } from "../tensor/layout.js";
import { addSums, deriveMetrics, type ErrorSums, zeroSums } from "../tensor/metrics.js";
import { DEFAULT_THRESHOLDS } from "./comparer.js";
import type { ValidatedLayer, ValidateJob, ValidateResult } from "./result.js";

/** Rows under way at once per thread: one at work, one waiting. */
const CHUNKS_PER_THREAD = 2;

/** A tensor of the source and what the file holds of it. */
interface Pair {
  readonly tensor: TensorInfo;
  readonly stored: TensorInfo;
  readonly view: RowView;
  readonly rowsPerChunk: number;
  /** Nothing can have been lost: a copy, or float32. */
  readonly isLossless: boolean;
  scales: Promise<Float32Array | null> | null;
}

interface Matched {
  readonly pairs: readonly Pair[];
  readonly missing: readonly string[];
  readonly extra: readonly string[];
  readonly misshapen: readonly string[];
}

/** Sums of a chunk, or whether it is what it was. */
type ChunkVerdict = { readonly sums: ErrorSums } | { readonly identical: boolean };

/** Whether a path is a GGUF file, by its first bytes. */
export async function isGguf(path: string): Promise<boolean> {
  try {
    return await withFile(path, async (file) => {
      const head = Buffer.alloc(Math.min(4, file.byteLength));
      await readExactly(file, head, 0);
      return looksLikeGguf(head);
    });
  } catch {
    // A folder, or nothing at all: whoever opens it says so.
    return false;
  }
}

/** See `validateModel`. */
export async function compareGguf(job: ValidateJob, session: Session): Promise<ValidateResult> {
  if (job.run !== undefined) {
    throw new ArrowQuantError("E_CONFLICT", `"${job.quantized}" is GGUF, which ONNX Runtime does not run`, {
      hint: "leave --run out, or validate the .parquet file",
      details: { quantized: job.quantized },
    });
  }
  using place = await session.jobs.enter(job.signal);
  const { signal, abort } = place;
  const startedAt = performance.now();
  const stored = await raceSignal(openGguf(job.quantized), signal);
  const { component, warnings } = await raceSignal(openOriginal(job, stored), signal);
  const matched = matchTensors(component, stored);
  const { tensors } = component;
  const bytes = tensors.reduce((sum, { location }) => sum + location.byteLength, 0);
  const meter = new ProgressMeter("validate", { layers: tensors.length, bytes }, job.onProgress, abort);
  let layers: ValidatedLayer[];
  try {
    layers = await comparePairs(matched.pairs, { component, stored, session, signal, meter, job });
    await assertUnchanged([...component.files, ...stored.files]);
    await meter.finish(component.name, signal);
  } catch (thrown) {
    abort(thrown);
    throw job.signal?.aborted ? job.signal.reason : signal.reason;
  }
  const { missing, extra, misshapen } = matched;
  const bytesOut = stored.files.reduce((sum, { byteLength }) => sum + byteLength, 0);
  return {
    original: job.original,
    quantized: job.quantized,
    passed: missing.length + extra.length + misshapen.length === 0 && layers.every(({ passed }) => passed),
    summary: summarizeLayers(layers, bytesOut, (performance.now() - startedAt) / 1000),
    components: { [component.name]: totalMetrics(layers) },
    layers,
    missing,
    extra,
    misshapen,
    run: null,
    warnings: [...session.warnings, ...warnings, ...stored.warnings],
  };
}

/** The source's component that has the file's tensors. */
async function openOriginal(job: ValidateJob, { tensors, namePrefix }: GgufModel) {
  const options = job.variant === undefined ? {} : { variant: job.variant };
  const { components, warnings } = await openModel(job.original, options);
  const names = new Set(tensors.map(({ name }) => namePrefix + name));
  const shared = (component: Component) => component.tensors.filter(({ name }) => names.has(name)).length;
  const [component] = components.toSorted((a, b) => shared(b) - shared(a)) as [Component, ...Component[]];
  return { component, warnings };
}

function matchTensors({ tensors }: Component, { tensors: stored, namePrefix }: GgufModel): Matched {
  const byName = new Map(stored.map((tensor) => [namePrefix + tensor.name, tensor]));
  const pairs: Pair[] = [];
  const missing: string[] = [];
  const misshapen: string[] = [];
  for (const tensor of tensors) {
    const found = byName.get(tensor.name);
    byName.delete(tensor.name);
    if (found === undefined) missing.push(tensor.name);
    else if (isOfShape(found, tensor)) pairs.push(pairUp(tensor, found));
    else misshapen.push(tensor.name);
  }
  return { pairs, missing, extra: [...byName.keys()], misshapen };
}

function isOfShape(stored: TensorInfo, { shape, dtype }: TensorInfo): boolean {
  const isSameShape = stored.shape.length === shape.length && stored.shape.every((size, axis) => size === shape[axis]);
  return isSameShape && (isFloat(dtype) ? isFloat(stored.dtype) : stored.dtype === dtype);
}

function pairUp(tensor: TensorInfo, stored: TensorInfo): Pair {
  const { shape, sourceScale, transposed } = tensor;
  const isLossless = stored.dtype === "F32" || (stored.dtype === tensor.dtype && sourceScale === null);
  const view =
    countElements(shape) === 0
      ? { rows: 0, cols: 0 }
      : sourceScale?.per === "row" || transposed
        ? viewAs2d(shape)
        : isBlockQuantized(stored.dtype)
          ? usualRows(shape, stored.dtype)
          : plainRows(countElements(shape), stored.dtype);
  const rowsPerChunk = Math.max(1, Math.floor(CHUNK_BYTES / Math.max(1, 4 * view.cols)));
  return { tensor, stored, view, rowsPerChunk, isLossless, scales: null };
}

interface Comparison {
  readonly component: Component;
  readonly stored: GgufModel;
  readonly session: Session;
  readonly signal: AbortSignal;
  readonly meter: ProgressMeter;
  readonly job: ValidateJob;
}

async function comparePairs(pairs: readonly Pair[], comparison: Comparison): Promise<ValidatedLayer[]> {
  const { component, stored, session, signal, meter, job } = comparison;
  const sources = openAll(component.files);
  const files = openAll(stored.files);
  const chunks = pairs.flatMap((pair) =>
    Array.from({ length: Math.ceil(pair.view.rows / pair.rowsPerChunk) }, (_, index) => {
      const firstRow = index * pair.rowsPerChunk;
      return { pair, firstRow, rows: Math.min(pair.rowsPerChunk, pair.view.rows - firstRow) };
    }),
  );
  const verdicts = runInOrder(chunks.length, CHUNKS_PER_THREAD * session.threads, async (number) => {
    const { pair, ...span } = chunks[number] as (typeof chunks)[number];
    const source = sources[pair.tensor.location.file] as OpenSource;
    const file = files[pair.stored.location.file] as OpenSource;
    return compareChunk(comparison, pair, span, source, file);
  });
  const layers: ValidatedLayer[] = [];
  try {
    for (const pair of pairs) {
      const sums = zeroSums();
      let identical = true;
      const chunkCount = Math.ceil(pair.view.rows / pair.rowsPerChunk);
      for (let chunk = 0; chunk < chunkCount; chunk += 1) {
        signal.throwIfAborted();
        const verdict = (await verdicts.next()).value as ChunkVerdict;
        if ("sums" in verdict) addSums(sums, verdict.sums);
        else identical &&= verdict.identical;
        const share = pair.tensor.location.byteLength / chunkCount;
        meter.add(component.name, pair.tensor.name, share, chunk === chunkCount - 1 ? 1 : 0);
      }
      pair.scales = null;
      layers.push(validatedLayer(component.name, pair, identical, sums, job.minAccuracy ?? null));
    }
    return layers;
  } finally {
    await verdicts.return(undefined);
    await session.settle(signal);
    for (const { fd } of [...sources, ...files]) closeSync(fd);
  }
}

function openAll(files: readonly SourceFile[]): OpenSource[] {
  return files.map(({ path }) => ({ path, fd: openSync(path, "r") }));
}

async function compareChunk(
  { component, session, signal }: Comparison,
  pair: Pair,
  span: RowSpan,
  sourceFile: OpenSource,
  storedFile: OpenSource,
): Promise<ChunkVerdict> {
  const { tensor, stored, view, isLossless } = pair;
  const { sourceScale } = tensor;
  pair.scales ??= sourceScale === null ? Promise.resolve(null) : readSourceScales(component.files, sourceScale);
  const source = tensorRows(sourceFile, tensor, view, span, await pair.scales);
  const slabRows = Math.max(1, Math.min(span.rows, Math.floor(session.slabBytes / Math.max(1, 4 * view.cols))));
  if (isLossless) {
    const rowBytes = spanOf(stored.dtype, 0, view.cols).byteLength;
    const byteLength = span.rows * rowBytes;
    await session.budget.acquire(byteLength, signal);
    try {
      const input = session.buffers.take(byteLength);
      const into = new Uint8Array(input, 0, byteLength);
      const byteOffset = stored.location.byteOffset + span.firstRow * rowBytes;
      await withFile(storedFile.path, (file) => readExactly(file, into, byteOffset));
      const data = { byteOffset: 0, byteLength };
      const task = { kind: "compare-kept", source, storedDtype: stored.dtype, data, slabRows, input } as const;
      const reply = await session.run(task, [input], signal);
      session.buffers.give(reply.input);
      return { identical: reply.identical };
    } finally {
      session.budget.release(byteLength);
    }
  }
  const storedRows = tensorRows(storedFile, stored, view, span, null);
  const reply = await session.run({ kind: "compare-rows", source, stored: storedRows, slabRows }, [], signal);
  if (reply.nonFinite === null) return { sums: reply.sums };
  const { row, col, value } = reply.nonFinite;
  const message = `${quoteName(tensor.name)} of the source is ${value} at row ${row}, column ${col}`;
  throw new ArrowQuantError("E_NONFINITE", message, { details: { tensor: tensor.name, row, col } });
}

function validatedLayer(
  component: string,
  { tensor, stored, isLossless }: Pair,
  identical: boolean,
  sums: ErrorSums,
  minAccuracy: number | null,
): ValidatedLayer {
  const quantType = stored.dtype.toLowerCase();
  const metrics = isLossless ? null : deriveMetrics(sums);
  const codeBits = isGgufTypeName(quantType) ? GGUF_OUTPUT_TYPES[quantType].codeBits : 8;
  const threshold = isLossless ? null : (minAccuracy ?? DEFAULT_THRESHOLDS[codeBits]);
  return {
    name: tensor.name,
    component,
    shape: tensor.shape,
    dtype: tensor.dtype,
    quantType,
    groupSize: null,
    method: null,
    parameterCount: countElements(tensor.shape),
    bytesIn: tensor.location.byteLength,
    bytesOut: stored.location.byteLength,
    identical: isLossless ? identical : null,
    metrics,
    threshold,
    // A NaN is not a pass.
    passed: metrics === null ? identical : metrics.cosineSimilarity >= (threshold as number),
  };
}
