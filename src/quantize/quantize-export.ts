/** Quantizing into a format other than the native one: a native file on the way, exported and removed. */
import { mkdir, rm, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import type { ConfigKey, ResolvedConfig } from "../config/config.js";
import type { Session } from "../engine/session.js";
import { ArrowQuantError } from "../errors.js";
import { openModel } from "../formats/open.js";
import { requireGraph } from "../graph/locate.js";
import { OutputTarget, writeError } from "../io/output.js";
import { readTarget } from "../plan/targets.js";
import type { BitWidth } from "../tensor/layout.js";
import { assertExportable, exportNative } from "./export.js";
import type { ExportDtype, ExportJob } from "./export-job.js";
import { assertGraphType, assertOnnxWritable, exportOnnx } from "./export-onnx.js";
import { assertPlanPackable } from "./export-packing.js";
import { resolveJob } from "./job-config.js";
import { assertPlanExpressible } from "./onnx-forms.js";
import { NATIVE_ENDING, type QuantizeWatcher, quantizeModel } from "./quantize.js";
import type { ExportedOutput, QuantizeJob, QuantizePlan, QuantizeResult } from "./result.js";

/** A target format, as the two functions below differ in it. */
interface Conversion {
  /** Refuses what the format cannot hold, before any weight is read. */
  readonly checkPlan: (plan: QuantizePlan) => void;
  readonly convert: (native: string) => Promise<ExportedOutput>;
}

/**
 * Quantizes a model of one component into an ONNX graph: the model itself where it is one, else the graph beside it.
 * @throws what `quantizeModel` and `exportOnnx` do; what the graph cannot hold, before anything is quantized
 */
export async function quantizeIntoOnnx(
  job: QuantizeJob,
  session: Session,
  watcher: QuantizeWatcher,
): Promise<QuantizeResult> {
  const config = withWholeZeroPoints(withExportedWidths(await resolveJob(job.config), "ONNX Runtime"));
  assertGraphType(job.dtype);
  const graph = await requireGraph(job.input, config.values.graph);
  await assertOnnxWritable(job.output, job.force ?? false, [job.input, graph]);
  const convert = async (input: string): Promise<ExportedOutput> => {
    const { output, roles, dtype, activations, force, signal, onProgress } = job;
    const variant = config.values.variant ?? undefined;
    const exported = await exportOnnx(
      { input, output, original: job.input, variant, graph, roles, dtype, activations, force, signal, onProgress },
      session,
    );
    return { format: "onnx", result: exported };
  };
  const checkPlan = (plan: QuantizePlan): void => {
    assertOneComponent(plan, job.output);
    assertPlanExpressible(plan);
  };
  return quantizeThrough({ ...job, config }, session, watcher, { checkPlan, convert });
}

/** Widths that ONNX Runtime and readers of compressed-tensors know; other codes are none of theirs. */
const EXPORTED_WIDTHS: readonly BitWidth[] = [2, 4, 8];

/**
 * Where a target chooses among widths, only those that the format holds are measured.
 * @throws E_CONFLICT where others were asked for
 */
function withExportedWidths(config: ResolvedConfig, reader: string): ResolvedConfig {
  const { values, origins } = config;
  if (readTarget(config) === null) return config;
  if (isOpen(config, "candidate_bits")) return { values: { ...values, candidate_bits: [...EXPORTED_WIDTHS] }, origins };
  const others = values.candidate_bits.filter((bits) => !EXPORTED_WIDTHS.includes(bits));
  if (others.length === 0) return config;
  throw new ArrowQuantError("E_CONFLICT", `candidate_bits has ${others.join(", ")}, which ${reader} does not run`, {
    hint: `leave it out, or choose among ${EXPORTED_WIDTHS.join(", ")}`,
    details: { candidate_bits: values.candidate_bits, exported: EXPORTED_WIDTHS },
  });
}

/** Whether nobody has said what the setting is to be. */
function isOpen({ origins }: ResolvedConfig, key: ConfigKey): boolean {
  return ["default", "profile"].includes(origins[key].source);
}

/**
 * At 8 bits ONNX Runtime multiplies with whole zero points only: they are coded in 8 bits where nobody has said how, so
 * that layers stay quantized as they run. At 2 and 4 bits it takes others too.
 */
function withWholeZeroPoints(config: ResolvedConfig): ResolvedConfig {
  const { values, origins } = config;
  const widths = readTarget(config) === null ? [values.bit_width] : values.candidate_bits;
  if (!widths.includes(8) || !isOpen(config, "zero_point_bits")) return config;
  return { values: { ...values, zero_point_bits: 8 }, origins };
}

/**
 * Quantizes a model into safetensors: a file, or a folder, which stands in for the model's where that is one.
 * @throws what `quantizeModel` and `exportNative` do; E_USAGE without `dtype`
 */
export async function quantizeIntoSafetensors(
  job: QuantizeJob,
  session: Session,
  watcher: QuantizeWatcher,
): Promise<QuantizeResult> {
  const { output, packed, force, signal, onProgress } = job;
  const given = await resolveJob(job.config);
  const config = packed === true ? withExportedWidths(given, "compressed-tensors") : given;
  const isFile = output.toLowerCase().endsWith(".safetensors");
  const isFolder = (await stat(job.input).catch(() => null))?.isDirectory() ?? false;
  const like = isFolder && !isFile ? job.input : undefined;
  const variant = like === undefined ? undefined : (config.values.variant ?? undefined);
  const dtype = requireDtype(job.dtype);
  const exportJob = (input: string): ExportJob => {
    return { input, output, dtype, like, variant, packed, force, signal, onProgress };
  };
  await assertExportable(exportJob(job.input));
  const convert = async (input: string): Promise<ExportedOutput> => {
    return { format: "safetensors", dtype, result: await exportNative(exportJob(input), session) };
  };
  const checkPlan = (plan: QuantizePlan): void => {
    if (like === undefined) assertOneComponent(plan, output);
    if (packed === true) assertPlanPackable(plan);
  };
  return quantizeThrough({ ...job, config }, session, watcher, { checkPlan, convert });
}

function assertOneComponent({ components }: QuantizePlan, output: string): void {
  if (components.length === 1) return;
  const names = components.map(({ component }) => component);
  throw new ArrowQuantError("E_USAGE", `output ${output} is of one component, but there are ${names.join(", ")}`, {
    hint: "choose one with --components",
    details: { output, components: names },
  });
}

function requireDtype(dtype: ExportDtype | undefined): ExportDtype {
  if (dtype !== undefined) return dtype;
  throw new ArrowQuantError("E_USAGE", "--dtype is missing", {
    hint: "the type of the rebuilt weights in safetensors: f32, f16 or bf16",
    details: { flag: "dtype" },
  });
}

async function quantizeThrough(
  job: QuantizeJob,
  session: Session,
  watcher: QuantizeWatcher,
  { checkPlan, convert }: Conversion,
): Promise<QuantizeResult> {
  const startedAt = performance.now();
  const place = await OutputTarget.prepare(job.output, {
    kind: "folder",
    force: true,
    inputs: [],
    isOurs: async () => true,
  });
  const folder = place.temporaryPath;
  try {
    await mkdir(folder).catch((thrown) => {
      throw writeError(thrown, folder);
    });
    const native = join(folder, await nativeName(job));
    const onPlanned = (plan: QuantizePlan): void => {
      checkPlan(plan);
      watcher.onPlanned?.(plan);
    };
    const quantized = await quantizeModel(
      { ...job, output: native },
      session,
      { ...watcher, onPlanned },
      `${place.path}.arrowquant-resume`,
    );
    await watcher.onNative?.(native);
    const exported = await convert(native);
    const { result } = exported;
    return {
      ...quantized,
      output: result.output,
      exported,
      // Sizes are those of the native form, which says what the weights need; the export tells its own.
      summary: { ...quantized.summary, seconds: (performance.now() - startedAt) / 1000 },
      warnings: [...new Set([...quantized.warnings, ...result.warnings])],
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** A file for one component, a folder for several; headers alone tell. */
async function nativeName({ input, output, config }: QuantizeJob): Promise<string> {
  const { variant, components } = (await resolveJob(config)).values;
  const model = await openModel(input, {
    ...(variant === null ? {} : { variant }),
    ...(components === null ? {} : { components }),
  });
  return model.components.length > 1 ? "native" : basename(output) + NATIVE_ENDING;
}
