/** A native file in the formats of PyTorch: safetensors, plain or packed, alone or as the folder that a loader takes. */
import { mkdir, readdir, realpath, stat } from "node:fs/promises";
import { basename, dirname, join, relative, resolve, sep } from "node:path";
import { ProgressMeter } from "../engine/meter.js";
import type { Session } from "../engine/session.js";
import { raceSignal } from "../engine/signal.js";
import { ArrowQuantError } from "../errors.js";
import { listNativeFiles } from "../formats/parquet/native-files.js";
import { type NativeFile, openNative } from "../formats/parquet/reader.js";
import { openSafetensors } from "../formats/safetensors/reader.js";
import { WRITER_KEY, WRITER_NAME } from "../formats/safetensors/writer.js";
import { copyFile } from "../io/copy.js";
import { OutputFile, OutputTarget, writeError } from "../io/output.js";
import type { ExportJob, ExportResult, PackedSummary } from "./export-job.js";
import { type ExportPlan, type PlannedComponent, planExport } from "./export-plan.js";
import { WeightFiles, writeTensors } from "./export-weights.js";

const FILE_ENDING = ".safetensors";

/** Endings of files that somebody who names one does not mean a folder by. */
const OTHER_ENDING = /\.(?:bin|ckpt|gguf|h5|json|msgpack|npz|onnx|parquet|pkl|pt|pth|zip)$/i;

/** Rounding of scales above this is worth a warning: BF16's is at most this, F16's less unless it has no more bits. */
const MAX_USUAL_ROUNDING = 2 ** -8;

/**
 * Rebuilds a native file into a safetensors file, or into a folder in the place of the original's. Nothing is written
 * before everything that can be refused has been looked at; the output appears whole or not at all.
 * @throws errors of reading the native files and the original, E_MISMATCH where they differ, E_CONFLICT for flags or
 *   layers that cannot be had together, E_NOTHING where `packed` finds no layer, E_OUTPUT, E_WRITE, the signal's reason
 */
export async function exportNative(job: ExportJob, session: Session): Promise<ExportResult> {
  const startedAt = performance.now();
  using place = await session.jobs.enter(job.signal);
  const { signal, abort } = place;
  checkJob(job);
  const natives: NativeFile[] = [];
  try {
    const plan = await raceSignal(openAndPlan(job, natives), signal);
    const target = await prepareTarget(job, plan);
    // By component: two of them may have tensors of the same names.
    const writers = plan.components.map((component) => openWeightFiles(component, target.temporaryPath));
    const weightBytes = writers.reduce((sum, { byteLength }) => sum + byteLength, 0);
    const textBytes = [...plan.texts.values()].reduce((sum, text) => sum + Buffer.byteLength(text), 0);
    const copiedBytes = plan.copied.reduce((sum, { byteLength }) => sum + byteLength, 0);
    const tensorCount = plan.components.reduce((sum, { forms }) => sum + forms.size, 0);
    const bytesOut = weightBytes + textBytes + copiedBytes;
    const meter = new ProgressMeter("export", { layers: tensorCount, bytes: bytesOut }, job.onProgress, abort);
    let scaleRounding = 0;
    try {
      if (plan.kind === "folder") await makeFolder(target.temporaryPath);
      for (const [index, component] of plan.components.entries()) {
        const files = writers[index] as WeightFiles;
        scaleRounding = Math.max(scaleRounding, await writeTensors(component, files, { session, signal, meter }));
        await files.finish();
      }
      await writeRest(plan, target.temporaryPath, signal, meter);
      await meter.finish(plan.components.at(-1)?.native.component ?? "", signal);
      await target.commit();
    } catch (thrown) {
      abort(thrown);
      for (const files of writers) await files.close();
      await target.discard();
      throw job.signal?.aborted ? job.signal.reason : signal.reason;
    }
    const packed = job.packed ? summarizePacking(plan, scaleRounding) : null;
    return {
      output: target.path,
      tensors: tensorCount,
      bytesOut,
      seconds: (performance.now() - startedAt) / 1000,
      files: listWritten(plan, target.path),
      leftOut: plan.leftOut,
      packed,
      warnings: [...session.warnings, ...plan.warnings, ...roundingWarnings(job, scaleRounding)],
    };
  } finally {
    for (const native of natives) native.close();
  }
}

/** @throws E_USAGE, E_CONFLICT for what contradicts itself */
function checkJob({ output, like, variant, packed, maxShardBytes }: ExportJob): void {
  if (OTHER_ENDING.test(output)) {
    throw new ArrowQuantError("E_USAGE", `output ${output} names a file that does not end in ${FILE_ENDING}`, {
      hint: `name a ${FILE_ENDING} file, or a folder`,
      details: { output },
    });
  }
  const isFile = output.endsWith(FILE_ENDING);
  const conflicts: readonly (readonly [boolean, string, string])[] = [
    [isFile && like !== undefined, `--like makes a folder, output ${output} is a file`, "name a folder"],
    [
      isFile && packed === true,
      `--packed makes a folder with a config.json, output ${output} is a file`,
      "name a folder",
    ],
    [
      isFile && maxShardBytes !== undefined,
      `--max-shard-size is for folders, output ${output} is a file`,
      "name a folder",
    ],
    [
      like !== undefined && maxShardBytes !== undefined,
      "--like gives the original's shards, --max-shard-size others",
      "give one of them",
    ],
    [like === undefined && variant !== undefined, "--variant chooses among the weights of --like", "give --like too"],
  ];
  for (const [applies, message, hint] of conflicts) {
    if (applies) throw new ArrowQuantError("E_CONFLICT", message, { hint, details: { output } });
  }
}

