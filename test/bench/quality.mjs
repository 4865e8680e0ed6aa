/**
 * `npm run quality -- MODEL`: what quantization does to the predictions of a model that comes with its ONNX graph. Every
 * row is a quantization of the whole model, run side by side with the original by ONNX Runtime.
 *
 *   --table methods|activations|mixed|gguf   which table; without it the first two
 *   --data FILE                   calibration data, beside `sampling`
 *   --eval FILE                   inputs to predict for, as for `validate --run-data`; without it, and for the PSNR
 *                                 anyway, those that the original's own sampling visits
 *   --samples N                   samples of the PSNR and of predictions without --eval (default 32)
 *   --bits 8,4,2  --methods rtn,…  --group-size 32   what the table of methods goes through
 *
 * `npm run quality -- --table mixed`: uniform and mixed precision at the same sizes, on both shared models unless MODEL
 * is given, predictions on the models' reference inputs unless --eval is; results/mixed.json has the figures.
 *
 *   --methods gptq,hqq  --budgets 2.5,3,3.5,4  --evaluations 200   what it goes through; samples of a search
 *
 * `npm run quality -- --table gguf`: GGUF's types on dit-mnist beside gguf-py's and ggml's own quantizers, which npm and
 * pip install beside the interop checks; results/gguf.json has the figures.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { ArrowQuant } from "../../dist/index.js";
import { ggufTable } from "./quality-gguf.mjs";
import { mixedTable } from "./quality-mixed.mjs";
import { createMeasure, FIGURES, printHead, printRow } from "./quality-row.mjs";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    table: { type: "string" },
    data: { type: "string" },
    eval: { type: "string" },
    samples: { type: "string", default: "32" },
    bits: { type: "string", default: "8,4,2" },
    methods: { type: "string" },
    "group-size": { type: "string", default: "32" },
    budgets: { type: "string", default: "2.5,3,3.5,4" },
    evaluations: { type: "string", default: "200" },
  },
});
const [model] = positionals;
if (model === undefined && values.table !== "mixed" && values.table !== "gguf") {
  throw new Error("npm run quality -- MODEL [--data FILE] [--eval FILE] [--table NAME], or --table mixed|gguf");
}

const folder = await mkdtemp(join(tmpdir(), "arrowquant-quality-"));
const aq = new ArrowQuant();
const samples = Number(values.samples);
const evalPath = values.eval ?? null;
const measure = createMeasure(aq, folder, { model, evalPath, samples });

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
    for (const method of (values.methods ?? "rtn,mse,hqq,r2q,gptq,auto").split(",")) {
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

/** Uniform and mixed precision; see quality-mixed.mjs. */
async function mixed() {
  const request = {
    models: model === undefined ? null : [model],
    evalPath,
    samples,
    methods: (values.methods ?? "gptq,hqq").split(","),
    budgets: values.budgets.split(",").map(Number),
    evaluations: Number(values.evaluations),
  };
  await mixedTable(aq, folder, request, (rows) => saveRows("mixed.json", rows));
}

/** Types of GGUF; see quality-gguf.mjs. */
async function gguf() {
  if (model !== undefined) throw new Error("the table of GGUF's types is of dit-mnist, whose reference it needs");
  await ggufTable(aq, folder, (rows) => saveRows("gguf.json", rows));
}

function saveRows(name, rows) {
  const results = new URL("results/", import.meta.url);
  mkdirSync(results, { recursive: true });
  writeFileSync(new URL(name, results), `${JSON.stringify(rows, null, 2)}\n`);
}

const TABLES = { methods: methodTable, activations: activationTable, mixed, gguf };
const chosen = values.table === undefined ? ["methods", "activations"] : [values.table];

try {
  for (const name of chosen) await TABLES[name]();
} finally {
  await aq.dispose();
  await rm(folder, { recursive: true, force: true });
}
