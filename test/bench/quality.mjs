/**
 * `npm run quality -- MODEL`: what quantization does to the predictions of a model that comes with its ONNX graph. Every
 * row is a quantization of the whole model, run side by side with the original by ONNX Runtime.
 *
 *   --table methods|activations   which table; both without it
 *   --data FILE                   calibration data, beside `sampling`
 *   --eval FILE                   inputs to predict for, as for `validate --run-data`; without it, and for the PSNR
 *                                 anyway, those that the original's own sampling visits
 *   --samples N                   samples of the PSNR and of predictions without --eval (default 32)
 *   --bits 8,4,2  --methods rtn,…  --group-size 32   what the table of methods goes through
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { ArrowQuant } from "../../dist/index.js";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    table: { type: "string" },
    data: { type: "string" },
    eval: { type: "string" },
    samples: { type: "string", default: "32" },
    bits: { type: "string", default: "8,4,2" },
    methods: { type: "string", default: "rtn,mse,hqq,r2q,gptq,auto" },
    "group-size": { type: "string", default: "32" },
  },
});
const [model] = positionals;
if (model === undefined) throw new Error("npm run quality -- MODEL [--data FILE] [--eval FILE] [--table NAME]");

/** Predictions of a data set: all of its rows up to this. */
const EVAL_SAMPLES = 4096;

const folder = await mkdtemp(join(tmpdir(), "arrowquant-quality-"));
const aq = new ArrowQuant();

/** Quantizes, runs, and gives back the row's figures. */
async function measure(config, dynamicBits = null) {
  const output = join(folder, "quantized.parquet");
  const result = await aq.quantize({ input: model, output, force: true, config: { min_accuracy: 0, ...config } });
  const graph = config.graph ?? null;
  const sampled = await aq.validate({
    original: model,
    quantized: output,
    run: { samples: Number(values.samples), dynamicBits, graph },
  });
  const predicted =
    values.eval === undefined
      ? sampled
      : await aq.validate({
          original: model,
          quantized: output,
          run: { data: values.eval, samples: EVAL_SAMPLES, dynamicBits, graph },
        });
  const last = (validated) => validated.run.variants.at(-1);
  return {
    bitsPerWeight: result.summary.bitsPerWeight,
    sqnrDb: result.summary.metrics.sqnrDb,
    predictionError: last(predicted).predictionError,
    psnrDb: last(sampled).psnrDb,
    seconds: result.summary.seconds,
  };
}

function printHead(title, columns) {
  console.log(`\n${title}\n\n| ${columns.join(" | ")} |\n|${columns.map(() => "---").join("|")}|`);
}

function printRow(cells, { bitsPerWeight, sqnrDb, predictionError, psnrDb, seconds }) {
  const figures = [
    bitsPerWeight.toFixed(2),
    sqnrDb.toFixed(1),
    predictionError.toFixed(4),
    psnrDb.toFixed(1),
    seconds.toFixed(0),
  ];
  console.log(`| ${[...cells, ...figures].join(" | ")} |`);
}

const FIGURES = ["bits/weight", "weight SQNR dB", "prediction error", "PSNR dB", "s"];

/** Calibrations by name, as `calibration` takes them. */
const calibrations = { none: null, sampling: "sampling", ...(values.data === undefined ? {} : { data: values.data }) };

async function methodTable() {
  printHead(`Methods on ${model}, group ${values["group-size"]}, weights only`, [
    "bits",
    "method",
    "calibration",
    ...FIGURES,
  ]);
  for (const bits of values.bits.split(",").map(Number)) {
    for (const method of values.methods.split(",")) {
      if (method === "r2q" && bits !== 2) continue;
      for (const [name, calibration] of Object.entries(calibrations)) {
        if (calibration === null && (method === "gptq" || method === "auto")) continue;
        const config = { bit_width: bits, method, group_size: Number(values["group-size"]), calibration };
        const off = { enable_time_aware: false, activation_bits: 16 };
        printRow([bits, method, name], await measure({ ...config, ...off, enable_spatial: false }));
        if (method !== "auto") continue;
        printRow([bits, "auto, spatial", name], await measure({ ...config, ...off, enable_spatial: true }));
      }
    }
  }
}

/** Ways to quantize activations; the weights stay at 8 bits with float32 scales. */
const ACTIVATIONS = [
  ["one static range, min/max", { activation_mode: "static", activation_range: "minmax" }],
  ["10 uniform groups, min/max", { time_groups: "uniform", activation_range: "minmax" }],
  ["10 optimal groups, min/max", { time_groups: "optimal", activation_range: "minmax" }],
  ["20 uniform groups, least squares", { time_groups: "uniform", activation_range: "mse", num_time_groups: 20 }],
  ["20 optimal groups, least squares", { time_groups: "optimal", activation_range: "mse", num_time_groups: 20 }],
  [
    "20 optimal groups, least squares, spatial",
    { time_groups: "optimal", activation_range: "mse", num_time_groups: 20, enable_spatial: true },
  ],
  ["dynamic per token", { activation_mode: "dynamic" }],
];

async function activationTable() {
  printHead(`Activations on ${model}, weights at 8 bits`, ["bits", "activations", ...FIGURES]);
  const calibration = values.data ?? "sampling";
  for (const bits of [8, 6, 4]) {
    for (const [name, settings] of ACTIVATIONS) {
      const weights = { bit_width: 8, method: "rtn", scale_bits: "none", zero_point_bits: "none" };
      const config = { ...weights, calibration, activation_bits: bits, enable_spatial: false };
      const timeAware = settings.activation_mode === undefined ? { enable_time_aware: true } : {};
      printRow([bits, name], await measure({ ...config, ...timeAware, ...settings }));
    }
  }
}

const TABLES = { methods: methodTable, activations: activationTable };

try {
  for (const [name, print] of Object.entries(TABLES)) {
    if (values.table === undefined || values.table === name) await print();
  }
} finally {
  await aq.dispose();
  await rm(folder, { recursive: true, force: true });
}
