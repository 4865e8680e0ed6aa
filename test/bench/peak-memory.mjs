/** Preloaded (`node --import`) into a measured process: leaves its peak resident set, in bytes. */
import { writeFileSync } from "node:fs";
import { isMainThread } from "node:worker_threads";

const path = process.env.ARROWQUANT_BENCH_PEAK;
// Worker threads inherit the preload; the peak is the whole process's and is read once, at its end.
if (isMainThread && path !== undefined) {
  process.on("exit", () => {
    writeFileSync(path, String(process.resourceUsage().maxRSS * 1024));
  });
}
