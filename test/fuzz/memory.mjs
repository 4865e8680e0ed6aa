/** How far a process's memory rose while something ran, where the system tells (Linux). */
import { closeSync, openSync, readFileSync, writeSync } from "node:fs";

const isKnown = process.platform === "linux";

function readStatus() {
  const text = readFileSync("/proc/self/status", "latin1");
  const bytesOf = (key) => 1024 * Number(new RegExp(`^${key}:\\s*(\\d+)`, "m").exec(text)?.[1] ?? 0);
  return { resident: bytesOf("VmRSS"), residentPeak: bytesOf("VmHWM"), virtualPeak: bytesOf("VmPeak") };
}

let clearRefs = null;
try {
  clearRefs = isKnown ? openSync("/proc/self/clear_refs", "w") : null;
} catch {
  // Not everywhere allowed; then the peak is that of the whole run.
}
process.on("exit", () => clearRefs !== null && closeSync(clearRefs));

/**
 * Starts a measurement; the function it gives ends it, with bytes: how far resident memory was above the start at
 * its highest, and how much address space was taken beyond all taken before (memory asked for but never touched).
 */
export function startMeasuring() {
  if (!isKnown) return () => ({ residentGrowth: 0, virtualGrowth: 0 });
  // 5: sets the resident peak back to now (proc(5)).
  if (clearRefs !== null) writeSync(clearRefs, "5");
  const before = readStatus();
  return () => {
    const after = readStatus();
    return {
      residentGrowth: after.residentPeak - (clearRefs === null ? before.residentPeak : before.resident),
      virtualGrowth: after.virtualPeak - before.virtualPeak,
    };
  };
}
