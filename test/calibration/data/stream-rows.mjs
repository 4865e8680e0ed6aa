// Reads calibration data to its end and prints how many samples it has and the most memory the process held, in MiB.
import { openCalibrationData } from "../../../dist/calibration/data/data.js";

const [path, length] = process.argv.slice(2);
const spec = {
  inputs: [
    { role: "sample", name: "sample", dtype: "F32", shape: [Number(length)] },
    { role: "time", name: "timestep", dtype: "I64", shape: [] },
  ],
};
const stream = await openCalibrationData(path, spec, {
  limit: Number.POSITIVE_INFINITY,
  maxRejected: 10,
  signal: new AbortController().signal,
  cacheFolder: "",
});
let count = 0;
for await (const sample of stream.samples) if (sample.inputs.size === 2) count += 1;
console.log(JSON.stringify({ count, rejected: stream.rejected, peakMib: process.resourceUsage().maxRSS / 1024 }));
