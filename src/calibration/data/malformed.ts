/** What parquet-wasm and the Parquet footer's reader call a broken native file is here broken calibration data. */
import { ArrowQuantError } from "../../errors.js";

/** Runs `work`; its `E_NATIVE` becomes `E_CALIBRATION`. */
export function asMalformed<T>(work: () => T): T {
  try {
    return work();
  } catch (thrown) {
    throw renameError(thrown);
  }
}

/** What a rejection of `work` becomes. */
export function renameError(thrown: unknown): unknown {
  if (!(thrown instanceof ArrowQuantError) || thrown.code !== "E_NATIVE") return thrown;
  const isCompressed = /IPC decompression requires/.test(thrown.message);
  return new ArrowQuantError("E_CALIBRATION", thrown.message, {
    hint: isCompressed ? "write the file without compression" : "the file is damaged; copy or write it again",
    details: thrown.details,
    cause: thrown,
  });
}
