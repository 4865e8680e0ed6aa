/** `npm run bench`: the kernels, end to end, what the engine, statistics and allocation cost. `--only kernels` (or another) picks one. */
import { benchCalibration } from "./calibration.mjs";
import { benchEndToEnd } from "./end-to-end.mjs";
import { benchExport } from "./export.mjs";
import { benchKernels } from "./kernels.mjs";
import { benchKnapsack } from "./knapsack.mjs";
import { benchOverhead } from "./overhead.mjs";
import { benchSensitivity } from "./sensitivity.mjs";

const PARTS = {
  kernels: () => benchKernels(),
  "end-to-end": (args) => benchEndToEnd(args),
  export: () => benchExport(),
  overhead: () => benchOverhead(),
  calibration: () => benchCalibration(),
  knapsack: () => benchKnapsack(),
  sensitivity: () => benchSensitivity(),
};

const args = process.argv.slice(2);
const onlyIndex = args.indexOf("--only");
const only = onlyIndex < 0 ? null : args.splice(onlyIndex, 2)[1];
if (only !== null && !Object.hasOwn(PARTS, only ?? "")) {
  throw new Error(`--only takes ${Object.keys(PARTS).join(", ")}, got ${only}`);
}
for (const [name, run] of Object.entries(PARTS)) {
  if (only === null || only === name) await run(args);
}
