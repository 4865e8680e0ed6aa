/** A model in GGUF, opened by its headers: one file, or all files of a split. */
import { basename, dirname, join } from "node:path";
import { ArrowQuantError } from "../../errors.js";
import { withFile } from "../../io/read.js";
import type { SourceFile, TensorInfo } from "../../tensor/info.js";
import { quoteName } from "../json.js";
import type { WeightSet } from "../safetensors/reader.js";
import { type GgufHeader, readHeader } from "./header.js";
import type { GgufEntry } from "./metadata.js";
import { restoreShapes } from "./original-shape.js";
import { PREFIX_KEY } from "./own-keys.js";
import { SPLIT_KEYS, SPLIT_NAME, splitName } from "./split.js";

/** The weights of one GGUF model. */
export interface GgufModel extends WeightSet {
  /** `general.architecture`, where it is set. */
  readonly architecture: string | null;
  /** What this program took off every name when it wrote the file; empty: nothing. */
  readonly namePrefix: string;
}

interface GgufFile {
  readonly source: string;
  readonly file: SourceFile;
  readonly header: GgufHeader;
}

/** Which part of a split a file says it is. */
interface Split {
  /** From 0 on. */
  readonly number: number;
  readonly count: number;
  readonly tensorCount: number;
}

/**
 * Opens the model at `path`; of a split any file will do. Throws what `readHeader` does, `E_NOT_FOUND`, `E_READ`,
 * and `E_INDEX` where the files of a split disagree.
 */
export async function openGguf(path: string): Promise<GgufModel> {
  const files = await openSplit(path);
  const tensors: TensorInfo[] = [];
  const warnings: string[] = [];
  const metadata = new Map<string, GgufEntry>();
  for (const [index, { file, header }] of files.entries()) {
    for (const { name, dtype, shape, begin, byteLength } of header.tensors) {
      const location = { file: index, byteOffset: header.dataByteOffset + begin, byteLength };
      tensors.push({ name, shape, dtype, location, sourceScale: null });
    }
    for (const [key, entry] of header.metadata) if (!metadata.has(key)) metadata.set(key, entry);
    if (header.trailingBytes > 0) {
      warnings.push(`${file.name} has ${header.trailingBytes} bytes after its last tensor, which are of none`);
    }
  }
  checkNames(tensors, files);
  const { source } = files[0] as GgufFile;
  const { restored, warnings: shapeWarnings } = restoreShapes(tensors, metadata, source);
  const architecture = metadata.get("general.architecture")?.value;
  const namePrefix = metadata.get(PREFIX_KEY)?.value;
  return {
    files: files.map(({ file }) => file),
    tensors: restored,
    metadata: [],
    warnings: [...warnings, ...shapeWarnings],
    architecture: typeof architecture === "string" ? architecture : null,
    namePrefix: typeof namePrefix === "string" ? namePrefix : "",
  };
}

async function openFile(path: string): Promise<GgufFile> {
  return withFile(path, async (open) => {
    const source = `header of "${path}"`;
    const header = await readHeader(open, source);
    const { byteLength, identity } = open;
    const headerByteLength = Math.min(header.dataByteOffset, byteLength);
    return { source, header, file: { path, name: basename(path), byteLength, headerByteLength, identity } };
  });
}

/** The file, or every file of the split that it belongs to, in their order. */
async function openSplit(path: string): Promise<GgufFile[]> {
  const given = await openFile(path);
  const split = readSplit(given);
  if (split === null) return [given];
  const [, stem, number, count] = SPLIT_NAME.exec(basename(path)) ?? [];
  if (Number(number) !== split.number + 1 || Number(count) !== split.count) {
    const said = `it is file ${split.number + 1} of ${split.count}`;
    throw new ArrowQuantError("E_INDEX", `${given.source}: ${said}, its name does not say so`, {
      hint: "files of a split find each other by their names: give them back the names they were written with",
      details: { path, number: split.number, count: split.count },
    });
  }
  const files: GgufFile[] = [];
  for (let index = 0; index < split.count; index += 1) {
    const name = splitName(`${stem}.gguf`, index, split.count);
    files.push(index === split.number ? given : await openPart(join(dirname(path), name), index, split));
  }
  const tensorCount = files.reduce((sum, { header }) => sum + header.tensors.length, 0);
  if (tensorCount !== split.tensorCount) {
    const message = `${given.source}: the split has ${split.tensorCount} tensors, its ${split.count} files ${tensorCount}`;
    throw new ArrowQuantError("E_INDEX", message, { details: { path, wanted: split.tensorCount, tensorCount } });
  }
  return files;
}

async function openPart(path: string, index: number, wanted: Split): Promise<GgufFile> {
  let part: GgufFile;
  try {
    part = await openFile(path);
  } catch (error) {
    if (!(error instanceof ArrowQuantError) || error.code !== "E_NOT_FOUND") throw error;
    throw new ArrowQuantError(
      "E_NOT_FOUND",
      `file ${index + 1} of ${wanted.count} of the split, "${path}", is not there`,
      {
        hint: "fetch all files of the split into one folder",
        details: { path, number: index, count: wanted.count },
        cause: error,
      },
    );
  }
  const split = readSplit(part);
  if (split?.number === index && split.count === wanted.count && split.tensorCount === wanted.tensorCount) return part;
  const said = split === null ? "no part of a split" : `file ${split.number + 1} of ${split.count}`;
  throw new ArrowQuantError(
    "E_INDEX",
    `${part.source}: it says it is ${said}, not file ${index + 1} of ${wanted.count}`,
    {
      details: { path, split, wanted: { ...wanted, number: index } },
    },
  );
}

/** null for a file that is whole. */
function readSplit({ source, header: { metadata } }: GgufFile): Split | null {
  const read = (key: string): number | null => {
    const entry = metadata.get(key);
    if (entry === undefined) return null;
    const value = /^u?int/.test(entry.type) ? Number(entry.value) : Number.NaN;
    if (Number.isSafeInteger(value) && value >= 0) return value;
    throw new ArrowQuantError("E_INDEX", `${source}: "${key}" is no count, but ${entry.type} ${String(entry.value)}`, {
      details: { key, type: entry.type },
    });
  };
  const count = read(SPLIT_KEYS.count);
  if (count === null || count <= 1) return null;
  const number = read(SPLIT_KEYS.number);
  const tensorCount = read(SPLIT_KEYS.tensorCount);
  if (number === null || tensorCount === null || number >= count) {
    throw new ArrowQuantError("E_INDEX", `${source}: "split.count" is ${count}, "split.no" ${number ?? "not there"}`, {
      details: { count, number, tensorCount },
    });
  }
  return { number, count, tensorCount };
}

/** That no tensor is in two files; within a file the header has been looked at. */
function checkNames(tensors: readonly TensorInfo[], files: readonly GgufFile[]): void {
  if (files.length === 1) return;
  const fileOf = new Map<string, number>();
  for (const { name, location } of tensors) {
    const other = fileOf.get(name);
    if (other !== undefined) {
      const names = [other, location.file].map((index) => quoteName(files[index]?.file.name ?? ""));
      throw new ArrowQuantError("E_DUPLICATE", `${quoteName(name)} stands in two files, ${names.join(" and ")}`, {
        details: { tensor: name, files: names },
      });
    }
    fileOf.set(name, location.file);
  }
}
