/** Opening a model of any readable format: a table that looks at the path and picks the reader. */
import { basename, join, resolve } from "node:path";
import { ArrowQuantError } from "../errors.js";
import { readExactly, statOrThrow, withFile } from "../io/read.js";
import type { Model } from "../tensor/info.js";
import {
  checkOnlyComponent,
  listFolder,
  type OpenedComponent,
  openComponentFile,
  openComponentFolder,
  openGgufComponent,
  openIndexFile,
} from "./component.js";
import { COMPONENT_NAMES, openPipeline, PIPELINE_INDEX } from "./diffusers.js";
import { looksLikeGguf } from "./gguf/header.js";
import { describeOtherWeights, hasWeights } from "./weight-files.js";

export interface OpenOptions {
  /** `fp16` for `*.fp16.safetensors`; absent: the weights without a variant. */
  readonly variant?: string;
  /** Components of a pipeline; absent: its denoisers. */
  readonly components?: readonly string[];
}

/** What is known of a path before a reader is chosen. */
interface Probe {
  /** Absolute. */
  readonly path: string;
  readonly kind: "file" | "folder";
  /** Entries of a folder; of a file none. */
  readonly names: readonly string[];
  /** First bytes of a file; of a folder none. */
  readonly head: Buffer;
}

export interface ModelFormat {
  readonly name: string;
  readonly describes: string;
  readonly recognises: (probe: Probe) => boolean;
  readonly open: (path: string, options: OpenOptions) => Promise<Omit<Model, "format">>;
}

const HEAD_BYTES = 16;

/** The graph of a folder, as optimum and others name it. */
const GRAPH_NAME = "model.onnx";

/** Every readable format; the first row that recognises a path reads it. */
export const FORMATS: readonly ModelFormat[] = [
  {
    name: "diffusers-pipeline",
    describes: "a diffusers pipeline folder (model_index.json)",
    recognises: ({ kind, names }) => kind === "folder" && names.includes(PIPELINE_INDEX),
    open: openPipeline,
  },
  {
    name: "component-folder",
    describes: "a folder with safetensors weights, sharded or not, and perhaps a config.json",
    recognises: ({ kind, names }) => kind === "folder" && hasWeights(names),
    open: async (path, options) => {
      const folderName = basename(path);
      const name = COMPONENT_NAMES.includes(folderName) ? folderName : "model";
      checkOnlyComponent(path, name, options.components);
      return singleComponent(path, await openComponentFolder(path, name, options.variant ?? null));
    },
  },
  {
    name: "safetensors-index",
    describes: "the index of a sharded set (*.safetensors.index.json)",
    recognises: ({ kind, path }) => kind === "file" && /\.safetensors\.index(?:\.[^.]+)?\.json$/.test(path),
    open: (path, options) => openLone(path, options, openIndexFile),
  },
  {
    name: "safetensors",
    describes: "a safetensors file",
    recognises: ({ kind, path, head }) => kind === "file" && (path.endsWith(".safetensors") || looksLikeHeader(head)),
    open: (path, options) => openLone(path, options, openComponentFile),
  },
  {
    name: "gguf",
    describes: "a GGUF file, split or not",
    recognises: ({ kind, path, head }) => kind === "file" && (looksLikeGguf(head) || isUnmarked(path, ".gguf", head)),
    open: (path, options) => openLone(path, options, openGgufComponent),
  },
  {
    name: "onnx",
    describes: "an ONNX model (.onnx), or a folder with model.onnx",
    recognises: ({ kind, path, names, head }) =>
      kind === "folder" ? names.includes(GRAPH_NAME) : looksLikeOnnx(head) || isUnmarked(path, ".onnx", head),
    open: async (path, options) => {
      const { openOnnxComponent } = await import("./onnx/component.js");
      const isFolder = (await statOrThrow(path)).isDirectory();
      return openLone(isFolder ? join(path, GRAPH_NAME) : path, options, openOnnxComponent);
    },
  },
];

