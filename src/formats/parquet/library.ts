/**
 * parquet-wasm, loaded when first needed and replaced when it has panicked.
 *
 * Its CommonJS build is one wasm instance per evaluation of the module. A Rust panic leaves that instance in
 * an unknown state (nothing is unwound), so it is dropped and the next user gets a fresh one. Only the
 * library's synchronous functions are used: a panic in an asynchronous one is an unhandled rejection and a
 * promise that never settles.
 */
import { createRequire } from "node:module";
import { ArrowQuantError } from "../../errors.js";

export type ParquetLibrary = typeof import("parquet-wasm/node");

const require = createRequire(import.meta.url);
let instance: ParquetLibrary | null = null;

function loadInstance(): ParquetLibrary {
  const modulePath = require.resolve("parquet-wasm/node");
  const library = require(modulePath) as ParquetLibrary;
  delete require.cache[modulePath];
  return library;
}

/**
 * Runs `work` against the library. What it makes there it must free itself.
 *
 * @param what names the file in errors.
 * @throws E_NATIVE for whatever the library refuses or panics at.
 */
export function withParquetLibrary<T>(what: string, work: (library: ParquetLibrary) => T): T {
  instance ??= loadInstance();
  try {
    return work(instance);
  } catch (thrown) {
    if (thrown instanceof ArrowQuantError) throw thrown;
    // Errors the library returns are plain ones; a trap or an exhausted stack is not.
    const isReturned = thrown instanceof Error && thrown.name === "Error";
    if (!isReturned) instance = null;
    const reason = isReturned ? thrown.message : "its pages cannot be decoded";
    throw new ArrowQuantError("E_NATIVE", `${what}: ${reason}`, { cause: thrown });
  }
}
