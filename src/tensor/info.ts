/** What is known of a tensor from headers alone. */
import type { Dtype } from "./dtype.js";

/** A run of bytes of one of the model's files. */
export interface ByteRange {
  /** Index into `Component.files`. */
  readonly file: number;
  readonly byteOffset: number;
  readonly byteLength: number;
}

/** A scale that the source multiplies its float8 weight with: one number, or one per row of the 2-D view. */
export interface SourceScale {
  readonly tensorName: string;
  readonly dtype: Dtype;
  readonly per: "tensor" | "row";
  readonly location: ByteRange;
}

/** One tensor of a source: contiguous, row-major, little-endian. */
export interface TensorInfo {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: Dtype;
  readonly location: ByteRange;
  readonly sourceScale: SourceScale | null;
  /** A matrix [rows, columns] that the file holds as [columns, rows]. */
  readonly transposed?: true;
  /** Why the source's graph shows that it is no weight of a layer; absent: it is one, or nothing shows it. */
  readonly notWeight?: string;
}

export interface SourceFile {
  /** Absolute path. */
  readonly path: string;
  /** Path relative to the component's folder, with `/`. */
  readonly name: string;
  readonly byteLength: number;
  /** Bytes before the tensor data, part of the fingerprint. */
  readonly headerByteLength: number;
  /** `device:inode:size:mtimeNs` when the header was read; `io/unchanged.ts` compares it later. */
  readonly identity: string;
}

/** One network of a model: the unit of quantization and of a native file. */
export interface Component {
  /** `transformer`, `unet`, `vae`, … or `model` for a lone file. */
  readonly name: string;
  readonly files: readonly SourceFile[];
  /** In order of byte offset, shard by shard. Scale tensors that were applied are not among them. */
  readonly tensors: readonly TensorInfo[];
  /** The component's config.json, verbatim, where there is one. */
  readonly configText: string | null;
  /** `_class_name` of that config (or `architectures[0]`), else the class in model_index.json, else null. */
  readonly className: string | null;
}

/** A model on disk, opened by its headers. */
export interface Model {
  readonly path: string;
  readonly format: string;
  /** `_class_name` of model_index.json, where there is one. */
  readonly pipelineClassName: string | null;
  readonly components: readonly Component[];
  readonly warnings: readonly string[];
}
