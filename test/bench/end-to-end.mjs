/**
 * End to end: a DiT-XL-shaped float16 model quantized by the program as a user runs it, against the
 * floor of reading the input and writing as many bytes as the output.
 */
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { arch, availableParallelism, cpus, platform, totalmem } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { prepareModel } from "./model.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const PROGRAM = here("../../bin/arrowquant.js");
const FLOOR = here("floor.mjs");
const PEAK_MEMORY = new URL("peak-memory.mjs", import.meta.url).href;
const RESULTS = here("results/end-to-end.json");

const GB = 1e9;

/** Aims of the project, printed beside what was measured. */
const AIMS = { ratio: 1.5, peakBytes: 400e6 };

/** The methods with a search are timed on a smaller model: they are bound by the cores, not the disk. */
const METHOD_MODEL_BYTES = 0.2 * GB;
const SEARCHING_METHODS = ["hqq", "mse"];

const OPTIONS = {
  gb: { type: "string", default: "1" },
  runs: { type: "string", default: "5" },
  threads: { type: "string" },
  memory: { type: "string" },
  "bit-width": { type: "string", default: "4" },
  "no-methods": { type: "boolean", default: false },
  keep: { type: "boolean", default: false },
};

const HELP = `node test/bench/end-to-end.mjs [flags]
  --gb N[,N…]      sizes of the generated model in 10^9 bytes (default 1; 1,8 shows flat memory)
  --runs N         alternating runs of floor and program, medians are reported (default 5)
  --threads N, --memory SIZE, --bit-width N   handed to the program
  --no-methods     leave out hqq and mse
  --keep           keep the generated models in the temporary folder for the next time`;

export function median(values) {
  const sorted = [...values].sort((left, right) => left - right);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Runs a script in a Node process of its own: wall seconds from spawn to exit, peak memory, output. */
export async function measureProcess(script, args, peakPath) {
  const start = process.hrtime.bigint();
  const child = spawn(process.execPath, ["--import", PEAK_MEMORY, script, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ARROWQUANT_BENCH_PEAK: peakPath },
  });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text) => (stderr += text));
  const exitCode = await new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", resolve);
  });
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  if (exitCode !== 0) {
    throw new Error(`${script} ${args.join(" ")} exited ${exitCode}\n${stderr}${stdout}`);
  }
  const peakBytes = Number(readFileSync(peakPath, "utf8"));
  rmSync(peakPath);
  return { seconds, peakBytes, stdout };
}

function quantizeArgs(model, output, method, flags) {
  return [
    ...["quantize", model.folder, "-o", output, "--bit-width", flags["bit-width"], "--method", method],
    ...["--min-accuracy", "0", "--json"],
    ...(flags.threads === undefined ? [] : ["--threads", flags.threads]),
    ...(flags.memory === undefined ? [] : ["--memory", flags.memory]),
  ];
}

async function quantizeOnce(model, method, flags) {
  const root = dirname(model.folder);
  const output = join(root, "output.parquet");
  rmSync(output, { force: true });
  const args = quantizeArgs(model, output, method, flags);
  const { stdout, ...measured } = await measureProcess(PROGRAM, args, join(root, "peak"));
  const { summary, layers } = JSON.parse(stdout);
  const bytesOut = statSync(output).size;
  rmSync(output);
  const quantizedWeights = layers
    .filter((layer) => layer.quant_type !== "none")
    .reduce((sum, layer) => sum + layer.shape.reduce((count, size) => count * size, 1), 0);
  return { ...measured, bytesOut, quantizedWeights, summary };
}

async function floorOnce(model, bytesOut) {
  const root = dirname(model.folder);
  const output = join(root, "floor.bin");
  rmSync(output, { force: true });
  const args = [model.file, output, String(bytesOut)];
  const { seconds } = await measureProcess(FLOOR, args, join(root, "peak"));
  rmSync(output);
  return seconds;
}

