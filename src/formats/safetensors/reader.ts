/** One safetensors file, opened by its header. */
import { ArrowQuantError } from "../../errors.js";
import { readExactly, withFile } from "../../io/read.js";
import type { SourceFile, TensorInfo } from "../../tensor/info.js";
import { LENGTH_BYTES, parseHeader, readHeaderLength } from "./header.js";

/** The weights of one component: a single file or all shards of a set. */
export interface WeightSet {
  readonly files: readonly SourceFile[];
  /** In order of byte offset, shard by shard; scale tensors still among them. */
  readonly tensors: readonly TensorInfo[];
  /** `__metadata__` of each file. */
  readonly metadata: readonly ReadonlyMap<string, string>[];
  readonly warnings: readonly string[];
}

/**
 * Reads the header of `path`; its tensors lie in file `fileIndex` of the component, `name` is the path
 * relative to the component's folder. Throws what `parseHeader` does, `E_NOT_FOUND`, `E_READ`, and
 * `E_TRUNCATED` where not even the header's length is there.
 */
export async function openSafetensors(path: string, name: string, fileIndex = 0): Promise<WeightSet> {
  return withFile(path, async (file) => {
    if (file.byteLength < LENGTH_BYTES) {
      const message = `"${path}" has ${file.byteLength} bytes, the header's length alone has ${LENGTH_BYTES}`;
      throw new ArrowQuantError("E_TRUNCATED", message, { details: { path, byteLength: file.byteLength } });
    }
    const source = `header of "${path}"`;
    const first = new Uint8Array(LENGTH_BYTES);
    await readExactly(file, first, 0);
    refuseLfsPointer(first, path);
    const length = readHeaderLength(first, file.byteLength, source);
    const bytes = Buffer.allocUnsafeSlow(length);
    await readExactly(file, bytes, LENGTH_BYTES);
    const headerByteLength = LENGTH_BYTES + length;
    const header = parseHeader(bytes, file.byteLength - headerByteLength, source);
    const { byteLength, identity } = file;
    return {
      files: [{ path, name, byteLength, headerByteLength, identity }],
      tensors: header.tensors.map(({ name: tensorName, dtype, shape, begin, end }) => ({
        name: tensorName,
        shape,
        dtype,
        location: { file: fileIndex, byteOffset: headerByteLength + begin, byteLength: end - begin },
        sourceScale: null,
      })),
      metadata: [header.metadata],
      warnings: [],
    };
  });
}

/** A clone without Git LFS leaves text files of three lines in place of the weights. */
function refuseLfsPointer(first: Uint8Array, path: string): void {
  if (Buffer.from(first).toString("latin1") !== "version ") return;
  throw new ArrowQuantError("E_UNKNOWN_FORMAT", `"${path}" is a Git LFS pointer, not the weights it stands for`, {
    hint: "run `git lfs pull` in the model's folder",
    details: { path },
  });
}