async function openAndPlan(job: ExportJob, natives: NativeFile[]): Promise<ExportPlan> {
  for (const path of await listNativeFiles(job.input)) natives.push(await openNative(path));
  return planExport(job, natives);
}

/**
 * Refuses what `exportNative` would refuse whatever the native file holds.
 * @param job with the model in the place of the native file
 * @throws E_USAGE, E_CONFLICT, E_OUTPUT, E_WRITE
 */
export async function assertExportable(job: ExportJob): Promise<void> {
  checkJob(job);
  await prepareTarget(job, { kind: job.output.endsWith(FILE_ENDING) ? "file" : "folder", inputs: [job.input] });
}

async function prepareTarget(
  job: ExportJob,
  { kind, inputs }: Pick<ExportPlan, "kind" | "inputs">,
): Promise<OutputTarget> {
  const force = job.force ?? false;
  if (kind === "folder") await assertFolderFree(resolve(job.output), force, inputs);
  return OutputTarget.prepare(job.output, {
    kind,
    force,
    inputs,
    isOurs: kind === "folder" ? async () => true : isExportOfOurs,
  });
}

/** @throws E_OUTPUT */
async function assertFolderFree(path: string, force: boolean, inputs: readonly string[]): Promise<void> {
  const found = await stat(path).catch(() => null);
  if (found === null) return;
  const real = await realpath(path);
  for (const input of inputs) {
    const within = relative(real, await realpath(input));
    if (within !== "" && (within === ".." || within.startsWith(`..${sep}`))) continue;
    throw new ArrowQuantError("E_OUTPUT", `output ${path} holds what is read, ${input}`, {
      hint: "choose another output",
      details: { path, input },
    });
  }
  if (force) return;
  if (!found.isDirectory()) {
    throw new ArrowQuantError("E_OUTPUT", `output ${path} is a file, a folder is to be written`, {
      hint: `choose another output, or name a ${FILE_ENDING} file`,
      details: { path },
    });
  }
  const entries = await readdir(path);
  if (entries.length === 0) return;
  // Most of its files are copies that bear no mark of ours.
  throw new ArrowQuantError("E_OUTPUT", `output folder ${path} is not empty: ${entries.length} entries`, {
    hint: "replace it with --force, or choose another output",
    details: { path, entries: entries.length },
  });
}

function openWeightFiles({ folder, shards }: PlannedComponent, root: string): WeightFiles {
  return new WeightFiles(shards.map(({ fileName, tensors }) => ({ path: join(root, folder, fileName), tensors })));
}

/** Everything but the weights. */
async function writeRest(
  { texts, copied }: ExportPlan,
  root: string,
  signal: AbortSignal,
  meter: ProgressMeter,
): Promise<void> {
  for (const { from, to } of copied) {
    signal.throwIfAborted();
    await makeFolder(dirname(join(root, to)));
    const [component = ""] = to.split(sep);
    await copyFile(from, join(root, to), signal, (byteCount) => meter.add(component, "", byteCount, 0));
  }
  for (const [name, text] of texts) {
    await makeFolder(dirname(join(root, name)));
    const file = await OutputFile.create(join(root, name));
    try {
      await file.write(Buffer.from(text, "utf8"));
      await file.sync();
    } finally {
      await file.close();
    }
  }
}

async function makeFolder(path: string): Promise<void> {
  await mkdir(path, { recursive: true }).catch((thrown) => {
    throw writeError(thrown, path);
  });
}

function listWritten({ kind, components, texts, copied }: ExportPlan, path: string): string[] {
  if (kind === "file") return [basename(path)];
  const weights = components.flatMap(({ folder, shards }) => shards.map(({ fileName }) => join(folder, fileName)));
  return [...weights, ...texts.keys(), ...copied.map(({ to }) => to)].sort();
}

function summarizePacking({ components }: ExportPlan, scaleRounding: number): PackedSummary {
  const forms = components.flatMap((component) => [...component.forms.values()]);
  return {
    layers: forms.filter(({ kind }) => kind === "packed").length,
    dequantized: components.flatMap(({ dequantized }) => dequantized),
    scaleRounding,
  };
}

function roundingWarnings({ dtype }: ExportJob, scaleRounding: number): string[] {
  if (scaleRounding <= MAX_USUAL_ROUNDING) return [];
  const percent = (100 * scaleRounding).toPrecision(2);
  return [`scales are off by up to ${percent} % in ${dtype}, too small for it: bf16 or f32 hold them better`];
}

/** Whether a file bears the mark that exports carry in their metadata. */
async function isExportOfOurs(path: string): Promise<boolean> {
  try {
    const { metadata } = await openSafetensors(path, basename(path));
    return metadata[0]?.get(WRITER_KEY) === WRITER_NAME;
  } catch {
    return false;
  }
}