/** int4 rtn and the floor in turn, so that both see the same machine. */
async function benchSize(gigabytes, flags) {
  const model = prepareModel(gigabytes * GB);
  try {
    // Untimed: brings the input into the page cache for both, and tells how much there is to write.
    const { bytesOut } = await quantizeOnce(model, "rtn", flags);
    const floors = [];
    const programs = [];
    for (let run = 0; run < Number(flags.runs); run++) {
      floors.push(await floorOnce(model, bytesOut));
      programs.push(await quantizeOnce(model, "rtn", flags));
    }
    const floorSeconds = median(floors);
    const seconds = median(programs.map((run) => run.seconds));
    const { quantizedWeights, summary } = programs[0];
    return {
      ...{ method: "rtn", bytesIn: model.byteLength, bytesOut, blocks: model.blockCount },
      ...{ weights: model.weights, quantizedWeights, floorSeconds, seconds },
      ratio: seconds / floorSeconds,
      floorRuns: floors,
      programRuns: programs.map((run) => run.seconds),
      weightsPerSecond: quantizedWeights / seconds,
      peakBytes: Math.max(...programs.map((run) => run.peakBytes)),
      bitsPerWeight: summary.bits_per_weight,
    };
  } finally {
    if (!flags.keep) rmSync(dirname(model.folder), { recursive: true, force: true });
  }
}

/** Throughput of the methods that search, whole program, all threads. */
async function benchMethods(flags) {
  const model = prepareModel(METHOD_MODEL_BYTES);
  const results = [];
  try {
    for (const method of SEARCHING_METHODS) {
      const run = await quantizeOnce(model, method, flags);
      results.push({
        ...{ method, bytesIn: model.byteLength, bytesOut: run.bytesOut, seconds: run.seconds },
        ...{ quantizedWeights: run.quantizedWeights, peakBytes: run.peakBytes },
        weightsPerSecond: run.quantizedWeights / run.seconds,
        bitsPerWeight: run.summary.bits_per_weight,
      });
    }
  } finally {
    if (!flags.keep) rmSync(dirname(model.folder), { recursive: true, force: true });
  }
  return results;
}

function printTable(rows) {
  const cells = rows.map((row) => ({
    method: row.method,
    "input, GB": (row.bytesIn / GB).toFixed(2),
    "output, GB": (row.bytesOut / GB).toFixed(3),
    "floor, s": row.floorSeconds?.toFixed(2) ?? "",
    "program, s": row.seconds.toFixed(2),
    "times the floor": row.ratio?.toFixed(2) ?? "",
    "M weights/s": (row.weightsPerSecond / 1e6).toFixed(0),
    "peak memory, MB": (row.peakBytes / 1e6).toFixed(0),
  }));
  console.table(cells);
  console.log(`aims: ${AIMS.ratio} times the floor, peak under ${AIMS.peakBytes / 1e6} MB at any size`);
}

/** Runs the bench, prints its table, writes its figures; `args` are command-line flags. */
export async function benchEndToEnd(args) {
  const { values: flags } = parseArgs({ args, options: OPTIONS });
  const sizes = flags.gb.split(",").map(Number);
  if (sizes.some((size) => !(size > 0)) || !(Number(flags.runs) >= 1)) throw new Error(HELP);
  if (!existsSync(here("../../dist"))) throw new Error("arrowquant is not built: npm run build");
  const rows = [];
  for (const gigabytes of sizes) rows.push(await benchSize(gigabytes, flags));
  if (!flags["no-methods"]) rows.push(...(await benchMethods(flags)));
  printTable(rows);
  const result = {
    date: new Date().toISOString(),
    machine: {
      ...{ cpu: cpus()[0]?.model ?? "unknown", cores: availableParallelism() },
      ...{ memoryBytes: totalmem(), node: process.version, platform: `${platform()}-${arch()}` },
    },
    flags,
    aims: AIMS,
    rows,
  };
  mkdirSync(dirname(RESULTS), { recursive: true });
  writeFileSync(RESULTS, `${JSON.stringify(result, null, 2)}\n`);
  console.log(`figures: ${RESULTS}`);
  return result;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (process.argv.includes("--help")) console.log(HELP);
  else await benchEndToEnd(process.argv.slice(2));
}
