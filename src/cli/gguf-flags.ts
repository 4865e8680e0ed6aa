/** The flags of outputs in GGUF. */
import { BYTES_TEXT, parseBytes } from "../config/bytes.js";
import { ArrowQuantError } from "../errors.js";
import { GGUF_TYPE_NAMES, isGgufTypeName } from "../formats/gguf/output-type.js";
import type { GgufOptions, TensorTypeRule } from "../quantize/gguf/job.js";
import type { Flag } from "./command.js";

const GGUF_GROUP = "GGUF FLAGS";

export const GGUF_FLAGS: readonly Flag[] = [
  {
    name: "type",
    choices: GGUF_TYPE_NAMES,
    description: "GGUF: type of the weights; stands in the place of --bit-width, --group-size and --method",
    group: GGUF_GROUP,
  },
  {
    name: "tensor-type",
    value: "pattern=type",
    repeatable: true,
    description: "GGUF: type of tensors that match; the first match wins",
    group: GGUF_GROUP,
    parse: readTensorTypes,
  },
  {
    name: "comfy",
    description: "GGUF: for ComfyUI-GGUF, with longer names, five dimensions and convolutions in blocks",
    group: GGUF_GROUP,
  },
  {
    name: "split-max-size",
    value: "size",
    description: "GGUF: cut the output into files of at most this, NAME-00001-of-0000N.gguf",
    group: GGUF_GROUP,
    parse: readSize,
  },
];

export const GGUF_FLAG_NAMES: readonly string[] = GGUF_FLAGS.map(({ name }) => name);

/** @throws E_USAGE without a type */
export function readGgufOptions(flags: Readonly<Record<string, unknown>>): GgufOptions {
  const type = flags["type"] as string | undefined;
  if (type === undefined || !isGgufTypeName(type)) {
    throw new ArrowQuantError("E_USAGE", "--type is missing: a GGUF output needs the type of its weights", {
      hint: `--type q4_k, or another of ${GGUF_TYPE_NAMES.join(", ")}`,
      details: { flag: "type" },
    });
  }
  return {
    type,
    tensorTypes: flags["tensor-type"] as readonly TensorTypeRule[] | undefined,
    comfy: flags["comfy"] === true,
    maxFileBytes: flags["split-max-size"] as number | undefined,
  };
}

/** `PATTERN=TYPE`; a pattern may hold `=` itself. */
function readTensorTypes(given: string | readonly string[]): readonly TensorTypeRule[] {
  return [given].flat().map((text) => {
    const split = text.lastIndexOf("=");
    const type = text.slice(split + 1).toLowerCase();
    if (split < 1 || !isGgufTypeName(type)) {
      throw new ArrowQuantError("E_USAGE", `--tensor-type ${text}: PATTERN=TYPE is expected`, {
        hint: `for example --tensor-type 'attn\\.to_v=q6_k'; types are ${GGUF_TYPE_NAMES.join(", ")}`,
        details: { value: text },
      });
    }
    return { pattern: text.slice(0, split), type };
  });
}

/** @throws E_USAGE */
function readSize(given: string | readonly string[]): number {
  const text = String(given);
  const bytes = BYTES_TEXT.test(text) ? parseBytes(text) : 0;
  if (bytes >= 1) return bytes;
  throw new ArrowQuantError("E_USAGE", `--split-max-size ${text} is no amount of bytes`, {
    hint: "for example 2GB or 500MiB",
    details: { value: text },
  });
}
