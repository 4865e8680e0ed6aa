/** A native file in the form that ONNX Runtime runs: the original's graph with the quantized weights in it. */
import { mkdir, rename, rm, stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { create } from "@bufbuild/protobuf";
import { ProgressMeter } from "../engine/meter.js";
import type { ProgressListener } from "../engine/progress.js";
import type { Session } from "../engine/session.js";
import { deriveSignal } from "../engine/signal.js";
import { ArrowQuantError } from "../errors.js";
import type { ActivationQuantizer } from "../formats/onnx/activation-quantizer.js";
import { cloneModel, quantizeActivations } from "../formats/onnx/edit.js";
import { convertToHalf } from "../formats/onnx/half-precision.js";
import { StringStringEntryProtoSchema } from "../formats/onnx/onnx-pb.js";
import { type OnnxFile, readOnnx } from "../formats/onnx/read.js";
import { type InitializerBytes, writeOnnx } from "../formats/onnx/write.js";
import { openModel } from "../formats/open.js";
import { type NativeFile, openNative } from "../formats/parquet/reader.js";
import { requireGraph } from "../graph/locate.js";
import { type GraphMatch, matchGraph } from "../graph/match.js";
import {
  type PartTensors,
  placeQuantizedWeights,
  type QuantizedForm,
  type QuantizedWeight,
} from "../graph/quantized-weight.js";
import { inferRoles, type RoleNames } from "../graph/roles.js";
import { OutputTarget, writeError } from "../io/output.js";
import { loadKernels } from "../kernels/load.js";
import { loadRuntime } from "../runtime/runtime.js";
import type { Component } from "../tensor/info.js";
import { divideLayers, type RunLayers, storedQuantizers, writeQuantizedGraph } from "../validate/quantized-graph.js";
import { readVersion } from "../version.js";
import { exportNative } from "./export.js";
import type { ExportDtype } from "./export-job.js";
import { halveBytes, readInitializer } from "./half-bytes.js";
import { type CheckResult, checkGraph, MAX_FLOAT_NOISE, MAX_HALF_NOISE, MAX_ROUNDED_STEPS } from "./onnx-check.js";
import { planOnnxForms } from "./onnx-forms.js";
import { layerInitializers } from "./onnx-parts.js";
import { settlePath } from "./onnx-path.js";

export interface OnnxExportJob {
  /** A native file. */
  readonly input: string;
  /** An `.onnx` file, or a folder, in which the file is named as transformers.js looks for it. */
  readonly output: string;
  /** The model that the native file was quantized from: its weights tell which of the graph's are which. */
  readonly original: string;
  /** Which weights of `original` are meant, `fp16` for `*.fp16.safetensors`. */
  readonly variant?: string | undefined;
  /** The original's graph; absent: found beside the original. */
  readonly graph?: string | undefined;
  readonly roles?: RoleNames | undefined;
  /** What the graph computes in, but for its inputs and outputs; by default F32. */
  readonly dtype?: ExportDtype | undefined;
  /** Quantize the layers' inputs too, by the parameters that the file holds for each timestep group. */
  readonly activations?: boolean | undefined;
  /** Replace whatever stands at `output`. */
  readonly force?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ProgressListener | undefined;
}

export interface OnnxExportResult {
  /** The `.onnx` file. */
  readonly output: string;
  /** Paths of all files, the model first. */
  readonly files: readonly string[];
  readonly bytesOut: number;
  readonly seconds: number;
  readonly graph: string;
  /** Quantized layers in the graph, by the form that they have there. */
  readonly forms: Readonly<Record<QuantizedForm["kind"], number>>;
  /** Inputs of layers that are quantized. */
  readonly activations: number;
  /** Quantized layers that the graph does not multiply with: they are there as they were. */
  readonly notInGraph: RunLayers["notRun"];
  /** null where ONNX Runtime is not installed. */
  readonly check: CheckResult | null;
  readonly warnings: readonly string[];
}

/** Most layers named in a warning. */
const MAX_NAMED = 3;

/**
 * Writes the graph, opens it in ONNX Runtime where that is installed, and compares a run of it with the graph of rebuilt
 * weights; only then it appears at `output`.
 * @throws errors of reading the native file, the original and its graph; E_CONFLICT for layers that a graph cannot hold
 *   exactly and for `activations` where the file has none, E_GRAPH where the graph is of another model or the written one
 *   does not compute the same, E_OUTPUT, E_WRITE, the signal's reason
 */
export async function exportOnnx(job: OnnxExportJob, session: Session): Promise<OnnxExportResult> {
  const startedAt = performance.now();
  assertGraphType(job.dtype);
  using own = deriveSignal(job.signal);
  const native = await openNative(job.input);
  try {
    return { ...(await write(job, native, session, own)), seconds: (performance.now() - startedAt) / 1000 };
  } catch (thrown) {
    throw own.signal.aborted ? own.signal.reason : thrown;
  } finally {
    native.close();
  }
}

/** @throws E_USAGE */
export function assertGraphType(dtype: ExportDtype | undefined): void {
  if (dtype !== "BF16") return;
  throw new ArrowQuantError("E_USAGE", "--dtype bf16 is not for ONNX graphs: runtimes have few operators of bfloat16", {
    hint: "f16 or f32",
    details: { dtype },
  });
}

/** Refuses an output that `exportOnnx` would refuse, where its name is known. @throws E_OUTPUT, E_WRITE */
export async function assertOnnxWritable(output: string, force: boolean, inputs: readonly string[]): Promise<void> {
  if (output.endsWith(".onnx")) await prepareTarget(resolve(output), force, inputs);
}

function prepareTarget(path: string, force: boolean, inputs: readonly string[]): Promise<OutputTarget> {
  return OutputTarget.prepare(path, { kind: "file", force, inputs, isOurs: isExportOfOurs });
}

/** What is written, read from the inputs. */
interface Source {
  readonly native: NativeFile;
  readonly component: Component;
  readonly file: OnnxFile;
  readonly match: GraphMatch;
  readonly layers: RunLayers;
  readonly quantizers: readonly ActivationQuantizer[];
}

async function write(
  job: OnnxExportJob,
  native: NativeFile,
  session: Session,
  { signal, abort }: { readonly signal: AbortSignal; readonly abort: (reason: unknown) => void },
): Promise<Omit<OnnxExportResult, "seconds">> {
  const source = await openSource(job, native);
  const { file, layers, quantizers } = source;
  const rowGroups = await listRowGroups(native);
  const base = cloneModel(file.model);
  const { weights, opsetReason } = await planOnnxForms(native, file, base, layers.run, rowGroups);
  const isHalf = job.dtype === "F16";
  const path = await settlePath(job.output, weights, isHalf);
  const inputs = file.files.map((each) => each.path);
  const target = await prepareTarget(path, job.force ?? false, inputs);
  const codeBytes = weights.reduce((sum, weight) => sum + codeBytesOf(weight), 0);
  const meter = new ProgressMeter("export", { layers: weights.length, bytes: codeBytes }, job.onProgress, abort);
  const kernels = loadKernels();
  const writeGraph = (outPath: string, each: readonly ActivationQuantizer[], count: typeof meter.add) => {
    const model = cloneModel(base);
    if (each.length > 0) quantizeActivations(model, each);
    const placed = placeQuantizedWeights(model, weights);
    markAsOurs(model);
    const added = [...placed.values()].flatMap((parts) => Object.values(parts));
    const halved = isHalf ? convertToHalf(model, added) : new Set<string>();
    const replaced = new Map<string, InitializerBytes>();
    for (const name of halved) {
      const initializer = file.initializers.get(name);
      if (initializer !== undefined) replaced.set(name, halveBytes(readInitializer(initializer)));
    }
    for (const weight of weights) {
      const onBytes = countCodes(weight, (byteCount, layerCount) => {
        signal.throwIfAborted();
        count(native.component, weight.tensorName, byteCount, layerCount);
      });
      const layerSource = { native, rowGroups: rowGroups.get(weight.tensorName) ?? [], kernels, onBytes };
      const parts = placed.get(weight.tensorName) as PartTensors;
      for (const part of layerInitializers(layerSource, weight, parts)) {
        replaced.set(part.name, halved.has(part.name) ? halveBytes(part) : part);
      }
    }
    return writeOnnx(file, { path: outPath, model, replaced, externalData: "auto" });
  };
  const folder = await makeWorkFolder(target);
  try {
    const written = await writeGraph(join(folder, basename(path)), quantizers, meter.add.bind(meter));
    const check = await checkWritten(job, source, session, signal, {
      folder,
      path: written.files[0] as string,
      writeWithoutActivations: (outPath) => writeGraph(outPath, [], () => {}),
    });
    await meter.finish(native.component, signal);
    const files = await moveIntoPlace(written.files, target, job.force ?? false);
    return {
      output: path,
      files,
      bytesOut: written.byteLength,
      graph: file.path,
      forms: countForms(weights),
      activations: quantizers.length,
      notInGraph: layers.notRun,
      check,
      warnings: [...session.warnings, ...describeWarnings(layers, opsetReason, check)],
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function codeBytesOf({ rows, cols, bits }: QuantizedWeight): number {
  return Math.ceil((rows * cols * bits) / 8);
}

/** Passes on bytes of codes, but for those that fill up the last block of a row. */
function countCodes(weight: QuantizedWeight, add: (byteCount: number, layerCount: number) => void) {
  const total = codeBytesOf(weight);
  let counted = 0;
  return (byteCount: number): void => {
    const more = Math.min(byteCount, total - counted);
    counted += more;
    add(more, more > 0 && counted === total ? 1 : 0);
  };
}

async function openSource(job: OnnxExportJob, native: NativeFile): Promise<Source> {
  const path = await requireGraph(job.original, job.graph ?? null);
  const component = await openComponent(job, native.component);
  const file = await readOnnx(path);
  const match = await matchGraph(file, component);
  const layers = await divideLayers(native, file, match);
  const quantizers = job.activations ? storedQuantizers(layers.run, inferRoles(file, job.roles).time) : [];
  if (job.activations && quantizers.length === 0) {
    throw new ArrowQuantError("E_CONFLICT", `"${native.path}" holds no parameters for activations`, {
      hint: "quantize with calibration and --activation-bits, or leave --activations out",
      details: { native: native.path },
    });
  }
  return { native, component, file, match, layers, quantizers };
}

/** The component of the original that a native file was made from. */
async function openComponent({ original, variant }: OnnxExportJob, name: string): Promise<Component> {
  const options = variant === undefined ? {} : { variant };
  const model = await openModel(original, options).catch((thrown: unknown) => {
    // A pipeline whose default components are not what was quantized.
    if (thrown instanceof ArrowQuantError && thrown.code === "E_COMPONENT") return null;
    throw thrown;
  });
  const named = model?.components.find((component) => component.name === name);
  // A lone file or component folder goes by another name than within its pipeline.
  const only = model?.components.length === 1 && model.pipelineClassName === null ? model.components[0] : undefined;
  const found = named ?? only ?? (await openModel(original, { ...options, components: [name] })).components[0];
  return found as Component;
}

/** The row groups that hold each tensor. */
async function listRowGroups(native: NativeFile): Promise<Map<string, number[]>> {
  const rowGroups = new Map<string, number[]>();
  for await (const { layerName, rowGroup } of native.rowHeaders()) {
    const known = rowGroups.get(layerName);
    if (known === undefined) rowGroups.set(layerName, [rowGroup]);
    else if (known.at(-1) !== rowGroup) known.push(rowGroup);
  }
  return rowGroups;
}

const PRODUCER_KEY = "arrowquant.version";

/** Leaves a mark by which a later export knows that it may replace the file. */
function markAsOurs(model: OnnxFile["model"]): void {
  const { metadataProps } = model;
  model.metadataProps = metadataProps.filter(({ key }) => key !== PRODUCER_KEY);
  model.metadataProps.push(create(StringStringEntryProtoSchema, { key: PRODUCER_KEY, value: readVersion() }));
}

async function isExportOfOurs(path: string): Promise<boolean> {
  try {
    return (await readOnnx(path)).model.metadataProps.some(({ key }) => key === PRODUCER_KEY);
  } catch {
    return false;
  }
}

/** Beside the output, so that files are moved within a file system; swept like every temporary file. */
async function makeWorkFolder({ temporaryPath }: OutputTarget): Promise<string> {
  try {
    await mkdir(temporaryPath);
    return temporaryPath;
  } catch (thrown) {
    throw writeError(thrown, temporaryPath);
  }
}

interface WrittenGraph {
  readonly folder: string;
  readonly path: string;
  readonly writeWithoutActivations: (outPath: string) => Promise<unknown>;
}

/**
 * Weights are compared without quantized activations: with them float noise becomes steps of codes.
 * null where ONNX Runtime is not installed.
 */
async function checkWritten(
  job: OnnxExportJob,
  { native, component, file, match, layers, quantizers }: Source,
  session: Session,
  signal: AbortSignal,
  { folder, path, writeWithoutActivations }: WrittenGraph,
): Promise<CheckResult | null> {
  try {
    await loadRuntime();
  } catch (thrown) {
    if (thrown instanceof ArrowQuantError && thrown.code === "E_RUNTIME") return null;
    throw thrown;
  }
  const weightsPath = join(folder, "weights.safetensors");
  const referencePath = join(folder, "rebuilt.onnx");
  const plainPath = join(folder, "weights-only.onnx");
  await exportNative({ input: native.path, output: weightsPath, dtype: "F32", signal }, session);
  const compare = async (found: string, each: readonly ActivationQuantizer[], limit: number) => {
    signal.throwIfAborted();
    await writeQuantizedGraph(file, match, layers.run, weightsPath, each, referencePath);
    signal.throwIfAborted();
    const { roles } = job;
    return checkGraph({ file, component, roles, path: found, referencePath, threads: session.threads, limit });
  };
  const noise = job.dtype === "F16" ? MAX_HALF_NOISE : MAX_FLOAT_NOISE;
  if (quantizers.length === 0) return compare(path, [], noise);
  await writeWithoutActivations(plainPath);
  const check = await compare(plainPath, [], noise);
  const leastBits = quantizers.reduce((least, { bits }) => Math.min(least, bits), 8);
  await compare(path, quantizers, Math.min(1, MAX_ROUNDED_STEPS / 2 ** leastBits));
  return check;
}

async function moveIntoPlace(files: readonly string[], target: OutputTarget, force: boolean): Promise<string[]> {
  const [model, data] = files as [string, string?];
  const dataPath = `${target.path}.data`;
  if (data !== undefined && !(await exists(target.path)) && (await exists(dataPath)) && !force) {
    throw new ArrowQuantError("E_OUTPUT", `output ${dataPath} exists and belongs to no model`, {
      hint: "replace it with --force, or choose another output",
      details: { path: dataPath },
    });
  }
  try {
    // Between the two there is no model rather than an old one with new data.
    if (data !== undefined) {
      await rm(target.path, { force: true });
      await rename(data, dataPath);
    }
    await rename(model, target.path);
  } catch (thrown) {
    throw writeError(thrown, target.path);
  }
  return data === undefined ? [target.path] : [target.path, dataPath];
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null)) !== null;
}

function countForms(weights: readonly QuantizedWeight[]): OnnxExportResult["forms"] {
  const counts = { "matmul-nbits": 0, "dequantize-linear": 0, arithmetic: 0 };
  for (const { form } of weights) counts[form.kind] += 1;
  return counts;
}

function describeWarnings(
  { notRun }: RunLayers,
  opsetReason: string | null,
  check: CheckResult | null,
): readonly string[] {
  const warnings: string[] = [];
  if (notRun.length > 0) {
    const shown = notRun.slice(0, MAX_NAMED).map(({ name, reason }) => `"${name}" (${reason})`);
    const more = notRun.length > shown.length ? ` and ${notRun.length - shown.length} more` : "";
    warnings.push(`the graph keeps ${notRun.length} quantized layers as they were: ${shown.join(", ")}${more}`);
  }
  if (opsetReason !== null) {
    warnings.push(
      `weights are rebuilt by arithmetic, not by DequantizeLinear: the graph cannot be raised, ${opsetReason}`,
    );
  }
  if (check?.notRun) warnings.push(`opened in ONNX Runtime but not run: ${check.notRun}`);
  if (check === null) warnings.push("not run: ONNX Runtime is not installed (npm install onnxruntime-node)");
  return warnings;
}
