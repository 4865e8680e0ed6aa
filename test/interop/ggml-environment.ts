/** ggml itself, as a shared library: `.ggml` beside this file, filled by npm on first use. */
import { join } from "node:path";
import { isCi } from "./environment.js";
import { installPackages } from "./npm-environment.js";

/** llama.cpp as node-llama-cpp builds it; its libggml-base.so has the reference quantizers. */
const PACKAGES = { "@node-llama-cpp/linux-x64": "3.22.1" };
const LIBRARY = "node_modules/@node-llama-cpp/linux-x64/bins/linux-x64/libggml-base.so";

/** Path of the library; null, with the reason printed, where it cannot be had. With CI=true that is an error. */
export async function prepareGgml(): Promise<string | null> {
  try {
    if (process.platform !== "linux" || process.arch !== "x64") throw new Error("ggml is built for Linux on x64");
    return join(await installPackages(".ggml", PACKAGES), LIBRARY);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    if (isCi()) throw new Error(`CI is set, so the checks against ggml must run: ${reason}`, { cause: error });
    console.warn(`checks against ggml skipped: ${reason}`);
    return null;
  }
}
