/** Files of a split: how they are called, and by which keys they say what part they are (llama.cpp, gguf-split). */

/** `NAME-00002-of-00003.gguf` (llama_split_path of llama.cpp). */
export const SPLIT_NAME = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/;

export const SPLIT_KEYS = {
  number: "split.no",
  count: "split.count",
  tensorCount: "split.tensors.count",
} as const;

/** Name of part `index`, from 0 on, of the file that `path` names. */
export function splitName(path: string, index: number, count: number): string {
  const stem = path.replace(/\.gguf$/i, "");
  const digits = (value: number) => String(value).padStart(5, "0");
  return `${stem}-${digits(index + 1)}-of-${digits(count)}.gguf`;
}