/** First bytes of files that people take for models, and what they are. */
const MAGICS: readonly { readonly bytes: string; readonly kind: string; readonly hint?: string }[] = [
  { bytes: "PK\x03\x04", kind: "a zip archive, perhaps a PyTorch checkpoint: pickle is never read" },
  { bytes: "\x80", kind: "a Python pickle, which is never read" },
  {
    bytes: "PAR1",
    kind: "a Parquet file",
    hint: "a file quantized by this program is no source; see inspect and export",
  },
  { bytes: "version ", kind: "a Git LFS pointer", hint: "run `git lfs pull` in the model's folder" },
  { bytes: "{", kind: "a JSON file", hint: "give the folder it lies in" },
];

/**
 * Opens the model at `path`, reading headers alone. Which components and which variant: see `OpenOptions`.
 * Throws `E_NOT_FOUND`, `E_UNKNOWN_FORMAT` where no reader knows it, `E_COMPONENT`, `E_VARIANT`, `E_CONFLICT`
 * for a variant of a lone file, and whatever its reader finds wrong.
 */
export async function openModel(path: string, options: OpenOptions = {}): Promise<Model> {
  const probe = await probePath(resolve(path));
  const format = FORMATS.find(({ recognises }) => recognises(probe));
  if (format === undefined) throw unknownFormat(probe);
  return { ...(await format.open(probe.path, options)), format: format.name };
}

async function probePath(path: string): Promise<Probe> {
  const stats = await statOrThrow(path);
  if (stats.isDirectory()) return { path, kind: "folder", names: await listFolder(path), head: Buffer.alloc(0) };
  return withFile(path, async (file) => {
    const head = Buffer.alloc(Math.min(HEAD_BYTES, file.byteLength));
    await readExactly(file, head, 0);
    return { path, kind: "file", names: [], head };
  });
}

/** A length below the limit of headers and an opening brace: no other common format begins so. */
function looksLikeHeader(head: Buffer): boolean {
  return head.length > 8 && head[8] === 0x7b && head.readUInt32LE(4) === 0;
}

/** Of a file of that name its reader says what is wrong, where it is not something else altogether. */
function isUnmarked(path: string, ending: string, head: Buffer): boolean {
  return path.endsWith(ending) && findMagic(head) === undefined;
}

/**
 * ModelProto begins with its first field, ir_version, of one byte, then the producer's name (2), an operator set (8) or
 * the graph (7), each with a length: so write all exporters, since encoders write fields in order.
 */
function looksLikeOnnx(head: Buffer): boolean {
  return (
    head[0] === 0x08 && (head[1] ?? 0) > 0 && (head[1] ?? 0x80) < 0x80 && [0x12, 0x3a, 0x42].includes(head[2] ?? 0)
  );
}

function findMagic(head: Buffer): (typeof MAGICS)[number] | undefined {
  return MAGICS.find(({ bytes }) => head.subarray(0, bytes.length).toString("latin1") === bytes);
}

async function openLone(
  path: string,
  options: OpenOptions,
  open: (path: string) => Promise<OpenedComponent>,
): Promise<Omit<Model, "format">> {
  if (options.variant !== undefined) {
    throw new ArrowQuantError(
      "E_CONFLICT",
      `--variant ${options.variant} chooses among a folder's files, "${path}" is one`,
      {
        hint: "give the folder, or leave --variant out",
        details: { path, variant: options.variant },
      },
    );
  }
  checkOnlyComponent(path, "model", options.components);
  return singleComponent(path, await open(path));
}

function singleComponent(path: string, { component, warnings }: OpenedComponent): Omit<Model, "format"> {
  return { path, pipelineClassName: null, components: [component], warnings };
}

function unknownFormat({ path, kind, names, head }: Probe): ArrowQuantError {
  const readable = FORMATS.map(({ describes }) => describes).join("; ");
  const others = describeOtherWeights(kind === "folder" ? names : [basename(path)]);
  const magic = findMagic(head);
  const found =
    kind === "folder"
      ? others.length === 0
        ? "it holds no weights"
        : `it holds only ${others.join(", ")}`
      : magic !== undefined
        ? `it is ${magic.kind}`
        : others.length > 0
          ? `it is ${others.join("")}`
          : head.length === 0
            ? "it is empty"
            : "its first bytes are of no known format";
  return new ArrowQuantError("E_UNKNOWN_FORMAT", `"${path}" cannot be read: ${found}`, {
    hint: magic?.hint ?? `readable are: ${readable}`,
    details: { path, found: others },
  });
}
