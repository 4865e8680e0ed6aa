/**
 * GGUF's types on a model: our search beside gguf-py's and ggml's quantizers, by the error of the weights, by what the
 * error does to the reference predictions, and by speed. The others come as the interop checks install them.
 */
import { readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { createViteServer } from "vitest/node";

import { GgmlQuantizer } from "../../dist/kernels/ggml-quantizer.js";
import { loadKernels } from "../../dist/kernels/load.js";
import { BLOCKS, DTYPES } from "../../dist/tensor/dtype.js";
import { printHead } from "./quality-row.mjs";

const MODEL = fileURLToPath(new URL("../../../shared/models/dit-mnist", import.meta.url));
const WEIGHTS = "transformer/diffusion_pytorch_model.safetensors";
const CALIBRATION = "calibration.parquet";
const INTEROP = fileURLToPath(new URL("../interop/", import.meta.url));

/** Timed runs over all quantized layers; the median counts. */
const RUNS = 5;

const COLUMNS = [
  "type",
  "bits/weight",
  "relative RMSE",
  "RMSE gguf-py",
  "RMSE ggml",
  "prediction error",
  "calibrated",
  "of ggml",
  "Mweights/s",
  "ggml Mweights/s",
];

/** Prints the table; `save` is given its rows. Speeds are those of one thread. */
export async function ggufTable(aq, folder, save) {
  const types = Object.keys(BLOCKS);
  for (const type of types.map((name) => name.toLowerCase())) {
    const quantize = (name, config) => {
      const output = join(folder, `${name}.gguf`);
      // --comfy: some names of the model are longer than plain GGUF allows.
      return aq.quantizeGguf({ input: MODEL, output, type, comfy: true, config: { min_accuracy: 0, ...config } });
    };
    await quantize(type, {});
    await quantize(`${type}-calibrated`, { calibration: join(MODEL, CALIBRATION) });
  }
  const measured = await measureOthers(folder);
  const readMatrix = openMatrices(join(MODEL, WEIGHTS));
  const rows = types.map((type) => {
    const figures = measured[type.toLowerCase()];
    return { type, ...figures, weights_per_second: timeKernel(type, figures.layers.map(readMatrix)) };
  });
  save(rows);
  printHead(`GGUF types on the ${rows[0].layers.length} quantized layers of ${basename(MODEL)}`, COLUMNS);
  for (const row of rows) {
    const { relative_rmse: rmse, prediction_error: error } = row;
    const cells = [
      row.type,
      DTYPES[row.type].bits,
      toPercent(rmse.ours),
      rmse.gguf_py === undefined ? "–" : toPercent(rmse.gguf_py),
      toPercent(rmse.ggml),
      error.ours.toFixed(5),
      error.calibrated.toFixed(5),
      error.ggml.toFixed(5),
      (row.weights_per_second / 1e6).toFixed(1),
      (row.ggml_weights_per_second / 1e6).toFixed(1),
    ];
    console.log(`| ${cells.join(" | ")} |`);
  }
}

function toPercent(ratio) {
  return `${(100 * ratio).toPrecision(4)} %`;
}

/** What measure_gguf.py finds, in the environments of the interop checks, which are TypeScript as all tests are. */
async function measureOthers(folder) {
  const server = await createViteServer({
    configFile: false,
    logLevel: "error",
    server: { middlewareMode: true, watch: null, hmr: false, ws: false },
    optimizeDeps: { noDiscovery: true },
    appType: "custom",
  });
  try {
    const load = (name) => server.ssrLoadModule(join(INTEROP, name));
    const [{ preparePython }, { prepareGgml }, { runPython }] = await Promise.all(
      ["environment.ts", "ggml-environment.ts", "process.ts"].map(load),
    );
    const [library, { python }] = [await prepareGgml(), await preparePython()];
    if (library === null || python === null) throw new Error("no table without the quantizers to compare with");
    return await runPython(python, "measure_gguf.py", [library, MODEL, folder, String(RUNS)]);
  } finally {
    await server.close();
  }
}

/** Matrices of a safetensors file in float32, by name. */
function openMatrices(path) {
  const file = readFileSync(path);
  const begin = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, begin));
  return (name) => {
    const { shape, data_offsets: range } = header[name];
    return { rows: shape[0], cols: shape[1], bytes: file.subarray(begin + range[0], begin + range[1]) };
  };
}

/**
 * Weights per second of the kernel alone, after one run that warms it up; by processor time, which is that of its one
 * thread whatever else the machine does.
 */
function timeKernel(type, matrices) {
  const kernels = loadKernels();
  const weights = matrices.reduce((count, { rows, cols }) => count + rows * cols, 0);
  const microseconds = Array.from({ length: 1 + RUNS }, () =>
    matrices.reduce((total, { rows, cols, bytes }) => {
      const extent = { type, rows, cols, slabRows: rows, dtype: "F32", sourceScale: "none" };
      const quantizer = new GgmlQuantizer(kernels, { ...extent, importance: null });
      quantizer.source(rows).set(bytes);
      const before = process.cpuUsage();
      quantizer.quantize(rows);
      const { user, system } = process.cpuUsage(before);
      return total + user + system;
    }, 0),
  );
  const sorted = microseconds.slice(1).sort((left, right) => left - right);
  return weights / (sorted[RUNS >> 1] / 1e6);
}
